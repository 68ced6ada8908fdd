"""The page cache, with files that the tests bring into it and drop from it."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.page_cache import DataState, data_state, read_into_memory, resident_share

PAGE = mmap.PAGESIZE
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells what is in the page cache")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A folder whose files can be dropped from memory."""
    asked = ["stat", "--file-system", "--format=%T", os.fspath(tmp_path)]
    kind = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    if kind in ("tmpfs", "ramfs", "overlayfs"):
        pytest.skip(f"the temporary folder is on {kind}, which keeps files in memory")
    return tmp_path


def write(file: Path, pages: float, *, warm: bool = False) -> Path:
    """A file of so many pages, all of them in the page cache or none."""
    file.write_bytes(os.urandom(int(pages * PAGE)))
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    if warm:
        file.read_bytes()
    return file


@linux
def test_a_file_is_cold_until_it_is_read(disk: Path) -> None:
    file = write(disk / "a", 64)
    assert resident_share([file]) == 0.0
    assert resident_share([file]) == 0.0  # looking brought nothing in
    file.read_bytes()
    assert resident_share([file]) == 1.0


@linux
def test_files_that_are_read_are_warm_and_those_that_cannot_be_are_passed_over(disk: Path) -> None:
    files = [write(disk / name, pages) for name, pages in (("a", 3), ("b", 700))]
    read_into_memory([files[0], disk / "missing", disk, files[1]])
    assert resident_share(files) == 1.0


@linux
def test_pages_of_a_file_count_one_by_one(disk: Path) -> None:
    file = write(disk / "a", 64)
    descriptor = os.open(file, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # no reading ahead
    for page in (0, 7, 31, 63):
        os.pread(descriptor, 1, page * PAGE)
    os.close(descriptor)
    assert resident_share([file]) == 4 / 64


@linux
def test_files_weigh_as_many_times_as_they_have_pages(disk: Path) -> None:
    warm = write(disk / "warm", 6.5, warm=True)  # the seventh page is begun
    cold = write(disk / "cold", 1)
    assert resident_share([warm, cold]) == 7 / 8
    assert resident_share([os.fspath(cold)]) == 0.0


@linux
def test_the_sample_is_spread_over_the_list(disk: Path) -> None:
    files = [write(disk / str(index), 1, warm=index in (0, 3, 6)) for index in range(10)]
    assert resident_share(files, samples=3) == 1.0
    assert resident_share(files, samples=10) == 0.3
    assert resident_share(files) == 0.3


@linux
def test_what_cannot_be_looked_at_is_left_out(disk: Path) -> None:
    warm, cold = write(disk / "warm", 1, warm=True), write(disk / "cold", 3)
    (disk / "empty").touch()
    os.mkfifo(disk / "pipe")
    odd: list[str | Path] = [disk / "missing", disk / "empty", disk / "pipe", disk, "nul\0"]
    assert resident_share([*odd, warm, cold]) == 0.25
    assert resident_share(odd) is None
    assert resident_share([]) is None


@pytest.fixture
def stranger() -> Iterator[None]:
    """The test runs as a user who owns no file of the system's."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@linux
def test_a_file_of_somebody_else_is_unknown_to_those_who_may_only_read_it(stranger: None) -> None:
    # Linux would call it resident, whether it is or not.
    assert Path("/etc/passwd").read_bytes()
    assert resident_share(["/etc/passwd"]) is None


class Library:
    """A C library whose mincore fails."""

    @staticmethod
    def mincore(*_: object) -> int:
        return -1


@pytest.mark.parametrize("library", [OSError("no C library"), object(), Library()])
def test_a_system_that_cannot_say_leaves_the_share_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: object
) -> None:
    def load(*_: object, **__: object) -> object:
        if isinstance(library, OSError):
            raise library
        return library

    (tmp_path / "a").write_bytes(b"1")
    monkeypatch.setattr(ctypes, "CDLL", load)
    assert resident_share([tmp_path / "a"]) is None


def test_other_systems_are_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"1")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert resident_share([tmp_path / "a"]) is None


def test_at_least_one_file_is_sampled() -> None:
    with pytest.raises(ValueError, match="samples is 0; it must be at least 1"):
        resident_share([], samples=0)


@pytest.mark.parametrize(
    ("share", "state"),
    [
        (1.0, "warm"),
        (0.95, "warm"),
        (0.949, "partly"),
        (0.5, "partly"),
        (0.051, "partly"),
        (0.05, "cold"),
        (0.0, "cold"),
        (None, "unknown"),
    ],
)
def test_the_state_of_a_share(share: float | None, state: str) -> None:
    assert data_state(share, 10, 20) == DataState(share, state, 10, 20)


def test_larger_than_memory() -> None:
    assert [data_state(1.0, size, 1000).larger_than_memory for size in (999, 1000, 1001)] == [False, False, True]


def test_a_state_that_contradicts_its_share_is_refused() -> None:
    with pytest.raises(ValueError, match=r"state is 'warm', but a share of 0\.5 is 'partly'"):
        DataState(0.5, "warm", 1, 1)
    with pytest.raises(ValueError, match=r"share is 1\.5; it must lie in 0\.\.1"):
        DataState(1.5, "warm", 1, 1)
