"""Sizes of images as they are written and stored."""

from __future__ import annotations

import json

import pytest

from models.image_size import ImageSize, PlainSize


@pytest.mark.parametrize(
    ("written", "size", "plain", "in_full"),
    [
        (224, ImageSize(224, 224), 224, "224x224"),
        ("224", ImageSize(224, 224), 224, "224x224"),
        ("224x224", ImageSize(224, 224), 224, "224x224"),
        ("80x160", ImageSize(80, 160), "80x160", "80x160"),
        ("160X80", ImageSize(160, 80), "160x80", "160x80"),
        (-1, ImageSize(-1, -1), -1, "-1x-1"),
    ],
)
def test_a_size_has_one_form_in_which_it_is_stored(
    written: PlainSize, size: ImageSize, plain: PlainSize, in_full: str
) -> None:
    assert ImageSize.of(written) == size
    assert (size.plain, type(size.plain), size.in_full) == (plain, type(plain), in_full)
    assert ImageSize.of(json.loads(json.dumps(size.plain))) == size


@pytest.mark.parametrize("written", ["", "x", "80x", "x160", "80x160x3", "80x160\n", "+80", "８０", "80.0"])
def test_what_is_no_size(written: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        ImageSize.of(written)
    assert str(caught.value) == f"{written!r} is not a size in pixels"


def test_the_shape_of_an_image() -> None:
    assert ImageSize(80, 160).of_images(3) == (3, 80, 160)
    assert ImageSize(80, 160).of_images(3, "nhwc") == (80, 160, 3)
