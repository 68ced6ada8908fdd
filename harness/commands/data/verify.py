"""`run_bench.py verify`: checks that every image of a data set can be read and decoded."""

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
from harness.artifacts.file_names import verification_files
from harness.artifacts.lock import exclusive_lock, has_locks, no_locks
from harness.artifacts.run_lookup import stored_kind
from harness.artifacts.shared_schema import BAD_FILES
from harness.artifacts.tables import TableWriter
from harness.errors import InterruptedRunError, UsageError
from harness.machine.host import available_cores
from harness.report.console import Console
from harness.report.progress import image_bar
from harness.report.text import command_line
from models.notes import Note
from models.words import count_of
from pipelines.dataset import Dataset, open_dataset
from pipelines.dataset import fingerprint as lists_fingerprint
from pipelines.errors import DataError, StorageError
from pipelines.image_lists import ImageList, shown
from pipelines.list_findings import Finding, find_repeats, label_notes
from pipelines.packed.manifest import read_manifest
from pipelines.packed.packing import wrong_checksums
from pipelines.storage import Patience, Storage
from pipelines.verification import CHECKSUM, KINDS, Checked, Verification

SCHEMA_VERSION = 1
# A killed verification repeats at most the work of this time.
SAVE_SECONDS = 2.0
RUNNING, INTERRUPTED, FINISHED = "running", "interrupted", "finished"


@dataclass(frozen=True, slots=True)
class Verified:
    """The progress of a verification of these lists: its <name>.json.

    done holds the number of checked images by split. table_bytes is the length of the table at that time; a killed
    verification may have written more rows after its last save. counts holds the table's rows by kind.
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

    An unfinished verification of the same lists is resumed. Raises DataError if images are bad, InterruptedRunError
    when interrupted, and UsageError for threads below 1 or while another verification writes to the same table.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"--threads is {threads}; it must be at least 1")
    # Pixels can be checked without labels.
    dataset = open_dataset(data, classes, with_labels=False)
    console = Console()
    table, saved, lock = verification_files(Path(results), dataset.name)
    check_writable(table.parent, (table, saved, lock))
    if not has_locks(table.parent):
        console.notice(no_locks("two verifications of one data set", results))
    with exclusive_lock(lock, wait=False, held=f"another verification is writing {str(table)!r}"):
        _refuse_record(saved)
        state = _begin(table, dataset, console)
        command = _command(data, results, classes, threads)
        state = _check(dataset, table, state, threads or available_cores(), console, command)
    _conclude(dataset, table, state, console)


def fingerprint(dataset: Dataset) -> str:
    """Returns a digest of the lists and of the folder that their paths are relative to."""
    root = os.path.abspath(dataset.root)  # noqa: PTH100
    return hashlib.sha256(f"{root}\0{lists_fingerprint(dataset)}".encode(errors="surrogateescape")).hexdigest()


def _state_file(table: Path) -> Path:
    return table.with_suffix(".json")


def _refuse_record(path: Path) -> None:
    """Raise UsageError if the file is the record of a run or series, which would be overwritten."""
    if stored_kind(path) is not None:
        raise UsageError(f"{str(path)!r} is the record of a run or series", "Name another --results.")


def _begin(table: Path, dataset: Dataset, console: Console) -> Verified:
    """Returns the state to start from: a new one, or that of an unfinished verification, whose table is restored."""
    lists = fingerprint(dataset)
    before = _read_state(_state_file(table))
    if before is not None and before.status == FINISHED and before.fingerprint != lists:
        console.notice(
            Note(
                f"{table} was of other lists, or of another folder: its results are replaced",
                "--results names another folder for this one's.",
            )
        )
    if before is not None and before.status != FINISHED:
        if before.fingerprint != lists:
            console.notice(
                Note(
                    f"the lists of {dataset.name} differ from those of the unfinished verification: starting over",
                    "Verify each data set into a --results of its own.",
                )
            )
        elif not table.exists() or table.stat().st_size < before.table_bytes:
            console.notice(
                Note(
                    f"{table} lacks rows of the unfinished verification: starting over",
                    "Leave the table as it is while a verification is unfinished.",
                )
            )
        else:
            os.truncate(table, before.table_bytes)
            console.notice(
                Note(
                    f"resuming after {count_of(_done(before), 'image')}, verified before",
                    "Remove the table to begin again.",
                )
            )
            return replace(before, status=RUNNING)
    table.unlink(missing_ok=True)
    with TableWriter(table, BAD_FILES):
        state = Verified(dataset.name, lists, dict.fromkeys(dataset.splits, 0), table.stat().st_size)
    _save(table, state)
    return state


def _read_state(path: Path) -> Verified | None:
    """Returns the saved state; None if there is no complete file of this schema version."""
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
    """Check the remaining images, saving the state every SAVE_SECONDS. Returns the final state."""
    total = sum(map(len, dataset.splits.values()))
    before, began = _done(state), time.monotonic()
    saved_at = began
    try:
        with TableWriter(table, BAD_FILES) as writer, image_bar(console, total) as bar:
            task = bar.add_task("verifying", total=total, rate="images")
            for split, images, checked in _checks(dataset, state.done, threads, Patience(say=console.notice)):
                for finding in checked.findings:
                    writer.write(_row(split, images, finding))
                # In one step, so that the state is valid whenever an interruption comes.
                state = _advanced(state, split, checked, table.stat().st_size)
                now = time.monotonic()
                rate = (_done(state) - before) / max(now - began, 1e-9)
                bar.update(task, completed=_done(state), description=split, rate=f"images, {rate:,.0f} images/s")
                if now - saved_at >= SAVE_SECONDS:
                    saved_at = now
                    _save(table, state)
    except KeyboardInterrupt:
        _save(table, replace(state, status=INTERRUPTED))
        raise InterruptedRunError(
            f"interrupted: {_done(state):,} of {count_of(total, 'image')} verified", f"To resume: {command}"
        ) from None
    except StorageError as error:
        _save(table, replace(state, status=INTERRUPTED))
        error.cure = f"Make it readable again. To resume: {command}"
        raise
    state = replace(state, status=FINISHED)
    _save(table, state)
    seconds = time.monotonic() - began
    checked_here = _done(state) - before
    _print(
        console,
        f"{count_of(checked_here, 'image')} verified in {seconds:,.1f} s on {count_of(threads, 'thread')}:"
        f" {checked_here / max(seconds, 1e-9):,.0f} images/s",
    )
    return state


def _checks(
    dataset: Dataset, done: Mapping[str, int], threads: int, patience: Patience
) -> Iterator[tuple[str, ImageList, Checked]]:
    """Yields the findings of each batch of each split, from the first unchecked image on.

    Repeated images are among them, and the first image of each shard that isn't what was packed.
    """
    checks = {split: Storage(images, patience).inspect() for split, images in dataset.splits.items()}
    more_of = find_repeats(dataset, checks)
    manifest = read_manifest(dataset.root)
    for split, wrong in ({} if manifest is None else wrong_checksums(manifest, dataset.root, threads)).items():
        for index, reason in wrong.items() if split in more_of else ():
            more_of[split].setdefault(index, []).append(Finding(index, CHECKSUM, reason))
    for split, images in dataset.splits.items():
        begin = done[split]
        if begin == len(images):
            continue
        more = more_of[split]
        for checked in Verification(Storage(images, patience), threads, begin):
            indices = range(begin, checked.end) if more else ()
            others = [finding for index in indices for finding in more.get(index, ())]
            found = sorted([*checked.findings, *others], key=lambda finding: finding.index)
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


def _advanced(state: Verified, split: str, checked: Checked, table_bytes: int) -> Verified:
    counts = Counter(state.counts)
    counts.update(finding.kind for finding in checked.findings)
    return replace(
        state, done={**state.done, split: checked.end}, table_bytes=table_bytes, counts=dict(sorted(counts.items()))
    )


def _conclude(dataset: Dataset, table: Path, state: Verified, console: Console) -> None:
    """Print what was found. Raises DataError if images are bad."""
    for split, images in dataset.splits.items():
        _print(console, f"{split}: {count_of(len(images), 'image')} of {count_of(len(set(images.labels)), 'class')}")
    _print(console, f"classes: {dataset.classes.origin}")
    for note in (*dataset.notes, *label_notes(dataset)):
        _print(console, f"warning: {note}")
    counts = {kind: state.counts[kind] for kind in KINDS if state.counts.get(kind)}
    for kind, count in counts.items():
        if not KINDS[kind].bad:
            _print(console, f"warning: {KINDS[kind].describe(count)}")
    bad = [KINDS[kind].describe(count) for kind, count in counts.items() if KINDS[kind].bad]
    if bad:
        raise DataError(
            f"{count_of(_done(state), 'image')} checked in {shown(dataset.name)}:"
            + (f" {bad[0]}" if len(bad) == 1 else "".join(f"\n  {line}" for line in bad)),
            f"{table} lists each of them with its reason. Verify again after correcting the files or the lists.",
        )
    _print(console, "every image can be read and decoded" + (f"; see {table} for the warnings" if counts else ""))


def _print(console: Console, text: str) -> None:
    console.line(text)


def _command(data: str, results: str, classes: int | None, threads: int | None) -> str:
    """Returns the command that resumes the verification."""
    words = ["verify", data, "--results", results]
    words += ["--classes", str(classes)] if classes is not None else []
    words += ["--threads", str(threads)] if threads is not None else []
    return command_line(*words)
