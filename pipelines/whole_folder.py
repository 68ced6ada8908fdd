"""Folders that appear only when they are complete: an unfinished data set never has the name of a finished one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(target: Path, prefix: str) -> Iterator[Path]:
    """An empty folder beside target that takes its name when the block ends well, and is removed otherwise.

    prefix begins the folder's name until then: that is what a killed process leaves. Raises OSError for what the disk
    refuses, and where target has become anything but an empty folder meanwhile.
    """
    beside = target.absolute().parent
    beside.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=prefix, dir=beside))
    try:
        yield unfinished
        unfinished.chmod(0o755)  # mkdtemp makes folders that only their owner can read
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
