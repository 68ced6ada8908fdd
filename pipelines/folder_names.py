"""The folders that the images of a list lie in, as numbers: most lists have few folders and many images."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.columns import CHUNK, ENCODING, ERRORS, Texts

_SLASH = ord("/")


@dataclass(frozen=True, slots=True, eq=False)
class FolderNames:
    """The folders' names in the order in which they first appear; numbers [images] is each image's place in them.

    Only the folder that an image lies in directly has a part: "b" for "a/b/1.jpg", and "" for "1.jpg".
    """

    names: tuple[str, ...]
    numbers: npt.NDArray[np.int32]

    @classmethod
    def of(cls, paths: Texts) -> FolderNames:
        """The folders of paths."""
        numbers = np.empty(len(paths), np.int32)
        known: defaultdict[bytes, int] = defaultdict()
        # A name that is looked up for the first time gets the next number.
        known.default_factory = known.__len__
        for first in range(0, len(paths), CHUNK):
            part = paths[first : first + CHUNK]
            characters = part.characters.tobytes()
            begins, ends = (places.tolist() for places in _folders(part))
            names = (characters[begin:end] for begin, end in zip(begins, ends, strict=True))
            numbers[first : first + len(part)] = np.fromiter(map(known.__getitem__, names), np.int32, len(part))
        return cls(tuple(name.decode(ENCODING, ERRORS) for name in known), numbers)


def _folders(paths: Texts) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where in the characters the name of each path's folder begins and ends."""
    begins = np.concatenate(([0], paths.ends[:-1]))
    # Two in front of all, so that each path has a last one and one before it, be they another path's.
    slashes = np.concatenate(([-1, -1], np.flatnonzero(paths.characters == _SLASH)))
    last = np.searchsorted(slashes, paths.ends) - 1
    return np.maximum(slashes[last - 1] + 1, begins), np.maximum(slashes[last], begins)
