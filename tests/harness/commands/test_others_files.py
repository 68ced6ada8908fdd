"""Files of another user, or without the right to write, in the folder of the results."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from harness import ROOT
from harness.artifacts.file_names import LOCK
from harness.artifacts.record import RunFiles, write_record
from harness.artifacts.schema import STEPS
from harness.artifacts.tables import TableWriter
from tests.support.data_sets import write_colours
from tests.support.no_locks import COMMAND_LINES, NOBODY
from tests.support.plans import a_config, a_record

RUN = ["--device", "cpu", "--gpus", "1", "--model", "x0_25", "--image-size", "32", "--batch-size", "8"]


def touch(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).touch()
        return folder / name

    return make


def a_run(folder: Path) -> Path:
    """A run that another user began; its steps are the first of its files, in order, that can't be written."""
    files = RunFiles(folder, "it")
    write_record(files.record, a_record(run="it", status="interrupted", config=a_config(gpus=1, batch_size=8)))
    files.record.chmod(0o666)
    files.checkpoints.mkdir()
    files.checkpoints.chmod(0o777)
    TableWriter(files.table(STEPS.name), STEPS).close()
    return files.table(STEPS.name)


# What is in the way, and what is asked for then.
CASES: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "run": (touch("summary.csv"), RUN),
    "lock": (touch(LOCK), [*RUN, "--throughput-only"]),
    "series": (touch("summary.csv"), [*RUN, "--throughput-only", "--repeats", "2", "--run-name", "it"]),
    "table": (touch("table-cpux1-colours.csv"), [*RUN, "--throughput-only"]),
    "verified": (touch("verify-colours.csv"), ["verify"]),
    "state": (touch("verify-colours.json"), ["verify"]),
    "verifying": (touch(".verify-colours.lock"), ["verify"]),
    "resumed": (a_run, ["--resume", "it", "--device", "cpu"]),
}


def test_files_that_can_not_be_written_are_refused_before_a_run(open_folder: Path, as_nobody: list[str]) -> None:
    """Case B3: the file is named with its owner, if that is another user, and a cure; nothing is written."""
    data = write_colours(open_folder / "colours")
    lines: list[list[str]] = []
    expected: list[str] = []
    folders: list[Path] = []

    def refused(folder: Path, path: Path, owner: str, cure: str, options: list[str]) -> None:
        words = ["verify", str(data)] if options == ["verify"] else [*options, "--data", str(data)]
        lines.append([*words, "--results", str(folder)])
        folders.append(folder)
        expected.append(
            f"error: can't write {path}: Permission denied{owner}\n"
            f"  {cure}, or name another folder with --results.\nexit code 3"
        )

    others = (" (it belongs to root)", "Let root allow you to write it")
    for name, (make, options) in CASES.items():
        folder = open_folder / name
        folder.mkdir()
        folder.chmod(0o777)
        path = make(folder)
        path.chmod(0o644)
        refused(folder, path, *others, options)
    for options in (RUN, ["verify"]):
        folder = open_folder / f"closed-{len(options)}"
        folder.mkdir(mode=0o755)
        refused(folder, folder, *others, options)
    for name, options in {"summary.csv": RUN, "verify-colours.csv": ["verify"]}.items():
        # One's own, whose mode is read-only.
        folder = open_folder / name.removesuffix(".csv")
        folder.mkdir()
        path = folder / name
        path.touch(mode=0o444)
        for owned in (folder, path):
            os.chown(owned, int(NOBODY), int(NOBODY))
        refused(folder, path, "", f"Make it writable (chmod u+w {path})", options)
    before = {folder: sorted(folder.rglob("*")) for folder in folders}
    done = subprocess.run(
        [*as_nobody, "-c", COMMAND_LINES, json.dumps(lines)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    assert re.findall(r"(?s)(.*?exit code \S+)\n", done.stderr) == expected
    assert {folder: sorted(folder.rglob("*")) for folder in folders} == before
