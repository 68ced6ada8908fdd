"""Multiply-accumulates: the published counts, counts by hand, and those of the real network's layers."""

from __future__ import annotations

import math
import subprocess
import sys

import paddle
import pytest
from paddle import nn

import models
from harness import ROOT
from models.architecture import BOTH, HEIGHT
from models.flops import macs
from models.image_size import ImageSize, PlainSize


@pytest.mark.parametrize(
    ("size", "millions"),
    [
        ("x0_25", 16.77),
        ("x0_35", 27.36),
        ("x0_5", 44.73),
        ("x0_75", 94.79),
        ("x1_0", 155.70),
        ("x1_5", 334.19),
        ("x2_0", 580.19),
        ("x2_5", 893.72),
    ],
)
def test_macs_are_the_published_ones(size: str, millions: float) -> None:
    assert round(macs(size) / 1e6, 2) == millions


def test_each_layer_of_a_one_pixel_image_counts_once() -> None:
    # At 1 pixel every side stays 1, so each convolution costs its weights: kernel x kernel x in / groups x out.
    stem = 9 * 3 * 8
    blocks2 = 9 * 8 + 8 * 8
    blocks3 = 9 * 8 + 8 * 16 + 9 * 16 + 16 * 16
    blocks4 = 9 * 16 + 16 * 32 + 9 * 32 + 32 * 32
    blocks5 = 9 * 32 + 32 * 64 + 5 * (25 * 64 + 64 * 64)
    blocks6 = (25 * 64 + 2 * 64 * 16 + 64 * 128) + (25 * 128 + 2 * 128 * 32 + 128 * 128)
    head = 128 * 1280 + 1280 * 10
    assert macs("x0_25", 1, 10) == stem + blocks2 + blocks3 + blocks4 + blocks5 + blocks6 + head == 249_992


def test_classes_cost_the_last_layer_only() -> None:
    assert macs("x1_0", 224, 1000) - macs("x1_0", 224, 10) == 1280 * 990


def test_each_side_of_an_image_has_its_own_strides() -> None:
    """By hand: 80 x 160 pixels become 40 x 80, and then 40, 20, 10, 5 and 3 of height at a width of 80.

    With the published strides the stages are 40 x 80, 20 x 40, 10 x 20, 5 x 10 and 3 x 5.
    """

    def by_hand(areas: tuple[int, int, int, int, int]) -> int:
        second, third, fourth, fifth, sixth = areas
        stem = 9 * 3 * 8 * second
        blocks2 = (9 * 8 + 8 * 8) * second
        blocks3 = (9 * 8 + 8 * 16 + 9 * 16 + 16 * 16) * third
        blocks4 = (9 * 16 + 16 * 32 + 9 * 32 + 32 * 32) * fourth
        blocks5 = (9 * 32 + 32 * 64 + 5 * (25 * 64 + 64 * 64)) * fifth
        blocks6 = (25 * 64 + 64 * 128 + 25 * 128 + 128 * 128) * sixth + 2 * 64 * 16 + 2 * 128 * 32
        return stem + blocks2 + blocks3 + blocks4 + blocks5 + blocks6 + 128 * 1280 + 1280 * 10

    halved = by_hand((40 * 80, 20 * 40, 10 * 20, 5 * 10, 3 * 5))
    assert macs("x0_25", "80x160", 10) == macs("x0_25", "80x160", 10, BOTH) == halved
    high = by_hand((40 * 80, 20 * 80, 10 * 80, 5 * 80, 3 * 80))
    assert macs("x0_25", "80x160", 10, HEIGHT) == high
    # The other way round the width is what is halved; a square costs the same as its side.
    assert macs("x0_25", "160x80", 10, HEIGHT) == by_hand((80 * 40, 40 * 40, 20 * 40, 10 * 40, 5 * 40))
    assert macs("x0_25", "97x97", 10) == macs("x0_25", 97, 10)


def macs_of_layers(size: str, image_size: PlainSize, num_classes: int, strides: str = BOTH) -> int:
    """The same count made by the network itself, as each of its layers sees its own output."""
    model = models.build(size, num_classes, strides=strides)
    model.eval()
    counts: list[int] = []

    def convolution(layer: nn.Layer, _inputs: tuple[paddle.Tensor], output: paddle.Tensor) -> None:
        counts.append(math.prod(output.shape) * math.prod(layer.weight.shape[1:]))

    def linear(layer: nn.Layer, _inputs: tuple[paddle.Tensor], _output: paddle.Tensor) -> None:
        counts.append(math.prod(layer.weight.shape))

    for layer in model.sublayers():
        if isinstance(layer, nn.Conv2D):
            layer.register_forward_post_hook(convolution)
        elif isinstance(layer, nn.Linear):
            layer.register_forward_post_hook(linear)
    with paddle.no_grad():
        model(paddle.zeros([1, *ImageSize.of(image_size).of_images(3)]))
    assert len(counts) == 1 + 2 * 13 + 2 * 2 + 1 + 1  # stem, 13 blocks, 2 attentions, last convolution, linear
    return sum(counts)


@pytest.mark.parametrize("size", ["x0_25", "x0_35", "x1_0", "x2_5"])
@pytest.mark.parametrize("image_size", [64, 97])
def test_macs_are_those_of_the_networks_layers(size: str, image_size: int) -> None:
    assert macs(size, image_size, 10) == macs_of_layers(size, image_size, 10)


@pytest.mark.parametrize("strides", [BOTH, HEIGHT])
@pytest.mark.parametrize("image_size", ["80x160", "97x33"])
def test_macs_of_other_shapes_and_strides_are_those_of_the_networks_layers(image_size: str, strides: str) -> None:
    assert macs("x0_25", image_size, 10, strides) == macs_of_layers("x0_25", image_size, 10, strides)


def test_counting_does_not_load_paddle() -> None:
    code = "import sys; from models.flops import macs; print(macs('x1_0'), 'paddle' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["155700480", "False"]


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown model 'x3_0'; known: x0_25, x0_35"):
        macs("x3_0")
    with pytest.raises(ValueError, match="image_size is 0, num_classes 1000; both must be at least 1"):
        macs("x1_0", 0)
    with pytest.raises(ValueError, match="image_size is 32x0, num_classes 1000"):
        macs("x1_0", "32x0")
    with pytest.raises(ValueError, match="image_size is 224, num_classes 0"):
        macs("x1_0", num_classes=0)
