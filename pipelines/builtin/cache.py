"""Where built-in data sets are kept, and how one is made so that an unfinished set is never used."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pipelines.errors import CacheFolderError
from pipelines.whole_folder import whole_folder

CACHE_VARIABLE = "PPLCNET_BENCH_CACHE"
_FOLDER_NAME = "pplcnet-bench"
_CURE = f"Name a folder that can be written and has room: {CACHE_VARIABLE}=/path/to/folder"


def cache_folder() -> Path:
    """The folder for built-in sets, which may not exist yet.

    $PPLCNET_BENCH_CACHE, else pplcnet-bench in $XDG_CACHE_HOME, else in ~/.cache. Raises CacheFolderError if there is
    no home folder to fall back on.
    """
    own = os.environ.get(CACHE_VARIABLE, "")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification demands that a relative path is ignored.
    if shared and Path(shared).is_absolute():
        return Path(shared) / _FOLDER_NAME
    try:
        return Path.home() / ".cache" / _FOLDER_NAME
    except RuntimeError as error:  # a container's user without an entry in /etc/passwd
        raise CacheFolderError("there is no home folder to keep built-in data sets in", _CURE) from error


def make_once(name: str, version: int, build: Callable[[Path], None]) -> Path:
    """The folder of this set and version in the cache, made by build(empty folder) if it does not exist.

    build works in a temporary folder next to the final one, which is then renamed: a killed build leaves nothing under
    the final name, and of several processes the first to finish wins and the others use its result. A changed recipe
    needs a new version. Raises CacheFolderError if the cache can't be read or written; other errors of build are passed
    on.
    """
    cache = cache_folder()
    final = cache / f"{name}-v{version}"
    try:
        # Raises PermissionError in another user's folder.
        if final.is_dir():
            return final
        with whole_folder(final, f".{name}-v{version}-") as unfinished:
            build(unfinished)
    except OSError as error:
        # A folder that is not empty is never overwritten: another process was first, and its set is the same.
        if os.path.isdir(final):  # noqa: PTH112 - unlike pathlib it raises nothing
            return final
        reason = error.strerror or str(error)
        raise CacheFolderError(
            f"the built-in data set {name} cannot be written to {os.fspath(cache)!r}: {reason}", _CURE
        ) from error
    return final
