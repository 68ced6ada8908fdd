from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.read_ahead import IMAGES_AHEAD, read_ahead, request_files

WAIT_SECONDS = 30.0


class Asked:
    """The files that the kernel was asked for, in order, in place of asking it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files: list[str] = []
        self._changed = threading.Condition()
        monkeypatch.setattr(os, "posix_fadvise", self._advise)

    def _advise(self, descriptor: int, offset: int, length: int, advice: int) -> None:
        assert (offset, length, advice) == (0, 0, os.POSIX_FADV_WILLNEED)
        with self._changed:
            self.files.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
            self._changed.notify_all()

    def wait_for(self, count: int) -> list[str]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.files) >= count, WAIT_SECONDS), self.files
        return self.files


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{number:03d}" for number in range(4 * IMAGES_AHEAD)]
    for path in paths:
        path.write_bytes(b"x")
    return [str(path) for path in paths]


def names(paths: list[str]) -> list[str]:
    return [Path(path).name for path in paths]


@pytest.mark.parametrize(("batch_size", "ahead"), [(1, 64), (16, 4), (48, 2), (64, 1), (128, 1)])
def test_the_files_of_the_following_batches_are_asked_for_before_a_batch_is_yielded(
    batch_size: int, ahead: int, files: list[str], asked: Asked
) -> None:
    batches = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
    taken: list[int] = []

    def drawn() -> Iterator[list[str]]:
        for number, batch in enumerate(batches):
            taken.append(number)
            yield batch

    reader = read_ahead(drawn(), request_files, batch_size)
    for number, batch in enumerate(batches):
        assert next(reader)[0] == batch
        assert len(taken) == min(number + ahead + 1, len(batches))
        sofar = min(batch_size * len(taken), len(files))
        assert asked.wait_for(sofar) == names(files[:sofar])
    assert list(reader) == []


def test_files_that_cannot_be_opened_are_left_to_their_reader(tmp_path: Path, files: list[str], asked: Asked) -> None:
    os.mkfifo(tmp_path / "pipe")
    batch = [str(tmp_path / "missing"), "with\0nul", str(tmp_path / "pipe"), files[0]]
    assert [(one, found.result()) for one, found in read_ahead([batch], request_files, 4)] == [(batch, None)]
    assert asked.wait_for(2)[-1] == names(files)[0]


def test_the_thread_ends_with_its_batches(files: list[str]) -> None:
    before = set(threading.enumerate())
    reader = read_ahead(iter([[files[0]]] * 99), lambda batch: batch, 1)
    next(reader)
    (thread,) = set(threading.enumerate()) - before
    assert thread.name.startswith("read-ahead")
    del reader
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()


def test_an_error_in_drawing_comes_through() -> None:
    def drawn() -> Iterator[list[str]]:
        yield []
        raise LookupError("nothing left")

    with pytest.raises(LookupError, match="nothing left"):
        list(read_ahead(drawn(), lambda batch: batch, IMAGES_AHEAD))
