"""Attacks 45 and 46: whatever DALI decodes is right, or known to be wrong before it is decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.bad_image_probe import file_name
from pipelines.dali_graphs import decoding_graph
from pipelines.file_checks import check_files
from pipelines.image_lists import ImageList
from pipelines.misread import fault_of_pixels, misread
from pipelines.settings import PipelineSettings
from tests.support.tiff_files import BLACK_IS_0, CIELAB, PALETTE, PLANAR, RGB, Pixels, pnm, tiff

WHITE_IS_0 = 0
ACROSS, DOWN = np.meshgrid(np.arange(16) * 17, np.arange(12) * 23)
COLOURS: Pixels = np.stack([ACROSS, DOWN, (ACROSS + 2 * DOWN) % 256], axis=-1)
GREY: Pixels = COLOURS[..., :1]
OPAQUE: Pixels = np.full_like(GREY, 255)
MAP = (320, 3, [level * 257 for level in range(256)] * 3)
SUFFIX = ", so that DALI would read wrong pixels"


def with_alpha(pixels: Pixels) -> Pixels:
    return np.concatenate((pixels, OPAQUE), axis=2)


def scaled(pixels: Pixels, maximum: int) -> Pixels:
    result: Pixels = np.rint(pixels * (maximum / 255)).astype(np.int64)
    return result


RIGHT = {
    "grey.tif": (tiff(GREY, BLACK_IS_0), GREY),
    "grey16.TIFF": (tiff(GREY * 257, BLACK_IS_0, 16), GREY),
    "white0.tif": (tiff(255 - GREY, WHITE_IS_0), GREY),
    "palette.tif": (tiff(GREY, PALETTE, more=[MAP]), GREY),
    "rgb.tif": (tiff(COLOURS, RGB, order=">"), COLOURS),
    "rgb16.tif": (tiff(COLOURS * 257, RGB, 16, order=">"), COLOURS),
    "rgb_big.tif": (tiff(COLOURS, RGB, big=True), COLOURS),
    "rgb_planar.tif": (tiff(COLOURS, RGB, more=[PLANAR]), COLOURS),
    "rgba.tif": (tiff(with_alpha(COLOURS), RGB, more=[(338, 3, [2])]), COLOURS),
    **{f"{kind}_{top}.ppm": (pnm(scaled(COLOURS, top), kind, top), COLOURS) for kind in (3, 6) for top in (255, 65535)},
    **{f"{kind}_{top}.pgm": (pnm(scaled(GREY, top), kind, top), GREY) for kind in (2, 5) for top in (254, 255, 65300)},
    "3_100.ppm": (pnm(scaled(COLOURS, 100), 3, 100), COLOURS),
    "1.pbm": (b"P1\n16 12\n" + b"0 1 " * 96, np.tile([255, 0], (12, 8))[..., np.newaxis]),
    "4.pbm": (b"P4 # 100 100 100\n16 12\n" + b"\x55" * 24, np.tile([255, 0], (12, 8))[..., np.newaxis]),
}
WRONG = {
    "6_100.ppm": (pnm(scaled(COLOURS, 100), 6, 100), COLOURS, "a PNM with a maximum of 100"),
    "6_1023.pnm": (pnm(scaled(COLOURS, 1023), 6, 1023), COLOURS, "a PNM with a maximum of 1,023"),
    "5_15.pgm": (pnm(scaled(GREY, 15), 5, 15), GREY, "a PNM with a maximum of 15"),
    "3_4095.ppm": (pnm(scaled(COLOURS, 4095), 3, 4095), COLOURS, "a PNM with a maximum of 4,095"),
    "6_comment.ppm": (
        b"P6 16 12 255#\n" + COLOURS.astype("u1").tobytes(), COLOURS, "a PNM with a comment at its maximum",
    ),
    "lab.tif": (tiff(COLOURS, CIELAB), None, "a TIFF in CIELAB"),
    "lab_big.tiff": (tiff(COLOURS, CIELAB, big=True, order=">"), None, "a TIFF in CIELAB"),
    "white0_16.tif": (tiff(65535 - GREY * 257, WHITE_IS_0, 16), GREY, "a TIFF of 16 bits with white as 0"),
    "white0_16_big.tif": (
        tiff(65535 - GREY * 257, WHITE_IS_0, 16, big=True), GREY, "a TIFF of 16 bits with white as 0",
    ),
    "grey_alpha.tif": (
        tiff(with_alpha(GREY), BLACK_IS_0, more=[(338, 3, [2])]), GREY, "a grey TIFF of 2 channels",
    ),
    "grey_alpha16.tif": (
        tiff(with_alpha(GREY) * 257, BLACK_IS_0, 16, order=">"), GREY, "a grey TIFF of 2 channels",
    ),
    "palette_alpha.tif": (
        tiff(with_alpha(GREY), PALETTE, more=[MAP, (338, 3, [2])]), GREY, "a TIFF with a palette and 2 channels",
    ),
    "two.tif": (tiff(COLOURS[..., :2], RGB), None, "a TIFF of two colours"),
}  # fmt: skip


def decoded(path: Path) -> Pixels:
    """The pixels [height, width, 3] that DALI makes of a file."""
    graph = decoding_graph(lambda: [file_name(str(path))], PipelineSettings(batch_size=1, image_size=1))
    graph.build()
    return np.array(graph.run()[0].at(0)).astype(np.int64)


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_not_left_out_has_the_right_pixels(tmp_path: Path, name: str) -> None:
    content, pixels = RIGHT[name]
    (tmp_path / name).write_bytes(content)
    assert fault_of_pixels(str(tmp_path / name)) == ""
    assert np.abs(decoded(tmp_path / name) - pixels).max() <= 2


@pytest.mark.parametrize("name", WRONG)
def test_what_would_have_wrong_pixels_is_left_out_with_the_reason(tmp_path: Path, name: str) -> None:
    """It still has: where a later DALI reads a kind rightly, that kind need not be left out any more."""
    content, pixels, reason = WRONG[name]
    (tmp_path / name).write_bytes(content)
    assert check_files(ImageList(tmp_path, (name,), (0,))).faults == {0: reason + SUFFIX}
    if pixels is not None:
        assert np.abs(decoded(tmp_path / name) - pixels).mean() > 5


def test_files_of_other_names_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(WRONG["lab.tif"][0])
    assert fault_of_pixels(str(tmp_path / "a.jpg")) == ""
    assert misread(str(tmp_path / "a.jpg")) == f"a TIFF in CIELAB{SUFFIX}"
    assert fault_of_pixels(str(tmp_path / "gone.tif")) == "no such file or directory"


@pytest.mark.parametrize("content", [RIGHT["rgb.tif"][0], WRONG["white0_16_big.tif"][0], WRONG["5_15.pgm"][0]])
def test_headers_that_are_cut_off_or_damaged_are_left_to_the_decoder(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tif"
    generator = np.random.default_rng(0)
    for length in range(min(len(content), 300)):
        path.write_bytes(content[:length])
        assert misread(str(path)) in ("", f"a PNM with a maximum of 1{SUFFIX}", f"a PNM with a maximum of 15{SUFFIX}",
                                      f"a TIFF of 16 bits with white as 0{SUFFIX}")  # fmt: skip
    for _ in range(300):
        damaged = bytearray(content[:200])
        for place in generator.integers(4, len(damaged), 3):
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        misread(str(path))


def test_a_header_of_digits_without_end_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6 16 16 " + b"9" * 10_000)
    assert misread(str(tmp_path / "a.ppm")) == ""
