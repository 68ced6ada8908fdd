"""Checkpoints on disk: written atomically, read without executing code; the last two are kept, and an epoch's start."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from harness.artifacts.atomic import replaced, write_whole
from harness.errors import MachineError, UsageError

VERSION = 2
KEPT = 2
TENSORS, MARKER = ".safetensors", ".json"
# The files of checkpoints, and those that a killed process was writing; any other file in the folder is the user's.
_OWN = re.compile(r"[0-9]{6}\.(json|safetensors)")
_UNFINISHED = re.compile(rf"\.{_OWN.pattern}\.[0-9]+\.[0-9a-f]{{8}}")
# Prefixes of an array's name in the model, by what it holds; arrays of a single rank have `of_rank` before that.
MODEL, STATISTICS, VELOCITY = "model/", "statistics/", "velocity/"

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One saved state: arrays by name, and the other values, which JSON can hold."""

    arrays: Arrays
    values: dict[str, Any]

    def pack(self) -> bytes:
        """Returns the whole state as bytes, to send to another rank."""
        text = np.frombuffer(json.dumps(self.values).encode(), dtype=np.uint8)
        return bytes(save({**self.arrays, "values": text}))

    @staticmethod
    def unpack(data: bytes) -> Checkpoint:
        """Returns the checkpoint from the bytes that `pack` returned."""
        arrays = load(data)
        return Checkpoint(arrays, json.loads(arrays.pop("values").tobytes()))


def of_rank(rank: int) -> str:
    """Returns the prefix of the names of a rank's own arrays."""
    return f"rank{rank}/"


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> str:
    """Save a state next to the older ones, of which only the latest is kept. Returns its name.

    The arrays are written and flushed to the disk first; the marker, a JSON file with everything else and the digest of
    the arrays, makes them a checkpoint. Raises MachineError if the disk is full or the folder is missing.
    """
    number = 1 + max((int(path.stem) for path in _markers(folder)), default=0)
    name = f"{number:06d}"
    tensors = folder / (name + TENSORS)
    data = bytes(save(checkpoint.arrays))
    try:
        with replaced(tensors) as stream:
            stream.write(data)
    except OSError as error:
        raise MachineError(
            f"can't write the checkpoint {tensors}: {error.strerror}",
            "Free space on that disk; older checkpoints are kept.",
        ) from error
    marker = {
        "version": VERSION,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "values": checkpoint.values,
    }
    write_whole(folder / (name + MARKER), json.dumps(marker, indent=1) + "\n")
    _remove_old(folder)
    return name


def at_epoch_start(values: Mapping[str, Any]) -> bool:
    """Returns whether a checkpoint with these values is one of an epoch's start, where other devices can resume."""
    progress = values.get("progress")
    return progress is not None and progress.get("steps") == 0


def newest_checkpoint(
    folder: Path, wanted: Callable[[Mapping[str, Any]], bool] = lambda _: True
) -> tuple[str, dict[str, Any]] | None:
    """Returns name and values of the newest complete checkpoint whose values are wanted; None if there is none.

    Raises UsageError if all of them have another version: the version that wrote them can still read them.
    """
    others = set()
    for marker in reversed(_markers(folder)):
        with suppress(ValueError, KeyError, TypeError, OSError):
            described = json.loads(marker.read_text(encoding="utf-8"))
            if described["version"] != VERSION:
                others.add(str(described["version"]))
                continue
            values: dict[str, Any] = described["values"]
            if wanted(values):
                _data(folder, marker.stem, described)
                return marker.stem, values
    if others:
        raise UsageError(
            f"the checkpoints in {str(folder)!r} have version {', '.join(sorted(others))};"
            f" this version reads {VERSION}",
            "Resume with the version of this project that wrote them.",
        )
    return None


def read_checkpoint(folder: Path, name: str) -> Checkpoint:
    """Returns the checkpoint of that name. Raises MachineError if it isn't complete."""
    marker = folder / (name + MARKER)
    try:
        described = _described(marker)
        return Checkpoint(load(_data(folder, name, described)), described["values"])
    except (ValueError, KeyError, TypeError, OSError, SafetensorError) as error:
        raise MachineError(
            f"the checkpoint {marker} can't be read: {error}", "An older checkpoint may be complete."
        ) from error


def _described(marker: Path) -> Mapping[str, Any]:
    described: dict[str, Any] = json.loads(marker.read_text(encoding="utf-8"))
    if described["version"] != VERSION:
        raise ValueError(f"its version is {described['version']}; this version reads {VERSION}")
    return described


def _data(folder: Path, name: str, described: Mapping[str, Any]) -> bytes:
    data = (folder / (name + TENSORS)).read_bytes()
    if len(data) != described["bytes"] or hashlib.sha256(data).hexdigest() != described["sha256"]:
        raise ValueError("its arrays differ from those that were saved")
    return data


def _own_files(folder: Path) -> list[Path]:
    """Returns the files of checkpoints, the oldest first."""
    own = [path for path in folder.iterdir() if _OWN.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(own, key=lambda path: int(path.stem))


def _markers(folder: Path) -> list[Path]:
    return [path for path in _own_files(folder) if path.suffix == MARKER]


def forget_newer(folder: Path, name: str | None) -> None:
    """Remove the incomplete checkpoints after the one that a run resumes from; all if name is None."""
    for marker in _markers(folder):
        if name is None or int(marker.stem) > int(name):
            marker.unlink(missing_ok=True)


def _remove_old(folder: Path) -> None:
    """Remove all but the last KEPT and the last of an epoch's start, and what killed processes left unfinished.

    Markers are removed before arrays.
    """
    own = _own_files(folder)
    whole = {
        path.stem: described.get("values", {})
        for path in own
        if path.suffix == MARKER and (described := _with_all_bytes(path)) is not None
    }
    kept = [*list(whole)[-KEPT:], *[name for name, values in whole.items() if at_epoch_start(values)][-1:]]
    for suffix in (MARKER, TENSORS):
        for path in own:
            if path.suffix == suffix and path.stem not in kept:
                path.unlink(missing_ok=True)
    for path in folder.iterdir():
        if _UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _with_all_bytes(marker: Path) -> Mapping[str, Any] | None:
    """Returns what a marker has if its checkpoint has all its bytes, else None.

    Its digest isn't checked, because that requires reading it.
    """
    with suppress(ValueError, KeyError, TypeError, OSError):
        described = _described(marker)
        if marker.with_suffix(TENSORS).stat().st_size == described["bytes"]:
            return described
    return None
