"""What is wrong with single images, found by looking at each file and decoding it alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.dali_graphs import decoding_graph
from pipelines.image_lists import ImageList, file_fault
from pipelines.settings import PipelineSettings

# An operator that reads or decodes, and no trouble of the GPU's, such as memory.
DATA_FAULT = re.compile(
    r"\A(?!.*(CUDA (allocation|runtime|driver|error)|out of memory)).*"
    r"fn\.(io\.file\.read|peek_image_shape|decoders\.)",
    re.DOTALL,
)
# nvImageCodec's status codes, of which DALI tells the number alone (nvimgcodec.h, nvimgcodecStatus_t).
CODEC_FAILURE = re.compile(r"nvImageCodec failure: '#(\d+)'")
BROKEN_HEADER, OTHER_FORMAT = "its header is broken or cut off", "no image format that DALI decodes"
CODEC_REASONS = {
    "2": BROKEN_HEADER,  # an invalid parameter, such as a height of 0
    "3": BROKEN_HEADER,
    "4": OTHER_FORMAT,
    "13": BROKEN_HEADER,  # from here on the same as a format's own parser tells it; 17 and 19 are unexpected ends
    "14": OTHER_FORMAT,
    "17": BROKEN_HEADER,
    "19": BROKEN_HEADER,
}
# All that DALI says of pixels it can't decode; the decoder's own words go to standard error.
SAMPLE_FAILURE = re.compile(r"Failed to decode sample #\d+ :\s*")
BROKEN_PIXELS = "its pixels can't be decoded: damaged or cut off"
MAX_REASON = 200


@dataclass(frozen=True, slots=True)
class Fault:
    """An image that can't be used: its index in the list, and why."""

    index: int
    reason: str


def find_faults(images: ImageList, indices: Iterable[int], settings: PipelineSettings) -> Iterator[Fault]:
    """Those of the images at indices that can't be read or decoded, as settings.dali_device does it."""
    root = str(images.root)
    probe = _Probe(settings)
    for index in indices:
        path = f"{root}/{images.paths[index]}"
        _, reason = file_fault(path)
        reason = reason or probe.fault(path)
        if reason:
            yield Fault(index, reason)


def file_name(root: str, path: str) -> npt.NDArray[np.uint8]:
    """A file's name as DALI's reader takes it: its bytes."""
    return np.frombuffer(f"{root}/{path}".encode(errors="surrogateescape"), dtype=np.uint8)


def what_happened(text: str) -> str:
    """The cause in DALI's report, without the graph's traceback around it."""
    cause = text.partition("encountered:")[2] or text
    lines = [line.strip() for line in cause.splitlines()]
    told = [line for line in lines if line and not line.startswith(("Current pipeline object", "Stacktrace", "["))]
    return "; ".join(told)


class _Probe:
    """Decodes one file at a time."""

    def __init__(self, settings: PipelineSettings) -> None:
        self._settings = settings
        self._pipeline: Any = None
        self._name: list[npt.NDArray[np.uint8]] = []

    def fault(self, path: str) -> str:
        """Why the file can't be decoded, or nothing."""
        self._name = [file_name(*path.rsplit("/", 1))]
        if self._pipeline is None:
            self._pipeline = decoding_graph(lambda: self._name, self._settings)
            self._pipeline.build()
        try:
            self._pipeline.run()
        except RuntimeError as error:
            self._pipeline = None
            if not DATA_FAULT.search(str(error)):
                raise
            return reason_of(str(error))
        return ""


def reason_of(text: str) -> str:
    """DALI's report of a single file in a few words."""
    told = what_happened(text)
    code = CODEC_FAILURE.search(told)
    if code and code[1] in CODEC_REASONS:
        return CODEC_REASONS[code[1]]
    if SAMPLE_FAILURE.fullmatch(told):
        return BROKEN_PIXELS
    return f"can't be decoded: {told[:MAX_REASON]}" if told else "can't be decoded"
