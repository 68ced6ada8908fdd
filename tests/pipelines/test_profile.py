from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from pipelines.file_checks import check_files
from pipelines.image_lists import ImageList
from pipelines.profile import DataProfile, profile


def write_list(root: Path, sizes: list[tuple[int, int]]) -> ImageList:
    for index, size in enumerate(sizes):
        Image.new("RGB", size).save(root / f"{index}.bmp")
    return ImageList(root, tuple(f"{index}.bmp" for index in range(len(sizes))), (0,) * len(sizes))


def write_png_header(file: Path, width: int, height: int) -> None:
    """A PNG that promises width x height pixels and holds none."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", 0))


def test_profile_of_known_files(tmp_path: Path) -> None:
    images = write_list(tmp_path, [(100, 50), (300, 150)])
    assert profile(images, (5_000, 15_000)) == DataProfile(
        images=2,
        mean_bytes=10_000.0,
        total_bytes=20_000,
        sampled_images=2,
        mean_width_pixels=200.0,
        mean_height_pixels=100.0,
        # Over the sum of pixels, 8 * 20,000 / 50,000; the mean of the images' own ratios would be 5.33.
        bits_per_pixel=3.2,
    )


def test_the_sample_is_spread_over_the_list(tmp_path: Path) -> None:
    images = write_list(tmp_path, [(10 + index, 10) for index in range(10)])
    sampled = profile(images, tuple(range(10)), samples=3)
    assert sampled.sampled_images == 3
    assert sampled.mean_width_pixels == pytest.approx((10 + 13 + 16) / 3)
    assert sampled.bits_per_pixel == pytest.approx(8 * (0 + 3 + 6) / (100 + 130 + 160))
    assert sampled.total_bytes == 45
    assert sampled.images == 10


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n" + bytes(40), b"RIFF\x04\x00\x00\x00WEBP"]
)
def test_unreadable_headers_are_left_out_of_pixels_but_not_of_bytes(tmp_path: Path, content: bytes) -> None:
    images = write_list(tmp_path, [(100, 50), (300, 150)])
    (tmp_path / "0.bmp").write_bytes(content)
    described = profile(images, (1_000, 9_000))
    assert described.sampled_images == 1
    assert described.mean_width_pixels == 300.0
    assert described.bits_per_pixel == 8 * 9_000 / 45_000
    assert described.mean_bytes == 5_000.0


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    images = write_list(tmp_path, [(100, 50)])
    os.mkfifo(tmp_path / "pipe.jpg")
    images = ImageList(tmp_path, (*images.paths, "pipe.jpg"), (0, 0))
    assert profile(images, (5_000, 0)).sampled_images == 1


def test_pixels_are_unknown_rather_than_zero_where_no_header_can_be_read(tmp_path: Path) -> None:
    images = ImageList(tmp_path, ("missing.jpg", "nul\0.jpg"), (0, 0))
    assert profile(images, (3, 5)) == DataProfile(2, 4.0, 8, 0, None, None, None)


@pytest.mark.parametrize("side", [12_000, 60_000])  # Pillow warns above 9,459 squared and raises above 13,377 squared
def test_a_very_large_image_is_described_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    write_png_header(tmp_path / "huge.png", side, side)
    limit = 9_459**2
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    described = profile(ImageList(tmp_path, ("huge.png",), (0,)), (70,))
    assert described.mean_width_pixels == side
    assert limit == Image.MAX_IMAGE_PIXELS  # the decoder's guard is back


def test_metadata_that_pillow_warns_of_does_not_matter(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    plain = (tmp_path / "a.jpg").read_bytes()
    broken_index = b"MPF\0" + b"II*\0" + bytes(16)  # promises several pictures and lists none
    segment = b"\xff\xe2" + struct.pack(">H", 2 + len(broken_index)) + broken_index
    (tmp_path / "a.jpg").write_bytes(plain[:2] + segment + plain[2:])
    with pytest.warns(UserWarning, match="Corrupt EXIF|malformed MPO"):
        Image.open(tmp_path / "a.jpg").close()
    assert profile(ImageList(tmp_path, ("a.jpg",), (0,)), (700,)).mean_width_pixels == 40.0


def test_sizes_come_from_check_files(tmp_path: Path) -> None:
    images = write_list(tmp_path, [(10, 10), (20, 10)])
    sizes = check_files(images).sizes
    assert sizes == (54 + 32 * 10, 54 + 60 * 10)  # a BMP is a header of 54 bytes and rows padded to 4
    assert profile(images, sizes).total_bytes == 1028


def test_impossible_requests_are_refused(tmp_path: Path) -> None:
    images = write_list(tmp_path, [(10, 10)])
    with pytest.raises(ValueError, match="0 images"):
        profile(ImageList(tmp_path, (), ()), ())
    with pytest.raises(ValueError, match="1 images, but 2 sizes"):
        profile(images, (1, 2))
    with pytest.raises(ValueError, match="samples is 0; it must be at least 1"):
        profile(images, (1,), samples=0)


def test_a_profile_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="0 images"):
        DataProfile(0, 0.0, 0, 0, None, None, None)
    with pytest.raises(ValueError, match="3 of 2 images sampled"):
        DataProfile(2, 1.0, 2, 3, 1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="0 images sampled, but pixel figures"):
        DataProfile(2, 1.0, 2, 0, 0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="1 images sampled, but pixel figures"):
        DataProfile(2, 1.0, 2, 1, 1.0, 1.0, None)
