"""`run_bench.py verify`: can every image of a data set be read and decoded?"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from harness.artifacts.atomic import check_writable, write_whole
from harness.artifacts.file_names import unique_part
from harness.artifacts.lock import exclusive_lock
from harness.artifacts.run_lookup import stored_kind
from harness.artifacts.shared_schema import BAD_FILES
from harness.artifacts.tables import TableWriter
from harness.errors import InterruptedRunError, UsageError
from harness.machine.host import available_cores
from harness.report.console import Console
from harness.report.progress import image_bar
from harness.report.text import command_line, plain_text
from pipelines.dataset import Dataset, open_dataset
from pipelines.dataset import fingerprint as lists_fingerprint
from pipelines.errors import DataError
from pipelines.image_lists import ImageList, shown
from pipelines.verification import KINDS, Checked, Finding, Verification, find_repeats

SCHEMA_VERSION = 1
# What a killed verification does again is at most this long.
SAVE_SECONDS = 2.0
RUNNING, INTERRUPTED, FINISHED = "running", "interrupted", "finished"
CLASSES_NAMED = 10


@dataclass(frozen=True, slots=True)
class Verified:
    """How far a verification of these lists has come: its <name>.json.

    done are images by split. table_bytes is how long the table was then; what stands behind, a verification that was
    killed wrote after its last save. counts are of the table's rows, by kind.
    """

    dataset: str
    fingerprint: str
    done: dict[str, int]
    table_bytes: int
    counts: dict[str, int] = field(default_factory=dict)
    status: str = RUNNING
    schema_version: int = SCHEMA_VERSION


def verify(data: str, results: str, classes: int | None = None, threads: int | None = None) -> None:
    """Check the data set that data names, and write what is wrong to <results>/verify-<its name>.csv.

    An earlier verification of the same lists that was not finished is gone on with. Raises DataError where images are
    bad, InterruptedRunError when interrupted, UsageError for threads below 1 and while another verification writes
    there.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"--threads is {threads}; it must be at least 1")
    dataset = open_dataset(data, classes)
    folder = Path(results)
    check_writable(folder)
    table = folder / f"verify-{unique_part(dataset.name)}.csv"
    console = Console()
    lock = table.with_name(f".{table.stem}.lock")
    with exclusive_lock(lock, wait=False, held=f"another verification is writing {str(table)!r}"):
        _refuse_record(_state_file(table))
        state = _begin(table, dataset, console)
        command = _command(data, results, classes, threads)
        state = _check(dataset, table, state, threads or available_cores(), console, command)
    _conclude(dataset, table, state, console)


def splits_of(dataset: Dataset) -> dict[str, ImageList]:
    """The lists, by their split."""
    splits = {"train": dataset.train}
    if dataset.val is not None:
        splits["val"] = dataset.val
    return splits


def fingerprint(dataset: Dataset) -> str:
    """Of the lists and the folder they are taken below."""
    root = os.path.abspath(dataset.root)  # noqa: PTH100
    return hashlib.sha256(f"{root}\0{lists_fingerprint(dataset)}".encode(errors="surrogateescape")).hexdigest()


def _state_file(table: Path) -> Path:
    return table.with_suffix(".json")


def _refuse_record(path: Path) -> None:
    """Raise UsageError where a run or series happens to have the verification's name, and would lose its record."""
    if stored_kind(path) is not None:
        raise UsageError(f"{str(path)!r} is the record of a run or series", "Name another --results.")


def _begin(table: Path, dataset: Dataset, console: Console) -> Verified:
    """Where to go on: at the start, or where the one before stopped, with the table as it was then."""
    lists = fingerprint(dataset)
    before = _read_state(_state_file(table))
    if before is not None and before.status != FINISHED:
        if before.fingerprint != lists:
            console.notice(f"{dataset.name} has other lists than the verification that stopped: this one starts over")
        elif not table.exists() or table.stat().st_size < before.table_bytes:
            console.notice(f"{table} lacks rows of the verification that stopped: this one starts over")
        else:
            os.truncate(table, before.table_bytes)
            console.notice(f"going on after {_done(before):,} images that were verified before")
            return replace(before, status=RUNNING)
    table.unlink(missing_ok=True)
    with TableWriter(table, BAD_FILES):
        state = Verified(dataset.name, lists, dict.fromkeys(splits_of(dataset), 0), table.stat().st_size)
    _save(table, state)
    return state


def _read_state(path: Path) -> Verified | None:
    """What the file says; None where there is none that this version wrote whole."""
    try:
        state = Verified(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return state if state.schema_version == SCHEMA_VERSION else None


def _save(table: Path, state: Verified) -> None:
    write_whole(_state_file(table), json.dumps(asdict(state), indent=2) + "\n")


def _done(state: Verified) -> int:
    return sum(state.done.values())


def _check(dataset: Dataset, table: Path, state: Verified, threads: int, console: Console, command: str) -> Verified:
    """Go on to the end, saving now and then."""
    total = sum(map(len, splits_of(dataset).values()))
    before, began = _done(state), time.monotonic()
    result = began
    try:
        with TableWriter(table, BAD_FILES) as writer, image_bar(console, total) as bar:
            task = bar.add_task("verifying", total=total, rate="images")
            for split, images, checked in _checks(dataset, state.done, threads):
                for finding in checked.findings:
                    writer.write(_row(split, images, finding))
                # In one step, so that it holds whenever an interruption comes.
                state = _moved_on(state, split, checked, table.stat().st_size)
                now = time.monotonic()
                rate = (_done(state) - before) / max(now - began, 1e-9)
                bar.update(task, completed=_done(state), description=split, rate=f"images, {rate:,.0f} images/s")
                if now - result >= SAVE_SECONDS:
                    result = now
                    _save(table, state)
    except KeyboardInterrupt:
        _save(table, replace(state, status=INTERRUPTED))
        raise InterruptedRunError(
            f"interrupted: {_done(state):,} of {total:,} images verified", f"To go on: {command}"
        ) from None
    state = replace(state, status=FINISHED)
    _save(table, state)
    seconds = time.monotonic() - began
    checked_here = _done(state) - before
    _say(
        console,
        f"{checked_here:,} images verified in {seconds:,.1f} s on {threads} threads:"
        f" {checked_here / max(seconds, 1e-9):,.0f} images/s",
    )
    return state


def _checks(dataset: Dataset, done: Mapping[str, int], threads: int) -> Iterator[tuple[str, ImageList, Checked]]:
    """What is found in each batch of each split, from where it is done, repeated paths among it."""
    for split, images in splits_of(dataset).items():
        begin = done[split]
        if begin == len(images):
            continue
        repeats = find_repeats(images, None if split == "train" else dataset.train)
        for checked in Verification(images, threads, begin):
            indices = range(begin, checked.end) if repeats else ()
            more = [finding for index in indices for finding in repeats.get(index, ())]
            found = sorted([*checked.findings, *more], key=lambda finding: finding.index)
            yield split, images, Checked(checked.end, tuple(found))
            begin = checked.end


def _row(split: str, images: ImageList, finding: Finding) -> dict[str, str | int]:
    return {
        "split": split,
        "path": images.paths[finding.index],
        "label": images.labels[finding.index],
        "kind": finding.kind,
        "reason": finding.reason,
    }


def _moved_on(state: Verified, split: str, checked: Checked, table_bytes: int) -> Verified:
    counts = Counter(state.counts)
    counts.update(finding.kind for finding in checked.findings)
    return replace(
        state, done={**state.done, split: checked.end}, table_bytes=table_bytes, counts=dict(sorted(counts.items()))
    )


def _conclude(dataset: Dataset, table: Path, state: Verified, console: Console) -> None:
    """Print what was found. Raises DataError where images are bad."""
    for split, images in splits_of(dataset).items():
        present = set(images.labels)
        # Validation may be of a few classes; without a training image a class can't be learnt.
        absent = [label for label in range(dataset.num_classes) if label not in present] if split == "train" else []
        line = f"{split}: {len(images):,} images of {len(present):,} classes"
        if absent:
            more = ", ..." if len(absent) > CLASSES_NAMED else ""
            named = ", ".join(map(str, absent[:CLASSES_NAMED]))
            line += f"; {len(absent):,} of the model's {dataset.num_classes:,} have none: {named}{more}"
        _say(console, line)
    counts = {kind: state.counts[kind] for kind in KINDS if state.counts.get(kind)}
    for kind, count in counts.items():
        if not KINDS[kind].bad:
            _say(console, f"warning: {count:,} {KINDS[kind].meaning}: {KINDS[kind].cure}")
    bad = {kind: count for kind, count in counts.items() if KINDS[kind].bad}
    if bad:
        lines = [f"  {count:,} {KINDS[kind].meaning}: {KINDS[kind].cure}" for kind, count in bad.items()]
        raise DataError(
            f"of the {_done(state):,} images of {shown(dataset.name)} are\n" + "\n".join(lines),
            f"{table} names each with its reason. Verify again when they are restored, or out of the lists.",
        )
    _say(console, "every image can be read and decoded" + (f"; warnings are in {table}" if counts else ""))


def _say(console: Console, text: str) -> None:
    console.rich.print(plain_text(text), soft_wrap=True)


def _command(data: str, results: str, classes: int | None, threads: int | None) -> str:
    """What one types to go on."""
    words = ["verify", data, "--results", results]
    words += ["--classes", str(classes)] if classes is not None else []
    words += ["--threads", str(threads)] if threads is not None else []
    return command_line(*words)
