"""Disks of a few kilobytes and disks that can't be written, mounted for a test."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SmallDisk = Callable[..., Path]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """small_disk(bytes) mounts a tmpfs of that size (pages of 4 KiB) and gives its folder.

    Skips the test where nothing may be mounted, as without root or in most containers.
    """
    mounted: list[Path] = []

    def mount(size_bytes: int) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            pytest.skip(f"no disk can be mounted here: {error}")
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no byte free; the file that takes all the room."""
    path = folder / "ballast"
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as stream:
        while stream.write(bytes(4096)):
            pass
    assert os.statvfs(folder).f_bavail == 0
    return path


def make_read_only(folder: Path) -> None:
    """Mount what `small_disk` gave again, so that not even root may write."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
