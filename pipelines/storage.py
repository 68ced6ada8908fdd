"""Whether the storage that images are on can be read, judged from files that were good before; and waiting for it."""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from models.notes import Note
from pipelines.errors import StorageError
from pipelines.file_checks import FileCheck, check_files
from pipelines.image_lists import ImageList, read_contents, shown, spread

# Storage that comes back is noticed soon at first, then without many requests.
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.1, 2.0
DEFAULT_LIMIT_SECONDS = 180.0
# Lines about waiting that one process prints and records; storage that comes and goes all day would fill the record.
MAX_NOTICES = 20
WITNESSES = 8
# Where a witness is unusable, one of the images that follow it in the list takes its place.
TRIED_PER_WITNESS = 4
TAIL_BYTES = 64
# Before an image is examined again: longer if it was changed in the last minute, so that it may still be written, and
# longest if the storage was away then, so that it may be on its way back.
CALM_PAUSE_SECONDS, FRESH_PAUSE_SECONDS, TROUBLED_PAUSE_SECONDS = 0.01, 0.1, 1.0
UNSTEADY_SECONDS = 60.0
CURE = (
    "Make it readable again, or raise --stall-timeout if it comes back by itself. A run that is resumed, or started"
    " again, looks at all files first and leaves missing ones out, within --max-bad-images."
)


def _ignore(_: str) -> None:
    """Say nothing."""


def _go_on() -> None:
    """Let the wait go on."""


def _no_silence() -> float:
    return 0.0


@dataclass(frozen=True, slots=True)
class Clock:
    """The time, and sleeping until a later one."""

    monotonic: Callable[[], float] = time.monotonic
    unix: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


@dataclass(slots=True)
class Patience:
    """How long a process waits for storage, with growing pauses, and what it says about it.

    limit_seconds is the longest wait, counted from the first failure or from the process's last progress, which
    silent_seconds tells, whichever is longer. say gets one line for each wait that is over. check is called around each
    pause; what it raises ends the wait. waits counts the pauses, waited_seconds is the time of all waits that are over.
    """

    limit_seconds: float = DEFAULT_LIMIT_SECONDS
    say: Callable[[str], None] = _ignore
    silent_seconds: Callable[[], float] = _no_silence
    clock: Clock = field(default_factory=Clock)
    check: Callable[[], None] = _go_on
    waits: int = 0
    waited_seconds: float = 0.0
    _began: float | None = None
    _began_unix: float = 0.0
    _reason: str = ""
    _pause: float = FIRST_PAUSE_SECONDS
    _last_trouble: float = float("-inf")
    _said: int = 0

    def wait(self, reason: str, what: str) -> None:
        """Pause, longer with each call until `over`; reason says why what (a folder or a file) can't be read.

        Raises StorageError when the limit is reached.
        """
        clock = self.clock
        now = self._last_trouble = clock.monotonic()
        reason = reason[:1].upper() + reason[1:]
        if self._began is None:
            self._began, self._began_unix, self._pause, self._reason = now, clock.unix(), FIRST_PAUSE_SECONDS, reason
        left = self.limit_seconds - max(now - self._began, self.silent_seconds())
        if left <= 0.0:
            raise StorageError(
                f"the data can't be read since {self._clock_time()}, for {now - self._began:.1f} s: {shown(what)}:"
                f" {reason}",
                CURE,
            )
        self.waits += 1
        self.check()
        clock.sleep(min(self._pause, left))
        self.check()
        self._pause = min(2 * self._pause, MAX_PAUSE_SECONDS)

    def over(self) -> None:
        """Say how long was waited, if so; the next wait begins with short pauses again."""
        if self._began is None:
            return
        seconds, self._began = self.clock.monotonic() - self._began, None
        self.waited_seconds += seconds
        self._said += 1
        if self._said <= MAX_NOTICES:
            last = " (further waits are not listed)" if self._said == MAX_NOTICES else ""
            self.say(
                Note(
                    f"the data could not be read from {self._clock_time()} for {seconds:.1f} s ({self._reason});"
                    f" waited{last}",
                    "Check the storage; --stall-timeout bounds the wait.",
                )
            )

    @property
    def troubled(self) -> bool:
        """Whether the storage was away in the last UNSTEADY_SECONDS: single files may still be on their way back."""
        return self.clock.monotonic() - self._last_trouble < UNSTEADY_SECONDS

    def suspect(self) -> None:
        """Count the storage as troubled from now on: a file that was there is gone, perhaps the first of many."""
        self._last_trouble = self.clock.monotonic()

    def before_second_look(self, changed_unix: float) -> None:
        """Pause before files that were last changed at that time are examined again; see UNSTEADY_SECONDS."""
        clock = self.clock
        self.check()
        if self.troubled:
            clock.sleep(TROUBLED_PAUSE_SECONDS)
        elif clock.unix() - changed_unix < UNSTEADY_SECONDS:
            clock.sleep(FRESH_PAUSE_SECONDS)
        else:
            clock.sleep(CALM_PAUSE_SECONDS)

    def _clock_time(self) -> str:
        return time.strftime("%H:%M:%S", time.localtime(self._began_unix))


@dataclass(frozen=True, slots=True)
class _Witness:
    """A file known to be good: its path, its size in bytes and its last bytes."""

    path: str
    size: int
    tail: bytes


class Storage:
    """Judges whether the images' storage can be read: by witnesses, files known to be good from all over the list.

    The storage counts as away while more than half of them can't be read, or are not what they were. Without a witness
    it is judged by the folder: away while that can't be listed, or has nothing in it.
    """

    def __init__(self, images: ImageList, patience: Patience | None = None, bad: Collection[int] = ()) -> None:
        self.images, self.patience = images, patience or Patience()
        self.root = str(images.root)
        self._witnesses = list(self._chosen(bad))

    def obstacle(self) -> str:
        """Returns why the storage can't be read now; empty if it can."""
        if not self._witnesses:
            self._witnesses = list(self._chosen(()))
        if not self._witnesses:
            return _folder_fault(self.root)
        reasons = [reason for witness in self._witnesses if (reason := _difference(witness))]
        return Counter(reasons).most_common(1)[0][0] if 2 * len(reasons) > len(self._witnesses) else ""

    def wait(self, reason: str, index: int | None = None) -> None:
        """Pause because of this reason, for the image at an index, or for all. Raises StorageError, see `Patience`."""
        self.patience.wait(reason, self.root if index is None else self.path(index))

    def content(self, index: int) -> npt.NDArray[np.uint8]:
        """The bytes of an image [its length]; waits while they can't be read. Raises StorageError, see `Patience`."""
        while True:
            found = read_contents(self.images, (index,))[0]
            if not isinstance(found, OSError):
                return found
            self.wait(found.strerror or type(found).__name__, index)

    def path(self, index: int) -> str:
        """The path of the image at an index, for messages: what has it is `ImageList.file`."""
        return f"{self.root}/{self.images.paths[index]}"

    def changed_unix(self, indices: Sequence[int]) -> float:
        """Returns when the last of these images' files was changed, in Unix seconds; 0 if that is unknown."""
        return max((_changed_unix(file) for file in {self.images.file(index) for index in indices}), default=0.0)

    def inspect(self, images: ImageList | None = None) -> FileCheck:
        """Inspect every file of the images, by default all of the storage's, as `check_files` does.

        Files are found to be unusable only while the storage can be read; after it was away, only when it has been back
        for UNSTEADY_SECONDS, as files may return one by one. Raises StorageError.
        """
        images = images or self.images
        check = check_files(images)
        faults = dict(check.faults)
        while faults:
            self._note_good(images, faults)
            before = self.obstacle()
            asked = sorted(faults)
            again = check_files(images.part(asked))
            check.files[asked] = again.files
            check.sizes.array[asked] = again.sizes.array
            faults = {asked[place]: reason for place, reason in again.faults.items()}
            obstacle = before or self.obstacle()
            if obstacle:
                self.wait(obstacle)
            elif faults and self.patience.troubled:
                self.patience.before_second_look(0.0)
            elif len(faults) == len(asked):
                break
        self.patience.over()
        return replace(check, faults=faults)

    def _note_good(self, images: ImageList, faults: Collection[int]) -> None:
        """Take witnesses from images that were found to be good, if there are none."""
        if not self._witnesses:
            good = np.setdiff1d(np.arange(len(images)), list(faults), assume_unique=True)
            chosen = [images.file(int(good[place])) for place in spread(len(good), WITNESSES)]
            self._witnesses = [witness for path in chosen if (witness := _witness(path)) is not None]

    def _chosen(self, bad: Collection[int]) -> Iterator[_Witness]:
        count = len(self.images)
        for place in spread(count, WITNESSES):
            for index in range(place, min(place + TRIED_PER_WITNESS, count)):
                witness = None if index in bad else _witness(self.images.file(index))
                if witness is not None:
                    yield witness
                    break


def _changed_unix(path: str) -> float:
    """When the file was last changed, in Unix seconds; 0 if that is unknown."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return 0.0
    return max(status.st_mtime, status.st_ctime)


def _witness(path: str) -> _Witness | None:
    try:
        size, tail = _read_tail(path)
    except (OSError, ValueError):
        return None
    return _Witness(path, size, tail) if size else None


def _difference(witness: _Witness) -> str:
    """Why a witness can't be read, or what is wrong with it; empty if it is as it was."""
    try:
        found = _read_tail(witness.path)
    except OSError as error:
        return error.strerror or type(error).__name__
    return "" if found == (witness.size, witness.tail) else f"{found[0]:,} bytes instead of {witness.size:,}"


def _read_tail(path: str) -> tuple[int, bytes]:
    """Returns the size of a regular file and its last bytes. Raises OSError."""
    # O_NONBLOCK, as opening a pipe would wait for its other end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "not a regular file")
        return status.st_size, os.pread(descriptor, TAIL_BYTES, max(0, status.st_size - TAIL_BYTES))
    finally:
        os.close(descriptor)


def _folder_fault(folder: str) -> str:
    try:
        with os.scandir(folder) as entries:
            return "" if any(entries) else "the folder is empty"
    except OSError as error:
        return error.strerror or type(error).__name__
