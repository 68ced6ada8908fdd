"""Who owns which file name in --results, and how names of devices and data sets become parts of file names."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from harness.errors import UsageError

MAX_CHARS = 60  # of the 255 bytes that a file's name may have

SUMMARY_FILE = "summary.csv"
LATENCY_TABLE = "latency"  # of `run_bench.py latency`: <name>.latency.csv
LOCK = ".lock"  # the lock of the tables in a folder that several runs share
VERIFICATION, TABLE, REFERENCE, GPU_DAY, REPORT = "verify-", "table-", "bi_v100", "gpu-day", "report"

# Every file in --results that isn't a run's begins with one of these names, and belongs to what follows it. Whatever
# writes another file there gets a line here: runs can't have these names then, in capital letters neither, as not every
# file system tells them apart.
OWNERS = {
    re.escape(SUMMARY_FILE.removesuffix(".csv")) + r"(\..*)?": "the summary of all runs",
    re.escape(VERIFICATION) + ".*": "a verification",
    re.escape(TABLE) + ".*": "a table in the reference's layout",
    re.escape(REFERENCE) + r"(\..*)?": "the published row",
    re.escape(GPU_DAY) + r"(\..*)?": "a GPU day",
    re.escape(REPORT) + r"(\..*)?": "the page of several runs",
    r"(doctor|readme)(\..*)?": "this project",
    # Of the run `a`, and of a node of it: a.json, a.steps.csv, a.checkpoints, a.node1.logs.
    r".*\.(json|csv|html|steps|devices|epochs|bad_images|scaling|checkpoints|traces|logs|node[0-9]+)": "another run",
    r".*\." + LATENCY_TABLE: "a measurement of latency",
    r".*\.(prom|mllog|tensorboard)": "another run",
    r".*\.tuning": "a tuning",
    r".*\.campaign": "a campaign",
}


def check_run_name(name: str, option: str = "--run-name") -> None:
    """Raise UsageError if a run of that name would have files that belong to something else, see OWNERS.

    option is the one that the name was given by.
    """
    for pattern, owner in OWNERS.items():
        if re.fullmatch(pattern, name, re.IGNORECASE):
            raise UsageError(
                f"{option} {name!r} can't be the name of a run: in --results, files of that name belong to {owner}",
                f"Give another {option}.",
            )


def verification_files(folder: Path, dataset: str) -> tuple[Path, Path, Path]:
    """Returns the files of the verification of a data set of that name: its table, its state and its lock."""
    table = folder / f"{VERIFICATION}{unique_part(dataset)}.csv"
    return table, table.with_suffix(".json"), table.with_name(f".{table.stem}.lock")


def readable_part(name: str) -> str:
    """Returns the name without characters that are unsafe in a file's name; two names may become the same."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "unnamed"


def unique_part(name: str) -> str:
    """Returns at most MAX_CHARS of `readable_part`, followed by a part of the name's hash if that changed the name."""
    plain = readable_part(name)[:MAX_CHARS]
    if plain == name:
        return plain
    return f"{plain}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"
