from __future__ import annotations

import itertools
import resource
from pathlib import Path

import pytest
from PIL import Image

from pipelines import verification
from pipelines.image_lists import ImageList
from pipelines.list_findings import Finding
from pipelines.settings import MAX_PIXELS
from pipelines.verification import (
    BATCH_SIZE,
    KINDS,
    LOOKED_AT,
    Checked,
    Verification,
    format_of,
)
from tests.support.bad_files import OTHER_FORMATS, encoded, good, kinds, picture
from tests.support.storage import unpaused


def folder_of_kinds(folder: Path) -> ImageList:
    chosen = kinds()
    for kind in chosen:
        if "\0" not in kind.name:
            kind.write(folder / kind.name)
    return ImageList(folder, tuple(kind.name for kind in chosen), tuple(range(len(chosen))))


def found_in(images: ImageList, threads: int = 2, start: int = 0) -> tuple[Finding, ...]:
    """All findings; each image is in one batch alone."""
    checked = list(Verification(unpaused(images), threads, start))
    ends = [start, *(one.end for one in checked)]
    assert ends == sorted(ends)
    assert ends[-1] == len(images)
    for begin, one in zip(ends, checked, strict=False):
        indices = [finding.index for finding in one.findings]
        assert indices == sorted(indices)
        assert all(begin <= index < one.end for index in indices)
    return tuple(finding for one in checked for finding in one.findings)


@pytest.mark.parametrize("threads", [1, 3])
def test_every_kind_of_file_is_found_with_its_reason_and_no_other(tmp_path: Path, threads: int) -> None:
    images = folder_of_kinds(tmp_path)
    found = {finding.index: finding for finding in found_in(images, threads)}
    verdicts = {kind.name: kind.verdict for kind in kinds()}
    assert dict.fromkeys(images.paths, "") | {images.paths[i]: one.kind for i, one in found.items()} == verdicts
    assert set(verdicts.values()) == {
        "",
        "empty",
        "missing",
        "unreadable",
        "undecodable",
        "huge",
        "format",
        "no_end_marker",
        "damaged",
    }
    assert sum(bool(verdict) and KINDS[verdict].bad for verdict in verdicts.values()) >= 30
    reasons = {images.paths[index]: finding.reason for index, finding in found.items()}
    assert reasons["huge.jpg"] == "30,000 x 30,000 pixels"
    assert {name: reasons[f"{name}.jpg"] for name in OTHER_FORMATS} == {
        name: f"a {file_format} file" for name, file_format in OTHER_FORMATS.items()
    }
    assert reasons["html.jpg"] == "not an image format that DALI decodes"


def test_a_huge_header_is_refused_before_any_pixel_has_room(tmp_path: Path) -> None:
    """Decoded, the image would have 2.7 GB."""
    (huge,) = (kind for kind in kinds() if kind.name == "huge.jpg")
    huge.write(tmp_path / "huge.jpg")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = found_in(ImageList(tmp_path, ("huge.jpg",), (0,)))
    assert found == (Finding(0, "huge", "30,000 x 30,000 pixels"),)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_the_largest_image_is_pillow_s() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    assert Image.MAX_IMAGE_PIXELS * 2 == MAX_PIXELS


def test_limits_are_of_all_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10,800 pixels each; what is larger than a batch takes is decoded alone, damaged or not."""
    jpeg = good()
    for name, content in (("0.jpg", jpeg), ("1.jpg", jpeg[: len(jpeg) // 2]), ("2.jpg", encoded(picture(), "PNG"))):
        (tmp_path / name).write_bytes(content)
    images = ImageList(tmp_path, ("0.jpg", "1.jpg", "2.jpg"), (0, 0, 0))
    monkeypatch.setattr(verification, "MAX_IN_A_BATCH_PIXELS", 10_799)
    assert [(one.index, one.kind) for one in found_in(images)] == [(1, "undecodable"), (2, "format")]
    monkeypatch.setattr(verification, "MAX_PIXELS", 10_800)
    assert [(one.index, one.kind) for one in found_in(images)] == [(1, "undecodable"), (2, "format")]
    monkeypatch.setattr(verification, "MAX_PIXELS", 10_799)
    assert [(one.index, one.kind, one.reason) for one in found_in(images)] == [
        (index, "huge", "120 x 90 pixels") for index in range(3)
    ]


@pytest.mark.parametrize("count", [1, BATCH_SIZE - 1, BATCH_SIZE, BATCH_SIZE + 1, LOOKED_AT + BATCH_SIZE + 3])
def test_good_images_of_any_number_give_nothing(tmp_path: Path, count: int) -> None:
    (tmp_path / "0.jpg").write_bytes(encoded(Image.new("RGB", (8, 8))))
    assert found_in(ImageList(tmp_path, ("0.jpg",) * count, (0,) * count)) == ()


@pytest.mark.slow
def test_bad_images_anywhere_are_found_from_any_start(tmp_path: Path) -> None:
    (tmp_path / "good.jpg").write_bytes(encoded(Image.new("RGB", (8, 8))))
    (tmp_path / "text.jpg").write_bytes(b"text")
    names = ["good.jpg"] * (LOOKED_AT + 200)
    bad = [0, 1, 31, 32, 33, *range(64, 160), LOOKED_AT - 1, LOOKED_AT, len(names) - 1]
    for index in bad:
        names[index] = "text.jpg" if index % 2 else "missing.jpg"
    images = ImageList(tmp_path, tuple(names), (0,) * len(names))
    for start in (0, 32, 100, LOOKED_AT, len(names)):
        found = found_in(images, start=start)
        assert [one.index for one in found] == [index for index in bad if index >= start]
        assert {one.kind for one in found if one.index % 2} <= {"undecodable"}
        assert {one.kind for one in found if one.index % 2 == 0} <= {"missing"}


def test_a_list_without_a_file_ends_too(tmp_path: Path) -> None:
    (tmp_path / "train_list.txt").touch()
    assert [one.kind for one in found_in(ImageList(tmp_path, ("a.jpg",) * 40, (0,) * 40))] == ["missing"] * 40


def test_the_ends_of_batches_are_where_one_can_resume(tmp_path: Path) -> None:
    images = folder_of_kinds(tmp_path)
    whole = found_in(images)
    for checked in itertools.islice(Verification(unpaused(images), 2), 2):
        assert isinstance(checked, Checked)
        before = tuple(one for one in whole if one.index < checked.end)
        assert before + found_in(images, start=checked.end) == whole


@pytest.mark.parametrize(
    ("signature", "name"),
    [
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"RIFF\x00\x01\x02\x03WEBPVP8 ", "WebP"),
        (b"RIFF\x00\x01\x02\x03WAVEfmt ", ""),
        (b"GIF89a", "GIF"),
        (b"\xff\xd8", ""),
        (b"", ""),
        (bytes(16), ""),
    ],
)
def test_formats_are_told_by_their_first_bytes(signature: bytes, name: str) -> None:
    assert format_of(signature) == name
