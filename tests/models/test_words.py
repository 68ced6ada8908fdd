from __future__ import annotations

import pytest

from models.words import count_of


@pytest.mark.parametrize(
    ("number", "noun", "told"),
    [
        (1, "device", "1 device"), (2, "device", "2 devices"), (0, "image", "0 images"),
        (1347, "image", "1,347 images"), (5, "epoch", "5 epochs"),
        (1, "class", "1 class"), (3, "class", "3 classes"), (2, "full batch", "2 full batches"),
        (1, "warm-up step", "1 warm-up step"),
    ],
)  # fmt: skip
def test_a_number_has_its_noun(number: int, noun: str, told: str) -> None:
    """Case E12: no "1 devices"."""
    assert count_of(number, noun) == told
