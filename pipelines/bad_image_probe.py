"""What is wrong with single images, found by inspecting each file and decoding it alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.dali_graphs import Contents, decoding_graph
from pipelines.decoder_versions import decoder_versions
from pipelines.errors import DecoderError
from pipelines.file_checks import EMPTY_FILE
from pipelines.image_lists import ImageList
from pipelines.jpeg_data import END_OF_IMAGE, with_end
from pipelines.settings import MAX_PIXELS, MIXED_DECODER, PipelineSettings
from pipelines.storage import Storage

# An error of the operator that slices an image's shape or its crop's anchor, as the image has more than MAX_PIXELS (see
# dali_graphs.py).
SIZE_FAULT = re.compile(r"fn\.slice.*input_shape=\{[23]\}", re.DOTALL)
# An error of an operator that reads or decodes, but not one of the GPU, such as a lack of memory.
DATA_FAULT = re.compile(
    r"\A(?!.*(CUDA (allocation|runtime|driver|error)|out of memory)).*"
    rf"(fn\.(io\.file\.read|peek_image_shape|decoders\.)|{SIZE_FAULT.pattern})",
    re.DOTALL,
)
# Of those, an error of the operator that reads files: it is not about what is in them.
READ_FAULT = re.compile(r"Error in \w+ operator `nvidia\.dali\.fn\.io\.file\.read`")
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
TOO_LARGE = f"it has more than {MAX_PIXELS:,} pixels"
BROKEN_PIXELS = "its pixels can't be decoded: damaged or cut off"
MAX_REASON = 200


@dataclass(frozen=True, slots=True)
class Fault:
    """An image that can't be used: its index in the list, and why."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found out about images: those that can't be used, and indices of those that lack only an end marker."""

    faults: list[Fault]
    unended: list[int]


def find_faults(storage: Storage, indices: Sequence[int]) -> Findings:
    """The images among those at indices whose content is at fault: empty, or not what the CPU's decoder can decode.

    It judges for every decoder: a GPU's may take a damaged image for a good one, or fail for reasons of its own. Files
    that can't be reached are waited for, whatever the reason. An image is blamed only if its fault was seen twice, with
    a pause and no change of the file between. A JPEG that lacks only its end marker (see `jpeg_data`) has no fault.
    Raises StorageError when waiting takes too long.
    """
    probe = _Probe()
    found = _look(probe, storage, indices)
    unended = found.unended
    while found.faults:
        suspects = [fault.index for fault in found.faults]
        changed = storage.changed_unix(suspects)
        storage.patience.before_second_look(changed)
        found = _look(probe, storage, suspects)
        unended = [*unended, *found.unended]
        if storage.changed_unix(suspects) == changed:
            break
    return Findings(found.faults, unended)


def _look(probe: _Probe, storage: Storage, indices: Sequence[int]) -> Findings:
    """What one examination finds, at whose beginning and end the storage could be read."""
    while True:
        found = Findings([], [])
        place, obstacle = None, storage.obstacle()
        for index in () if obstacle else indices:
            examined = probe.examine(storage.images, index)
            if examined.obstacle:
                place, obstacle = index, examined.obstacle
                break
            if examined.reason:
                found.faults.append(Fault(index, examined.reason))
            if examined.unended:
                found.unended.append(index)
        obstacle = obstacle or storage.obstacle()
        if not obstacle:
            return found
        storage.wait(obstacle, place)


def file_name(path: str) -> npt.NDArray[np.uint8]:
    """A file's name as DALI's reader expects it: its bytes."""
    return np.frombuffer(path.encode(errors="surrogateescape"), dtype=np.uint8)


def what_happened(text: str) -> str:
    """The cause in DALI's report, without the graph's traceback around it."""
    cause = text.partition("encountered:")[2] or text
    lines = [line.strip() for line in cause.splitlines()]
    kept = [line for line in lines if line and not line.startswith(("Current pipeline object", "Stacktrace", "["))]
    return "; ".join(kept)


def reading_failure(report: str) -> str:
    """The cause in DALI's report about a file that it can't read."""
    return "a file could not be opened" if "Could not open file" in report else what_happened(report)[:MAX_REASON]


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


@dataclass(frozen=True, slots=True)
class _Examined:
    """Why a file can't be reached, and else why its content can't be decoded; empty where nothing is wrong.

    unended says that it could be decoded with an end marker.
    """

    obstacle: str = ""
    reason: str = ""
    unended: bool = False


class _Probe:
    """Decodes one file at a time."""

    def __init__(self) -> None:
        self._pipeline: Any = None
        self._content: list[npt.NDArray[np.uint8]] = []

    def examine(self, images: ImageList, index: int) -> _Examined:
        """Find out what is wrong with an image."""
        try:
            content = images.content(index)
        except OSError as error:
            return _Examined(obstacle=(error.strerror or type(error).__name__).lower())
        if not content:
            return _Examined(reason=EMPTY_FILE)
        reason = self._decode(content)
        ended = with_end(content) if reason == BROKEN_PIXELS and not content.endswith(END_OF_IMAGE) else None
        if ended is not None and not self._decode(ended):
            return _Examined(unended=True)
        return _Examined(reason=reason)

    def _decode(self, content: bytes) -> str:
        """Why the CPU's decoder can't decode this; empty if it can."""
        self._content = [np.frombuffer(content, np.uint8)]
        if self._pipeline is None:
            contents = Contents(lambda: self._content)
            self._pipeline = decoding_graph(contents, PipelineSettings(batch_size=1, image_size=1))
            self._pipeline.build()
        try:
            self._pipeline.run()
        except RuntimeError as error:
            self._pipeline = None
            report = str(error)
            if not DATA_FAULT.search(report):
                raise
            return reason_of(report)
        return ""


def reason_of(text: str) -> str:
    """The reason in a few words, from DALI's report about a single file."""
    if SIZE_FAULT.search(text):
        return TOO_LARGE
    cause = what_happened(text)
    code = CODEC_FAILURE.search(cause)
    if code and code[1] in CODEC_REASONS:
        return CODEC_REASONS[code[1]]
    if SAMPLE_FAILURE.fullmatch(cause):
        return BROKEN_PIXELS
    return f"can't be decoded: {cause[:MAX_REASON]}" if cause else "can't be decoded"
