"""What is wrong with single images, found by inspecting each file and decoding it alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.dali_graphs import decoding_graph
from pipelines.decoder_versions import decoder_versions
from pipelines.errors import DecoderError
from pipelines.image_lists import ImageList, file_fault
from pipelines.settings import MIXED_DECODER, PipelineSettings

# An error of an operator that reads or decodes, but not one of the GPU, such as a lack of memory.
DATA_FAULT = re.compile(
    r"\A(?!.*(CUDA (allocation|runtime|driver|error)|out of memory)).*"
    r"fn\.(io\.file\.read|peek_image_shape|decoders\.)",
    re.DOTALL,
)
# nvImageCodec's status codes, of which DALI reports only the number (nvimgcodec.h, nvimgcodecStatus_t).
CODEC_FAILURE = re.compile(r"nvImageCodec failure: '#(\d+)'")
BROKEN_HEADER, OTHER_FORMAT = "its header is broken or cut off", "not an image format that DALI decodes"
CODEC_REASONS = {
    "2": BROKEN_HEADER,  # an invalid parameter, such as a height of 0
    "3": BROKEN_HEADER,
    "4": OTHER_FORMAT,
    "13": BROKEN_HEADER,  # from here on, the same reported by a format's own parser; 17 and 19 are unexpected ends
    "14": OTHER_FORMAT,
    "17": BROKEN_HEADER,
    "19": BROKEN_HEADER,
}
# All that DALI reports about pixels that it can't decode; the decoder's own message goes to standard error.
SAMPLE_FAILURE = re.compile(r"Failed to decode sample #\d+ :\s*")
BROKEN_PIXELS = "its pixels can't be decoded: damaged or cut off"
MAX_REASON = 200


@dataclass(frozen=True, slots=True)
class Fault:
    """An image that can't be used: its index in the list, and why."""

    index: int
    reason: str


def find_faults(images: ImageList, indices: Iterable[int]) -> Iterator[Fault]:
    """The images among those at indices that can't be read, or that the CPU's decoder can't decode.

    It judges for every decoder: a GPU's may take a damaged image for a good one, or fail for reasons of its own.
    """
    root = str(images.root)
    probe = _Probe()
    for index in indices:
        path = f"{root}/{images.paths[index]}"
        _, reason = file_fault(path)
        reason = reason or probe.fault(path)
        if reason:
            yield Fault(index, reason)


def file_name(root: str, path: str) -> npt.NDArray[np.uint8]:
    """A file's name as DALI's reader expects it: its bytes."""
    return np.frombuffer(f"{root}/{path}".encode(errors="surrogateescape"), dtype=np.uint8)


def what_happened(text: str) -> str:
    """The cause in DALI's report, without the graph's traceback around it."""
    cause = text.partition("encountered:")[2] or text
    lines = [line.strip() for line in cause.splitlines()]
    kept = [line for line in lines if line and not line.startswith(("Current pipeline object", "Stacktrace", "["))]
    return "; ".join(kept)


def decoder_error(report: str, settings: PipelineSettings) -> DecoderError:
    """Returns the error for DALI's report about a batch that it can't decode, though each image can be decoded."""
    how = "regions of images" if settings.decode_region else "whole images"
    cures = []
    if settings.decoder == MIXED_DECODER:
        cures.append("Decode on the CPU: --decoder cpu.")
    if settings.decode_region:
        cures.append("Decode whole images: --decode-region off.")
    cures.append("Check the memory, and the disk that the images are on.")
    return DecoderError(
        f"the {settings.decoder} decoder failed on a batch of {how}, though each of its images can be decoded on the"
        f" CPU: {what_happened(report)} ({decoder_versions()})",
        " ".join(cures),
    )


class _Probe:
    """Decodes one file at a time."""

    def __init__(self) -> None:
        self._pipeline: Any = None
        self._name: list[npt.NDArray[np.uint8]] = []

    def fault(self, path: str) -> str:
        """Why the file can't be decoded; empty if it can."""
        self._name = [file_name(*path.rsplit("/", 1))]
        if self._pipeline is None:
            self._pipeline = decoding_graph(lambda: self._name, PipelineSettings(batch_size=1, image_size=1))
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
    """The reason in a few words, from DALI's report about a single file."""
    cause = what_happened(text)
    code = CODEC_FAILURE.search(cause)
    if code and code[1] in CODEC_REASONS:
        return CODEC_REASONS[code[1]]
    if SAMPLE_FAILURE.fullmatch(cause):
        return BROKEN_PIXELS
    return f"can't be decoded: {cause[:MAX_REASON]}" if cause else "can't be decoded"
