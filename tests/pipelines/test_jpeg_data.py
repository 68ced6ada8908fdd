"""Case D1: JPEGs that lack only the marker at their end, and those that were cut off."""

from __future__ import annotations

import re
import resource
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.augmentation import Augmentation
from pipelines.bad_image_probe import Fault, find_faults
from pipelines.dali_graphs import Feed, evaluation_graph, training_graph
from pipelines.image_lists import ImageList
from pipelines.jpeg_data import END_OF_IMAGE, EndMarkers, copy_with_end, damage, with_end
from pipelines.sampling import EvaluationOrder, Position, TrainingOrder
from pipelines.settings import PipelineSettings
from pipelines.source import DaliSource
from pipelines.verification import BATCH_SIZE, Verification
from tests.support.bad_files import SIZE, START_OF_FRAME, START_OF_SCAN, changed, encoded, picture
from tests.support.storage import unpaused

ENCODINGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "best": {"quality": 100, "subsampling": 0},
    "worst": {"quality": 1},
    "optimised": {"optimize": True},
    "progressive": {"progressive": True},
    "progressive-worst": {"progressive": True, "quality": 5},
    "restarts": {"restart_marker_blocks": 3},
    "restart-rows": {"restart_marker_rows": 1},
    "progressive-restarts": {"progressive": True, "restart_marker_blocks": 1},
}
IMAGES = {
    "blotches": picture(),
    "grey": picture(mode="L"),
    "cmyk": picture(mode="CMYK"),
    "noise": Image.fromarray(np.random.default_rng(1).integers(0, 256, (37, 51, 3), dtype=np.uint8)),
    # Most of its blocks have no bit that could be missed.
    "white": Image.new("RGB", (93, 71), (255, 255, 255)),
    "half-white": Image.fromarray(
        np.repeat(np.array([0, 255], np.uint8), 40)[:, None, None].repeat(60, 1).repeat(3, 2)
    ),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("image", IMAGES)
def test_whatever_lacks_a_bit_is_not_taken_for_whole(image: str, encoding: str) -> None:
    options = ENCODINGS[encoding]
    if image == "cmyk":
        # TurboJPEG knows no other sampling of four colours.
        options = {**options, "subsampling": 0}
    whole = encoded(IMAGES[image], **options)
    assert whole.endswith(END_OF_IMAGE)
    assert with_end(whole[:-2]) == with_end(whole[:-1]) == whole
    assert with_end(whole) is None
    # Cut near the end, at and beside every marker, and all over.
    markers = [place.start() for place in re.finditer(rb"\xff[^\x00]", whole)]
    ends = {*range(len(whole) - 60, len(whole) - 2), *markers, *(place + 1 for place in markers)}
    ends |= set(np.random.default_rng(3).integers(0, len(whole) - 2, 200).tolist())
    ends -= {len(whole) - 2, len(whole) - 1}
    assert [end for end in sorted(ends) if end >= 0 and with_end(whole[:end]) is not None] == []


def test_other_files_are_left_as_they_are(tmp_path: Path) -> None:
    jpeg = encoded(picture())
    frame = jpeg.index(START_OF_FRAME)
    large = changed(jpeg, frame + SIZE, struct.pack(">HH", 30_000, 30_000))[:-2]
    arithmetic = changed(jpeg, frame + 1, b"\xc9")[:-2]
    others = [b"", b"\xff", b"\xff\xd8", b"text", encoded(picture(), "PNG"), large, arithmetic, jpeg + b"\0" * 9]
    assert [with_end(content) for content in others] == [None] * len(others)
    (tmp_path / "one.jpg").write_bytes(b"\xff")
    assert copy_with_end(str(tmp_path / "one.jpg")) is None
    assert copy_with_end(str(tmp_path / "none.jpg")) is None
    assert copy_with_end(str(tmp_path)) is None


def test_damage_is_what_lacks_bits_or_has_none_that_mean_anything() -> None:
    whole = encoded(picture(), restart_marker_blocks=5)
    scan = whole.index(START_OF_SCAN) + 20
    broken = [whole[:-9] + END_OF_IMAGE, whole[: scan + 9] + END_OF_IMAGE, changed(whole, scan, b"\xff\xd3")]
    assert [bool(damage(content)) for content in broken] == [True] * 3
    padded = whole[:-2] + bytes(9) + END_OF_IMAGE
    assert [damage(content) for content in (whole, whole + bytes(99), padded, encoded(picture(mode="CMYK")))] == [
        ""
    ] * 4


def write(folder: Path, count: int, unended: Sequence[int]) -> ImageList:
    for index in range(count):
        content = encoded(picture(index), quality=90, progressive=index % 3 == 0)
        (folder / f"{index}.jpg").write_bytes(content[:-2] if index in unended else content)
    return ImageList(folder, tuple(f"{index}.jpg" for index in range(count)), tuple(range(count)))


def refuse(faults: Sequence[Fault], position: Position) -> None:
    raise AssertionError(f"{faults} at {position}, though the images are whole")


def source(images: ImageList, training: bool, end_markers: EndMarkers | None = None) -> DaliSource:
    settings = PipelineSettings(batch_size=3, image_size=16, decode_threads=2)

    def graph(feed: Feed, seed: int, state: bytes | None) -> Any:
        if training:
            return training_graph(feed, Augmentation(), settings, seed, state)
        return evaluation_graph(feed, settings)

    order = TrainingOrder(len(images), 0, 1, 3, seed=5) if training else EvaluationOrder(len(images), 0, 1, 3)
    return DaliSource(images, order, graph, settings, refuse, storage=unpaused(images), end_markers=end_markers)


def batches(of: DaliSource, count: int) -> list[tuple[bytes, list[int]]]:
    return [(batch.images.numpy().tobytes(), batch.labels.tolist()) for batch in (next(of) for _ in range(count))]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("unended", [[4], range(1, 12), range(12)], ids=["one", "most", "all"])
def test_images_without_an_end_train_as_if_they_had_one(tmp_path: Path, training: bool, unended: Sequence[int]) -> None:
    """The same pixels in the same batches; one line says so, and no copy stays."""
    for name in ("whole", "unended"):
        (tmp_path / name).mkdir()
    expected = batches(source(write(tmp_path / "whole", 12, []), training), 12)
    said: list[str] = []
    images = write(tmp_path / "unended", 12, unended)
    end_markers = EndMarkers(said.append)
    before = open_files()
    read = source(images, training, end_markers)
    assert batches(read, 12) == expected
    assert read.state(with_dali=training).bad == frozenset()
    read.close()
    del read
    assert open_files() <= before
    (line,) = said
    assert re.fullmatch(r"'\d+\.jpg' lacks the marker at a JPEG's end; .*run_bench.py verify lists", line)
    # What knows that there are some looks at all, and meets no failure.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.source.find_faults", None)
        assert batches(source(images, training, end_markers), 12) == expected
    assert len(said) == 1


def test_an_image_that_is_cut_later_is_left_out(tmp_path: Path) -> None:
    images = write(tmp_path, 6, [2])
    end_markers = EndMarkers()
    batches(source(images, False, end_markers), 2)
    path = tmp_path / "2.jpg"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(AssertionError, match="damaged or cut off"):
        batches(source(images, False, end_markers), 2)
    assert [fault.index for fault in find_faults(unpaused(images), range(6)).faults] == [2]


def test_images_are_named_by_what_is_wrong_with_them(tmp_path: Path) -> None:
    images = write(tmp_path, 6, [1, 4])
    (tmp_path / "3.jpg").write_bytes((tmp_path / "3.jpg").read_bytes()[:-90])
    (tmp_path / "5.jpg").write_bytes(b"text")
    found = find_faults(unpaused(images), range(6))
    assert (found.unended, [fault.index for fault in found.faults]) == ([1, 4], [3, 5])


@pytest.mark.parametrize("training", [True, False])
def test_what_would_need_gigabytes_is_left_out_before_it_is_decoded(tmp_path: Path, training: bool) -> None:
    """An image that claims 30,000 x 30,000 pixels would have 2.7 GB."""
    images = write(tmp_path, 6, [])
    jpeg = (tmp_path / "2.jpg").read_bytes()
    (tmp_path / "2.jpg").write_bytes(
        changed(jpeg, jpeg.index(START_OF_FRAME) + SIZE, struct.pack(">HH", 30_000, 30_000))
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AssertionError, match="it has more than 178,956,970 pixels"):
        batches(source(images, training), 2)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000)], ids=["wide", "high"])
def test_a_strip_is_not_enlarged_as_a_whole(tmp_path: Path, size: tuple[int, int]) -> None:
    """Its short side made as long as evaluation asks, it would have 6 GB; its crop needs the middle alone."""
    strip = Image.new("RGB", size, (0, 0, 200))
    left, top = (side // 2 - 8 if side > 1 else 0 for side in size)
    strip.paste((200, 0, 0), (left, top, left + 16, top + 16))
    strip.save(tmp_path / "0.png")
    images = ImageList(tmp_path, ("0.png",), (0,))
    settings = PipelineSettings(batch_size=1, image_size=224)

    def graph(feed: Feed, _: int, __: bytes | None) -> Any:
        return evaluation_graph(feed, settings)

    order = EvaluationOrder(1, 0, 1, 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pixels = next(DaliSource(images, order, graph, settings, refuse)).images.numpy()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB
    # One pixel of the strip is 256 of the result, so that all of it is red.
    assert np.ptp(pixels[0], axis=(1, 2)).tolist() == [0.0, 0.0, 0.0]
    assert pixels[0, 0, 0, 0] > pixels[0, 2, 0, 0]


def test_a_verification_names_each_of_them_once(tmp_path: Path) -> None:
    """Also where most have no end marker; files beside them are judged as ever."""
    unended = {*range(2, 90), 95}
    images = write(tmp_path, 100, sorted(unended))
    (tmp_path / "50.jpg").write_bytes((tmp_path / "50.jpg").read_bytes()[:-90])
    (tmp_path / "97.jpg").write_bytes(b"text")
    before = open_files()
    found = {f.index: f.kind for checked in Verification(unpaused(images), 2) for f in checked.findings}
    # Of some, DALI's decoder doesn't miss the end, before it is known that there are such files.
    assert found.keys() >= unended - set(range(BATCH_SIZE))
    assert len(unended - found.keys()) <= 5
    expected = dict.fromkeys(unended, "no_end_marker") | {50: "undecodable", 97: "undecodable"}
    assert found == {index: expected[index] for index in found}
    assert found.keys() >= {50, 97}
    assert open_files() <= before
