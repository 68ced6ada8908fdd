"""The files by which ranks and the process that launched them speak, in the folder of the launcher's logs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.artifacts.atomic import disk_errors, write_whole
from harness.errors import InterruptedRunError, MachineError, OutOfMemoryError, TrainingError, UsageError
from harness.launch import watchdog
from models.errors import ActionableError, WeightsError
from pipelines.errors import DataError
from pipelines.image_lists import ImageList
from pipelines.storage import Patience
from pipelines.stored_lists import load_list, save_list

FAILURE, PULSE, JOINED, NOTICES, LISTS = "failure", "pulse", "joined", "notices", "lists"
# The root of a split's images, beside their list.
ROOT_FILE = "root"
# Of the stall limit, the share that a rank waits for storage. The others wait for this rank meanwhile, and their timers
# run since the same exchange; the rest is for the steps until the next one.
WAITING_SHARE = 0.6
# The errors that are restored with their own type; any other keeps its exit code only.
KINDS = {
    kind.__name__: kind
    for kind in (
        DataError, InterruptedRunError, MachineError, OutOfMemoryError, TrainingError, UsageError, WeightsError
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RankFiles:
    """One rank's files.

    failure holds the error that ended the rank. The modification time of pulse is when the rank last made progress.
    joined exists once the rank has connected to the ranks of the other nodes. notices has a line for each thing that
    the user should know while the run goes on. lists is the folder of all ranks' lists of images (see `leave_lists`).
    """

    failure: Path
    pulse: Path
    joined: Path
    notices: Path
    lists: Path

    @staticmethod
    def of(environment: Mapping[str, str]) -> RankFiles | None:
        """Returns the files of the rank with this environment; None if Paddle's launcher did not start the process."""
        if "PADDLE_LOG_DIR" not in environment:
            return None
        folder, rank = Path(environment["PADDLE_LOG_DIR"]), environment["PADDLE_TRAINER_ID"]
        names = (*(f"{name}.{rank}" for name in (FAILURE, PULSE, JOINED, NOTICES)), LISTS)
        return RankFiles(*(folder / name for name in names))


def leave_lists(folder: Path, splits: Mapping[str, ImageList]) -> None:
    """Write the lists of a run's splits to its folder of logs, for `lists_left`. Raises MachineError."""
    for split, images in splits.items():
        place = folder / LISTS / split
        with disk_errors(place, elsewhere="another folder for temporary files: TMPDIR=/path/to/folder"):
            save_list(place, images)
            (place / ROOT_FILE).write_bytes(os.fsencode(images.root))


def lists_left(lists: Path) -> dict[str, ImageList]:
    """The lists by split, mapped from the files in a folder, so that all ranks together have them in memory once.

    Raises DataError if they aren't whole, OSError if there are none.
    """
    roots = {place.name: Path(os.fsdecode((place / ROOT_FILE).read_bytes())) for place in lists.iterdir()}
    return {split: load_list(lists / split, root) for split, root in roots.items()}


def leave_failure(files: RankFiles, error: ActionableError) -> None:
    """Write a rank's error where `first_failure` reads it."""
    values = {
        "kind": type(error).__name__,
        "exit_code": error.exit_code,
        "message": error.message,
        "cure": error.cure,
    }
    write_whole(files.failure, json.dumps(values))


def first_failure(folder: Path) -> ActionableError | None:
    """Returns the first error that a rank of this node left; None if no rank left one.

    The errors of other ranks mostly follow from the first.
    """
    for path in sorted(folder.glob(f"{FAILURE}.*"), key=lambda path: path.stat().st_mtime):
        # A rank may have been killed while it wrote the file.
        with suppress(ValueError, KeyError):
            values = json.loads(path.read_text(encoding="utf-8"))
            error = KINDS.get(values["kind"], ActionableError)(values["message"], values["cure"])
            error.exit_code = values["exit_code"]
            return error
    return None


def leave_notice(files: RankFiles, line: str) -> None:
    """Add a line that `Notices` reads; a full disk loses it."""
    with suppress(OSError), files.notices.open("a", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(line.replace("\n", " ") + "\n")


def patience_of(files: RankFiles | None, who: str, stall_timeout: float) -> Patience:
    """How long a rank waits for storage, where a step may take stall_timeout seconds.

    What it says about that is left in its files, if there are any, after who.
    """

    def say(line: str) -> None:
        if files is not None:
            leave_notice(files, who + line)

    return Patience(WAITING_SHARE * stall_timeout, say, watchdog.silent_seconds)


class Notices:
    """Reads the notices of this node's ranks as they come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, int] = {}

    def new(self) -> list[str]:
        """Returns the whole lines that were added since the last call, by rank."""
        lines = []
        for path in sorted(self._folder.glob(f"{NOTICES}.*")):
            text = path.read_text(encoding="utf-8", errors="replace")
            begin = self._read.get(path.name, 0)
            whole = text.rfind("\n") + 1
            lines += text[begin:whole].splitlines()
            self._read[path.name] = whole
        return lines


def joined_ranks(folder: Path) -> int:
    """Returns the number of this node's ranks that have connected to those of the other nodes."""
    return len(list(folder.glob(f"{JOINED}.*")))


def pulse_files(folder: Path) -> list[Path]:
    """Returns the pulse files of the ranks that have started."""
    return list(folder.glob(f"{PULSE}.*"))
