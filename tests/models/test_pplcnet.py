from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import paddle
import pytest
from paddle import nn

import models
from harness import ROOT
from models.architecture import parameter_count, parameter_shapes, scaled_channels
from models.pplcnet import PPLCNet
from tests.support import published


class Published(NamedTuple):
    """Of one size: what PaddleClas's model page, its recipe and its parameter files say."""

    scale: float
    parameters: int
    mmacs: float
    weight_decay: float
    top1_percent: float
    top5_percent: float
    latency_ms: float


PUBLISHED = {
    "x0_25": Published(0.25, 1_521_184, 16.77, 3e-5, 51.86, 75.65, 1.74),
    "x0_35": Published(0.35, 1_643_090, 27.36, 3e-5, 58.09, 80.83, 1.92),
    "x0_5": Published(0.5, 1_879_576, 44.73, 3e-5, 63.14, 84.66, 2.05),
    "x0_75": Published(0.75, 2_357_008, 94.79, 3e-5, 68.18, 88.30, 2.29),
    "x1_0": Published(1.0, 2_952_520, 155.70, 3e-5, 71.32, 90.03, 2.46),
    "x1_5": Published(1.5, 4_499_832, 334.19, 4e-5, 73.71, 91.53, 3.19),
    "x2_0": Published(2.0, 6_521_512, 580.19, 4e-5, 75.18, 92.27, 4.27),
    "x2_5": Published(2.5, 9_017_560, 893.72, 4e-5, 76.60, 93.00, 5.39),
}


def images(batch: int, side: int) -> paddle.Tensor:
    return paddle.to_tensor(np.random.default_rng(1).normal(size=(batch, 3, side, side)).astype("float32"))


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_and_macs_are_the_published_ones(size: str) -> None:
    model = models.build(size)
    model.eval()
    macs = 0

    def count_convolution(layer: nn.Layer, _inputs: tuple[paddle.Tensor], output: paddle.Tensor) -> None:
        nonlocal macs
        macs += math.prod(output.shape) * math.prod(layer.weight.shape[1:])

    def count_linear(layer: nn.Layer, _inputs: tuple[paddle.Tensor], _output: paddle.Tensor) -> None:
        nonlocal macs
        macs += math.prod(layer.weight.shape)

    for layer in model.sublayers():
        if isinstance(layer, nn.Conv2D):
            layer.register_forward_post_hook(count_convolution)
        elif isinstance(layer, nn.Linear):
            layer.register_forward_post_hook(count_linear)
    with paddle.no_grad():
        logits = model(paddle.zeros([1, 3, 224, 224]))

    assert logits.shape == [1, 1000]
    assert round(macs / 1e6, 2) == PUBLISHED[size].mmacs
    trainable = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
    assert sum(math.prod(parameter.shape) for parameter in trainable) == PUBLISHED[size].parameters
    assert parameter_count(PUBLISHED[size].scale, 1000) == PUBLISHED[size].parameters
    assert len(model.state_dict()) == 146


def test_the_eight_sizes_say_what_was_published() -> None:
    assert {
        size: (
            entry.scale,
            entry.weight_decay,
            round(100 * entry.top1, 2),
            round(100 * entry.top5, 2),
            entry.latency_ms,
        )
        for size, entry in models.SIZES.items()
    } == {
        size: (entry.scale, entry.weight_decay, entry.top1_percent, entry.top5_percent, entry.latency_ms)
        for size, entry in PUBLISHED.items()
    }


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_table_of_layers_knows_every_entry_without_the_model(size: str) -> None:
    for num_classes in (1000, 7):
        model = models.build(size, num_classes)
        entries = [(name, tuple(values.shape)) for name, values in model.state_dict().items()]
        assert list(parameter_shapes(PUBLISHED[size].scale, num_classes).items()) == entries
        assert len(entries) == 146


@pytest.mark.parametrize(
    ("strides", "sides"),
    [
        ("both", [(40, 80), (20, 40), (10, 20), (5, 10), (3, 5)]),
        ("height", [(40, 80), (20, 80), (10, 80), (5, 80), (3, 80)]),
    ],
)
@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
def test_what_stages_halve_of_80_x_160_pixels(strides: str, sides: list[tuple[int, int]], data_format: str) -> None:
    model = models.build("x0_25", 10, data_format, strides)
    assert model.strides == strides
    seen: list[tuple[int, int]] = []
    first = 2 if data_format == "NCHW" else 1
    for stage in (model.blocks2, model.blocks3, model.blocks4, model.blocks5, model.blocks6):
        stage.register_forward_post_hook(lambda _layer, _inputs, output: seen.append(tuple(output.shape[first:][:2])))
    model.eval()
    shape = [2, 3, 80, 160] if data_format == "NCHW" else [2, 80, 160, 3]
    with paddle.no_grad():
        assert model(paddle.zeros(shape)).shape == [2, 10]
    assert seen == sides


def test_weights_of_one_stride_load_into_a_network_of_another() -> None:
    both, height = models.build("x0_25", 10), models.build("x0_25", 10, strides="height")
    missing, unexpected = height.set_state_dict(both.state_dict())
    assert (missing, unexpected) == ([], [])
    both.eval()
    height.eval()
    with paddle.no_grad():
        # Of an image of one pixel a stride makes no difference.
        np.testing.assert_array_equal(height(images(2, 1)).numpy(), both(images(2, 1)).numpy())
        assert np.abs(height(images(2, 64)).numpy() - both(images(2, 64)).numpy()).max() > 1e-6


def test_strides_that_are_not_known() -> None:
    with pytest.raises(ValueError, match="unknown strides 'width'; known: both, height"):
        models.build("x0_25", strides="width")


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        (1, 8),
        (8, 8),
        (11, 16),
        (12, 16),
        (13, 16),
        (19, 24),
        (20, 24),
        (24, 24),
        (28, 32),
        (35, 32),
        (43, 40),
        (44, 48),
    ],
)
def test_channels_are_rounded_to_eights_but_never_lose_a_tenth(channels: int, expected: int) -> None:
    assert scaled_channels(channels, 1.0) == expected


@pytest.mark.parametrize(("options", "share"), [({}, 0.2), ({"dropout": 0.5}, 0.5)])
def test_training_drops_activations_and_leaves_the_rest_as_they_are(options: dict[str, Any], share: float) -> None:
    paddle.seed(11)
    model = PPLCNet(0.25, 10, **options)
    model.train()
    seen: list[tuple[paddle.Tensor, paddle.Tensor]] = []
    model.dropout.register_forward_post_hook(lambda _layer, inputs, output: seen.append((inputs[0], output)))
    with paddle.no_grad():
        model(images(16, 32))
    before, after = (values.numpy() for values in seen[0])
    assert before.shape == (16, 1280, 1, 1)
    kept = after != 0
    np.testing.assert_array_equal(after[kept], before[kept])
    # Where hard-swish gave 0, a dropped value looks like a kept one.
    kept = kept[before != 0]
    assert kept.size > 18_000
    # Over as many draws the share's standard deviation is at most 0.0037.
    assert 1 - kept.mean() == pytest.approx(share, abs=0.015)


def test_hard_swish_is_everywhere_but_inside_attention() -> None:
    expected = {"act": nn.Hardswish, "conv1.act": nn.Hardswish}
    for block in published.BLOCKS:
        expected |= {f"{block.path}.{part}.act": nn.Hardswish for part in ("dw_conv", "pw_conv")}
        if block.squeezes:
            expected |= {f"{block.path}.se.relu": nn.ReLU, f"{block.path}.se.hardsigmoid": nn.Hardsigmoid}
    activations = {
        path: type(layer)
        for path, layer in models.build("x0_25").named_sublayers()
        if type(layer).__module__ == nn.Hardswish.__module__
    }
    assert activations == expected
    assert len(activations) == 32


def test_the_global_seed_decides_the_weights() -> None:
    def weights(seed: int) -> bytes:
        paddle.seed(seed)
        return b"".join(values.numpy().tobytes() for values in models.build("x0_25", 10).parameters())

    assert weights(1) == weights(1)
    assert weights(1) != weights(2)


@pytest.mark.parametrize("model", ["x3_0", "", "X1_0", "PPLCNet_x1_0"])
def test_an_unknown_model_is_refused_with_the_known_ones(model: str) -> None:
    with pytest.raises(ValueError, match="unknown model") as caught:
        models.build(model)
    assert str(caught.value) == (f"unknown model {model!r}; known: x0_25, x0_35, x0_5, x0_75, x1_0, x1_5, x2_0, x2_5")


@pytest.mark.parametrize("num_classes", [0, -1])
def test_a_model_without_classes_is_refused(num_classes: int) -> None:
    with pytest.raises(ValueError, match=f"num_classes is {num_classes}; it must be at least 1"):
        models.build("x0_25", num_classes)


def test_one_class_is_enough() -> None:
    assert models.build("x0_25", 1).fc.weight.shape == [1280, 1]


def test_naming_the_sizes_does_not_load_paddle() -> None:
    program = "import json, sys, models; print(json.dumps([list(models.SIZES), sorted(sys.modules)]))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    sizes, loaded = json.loads(done.stdout)
    assert sizes == list(PUBLISHED)
    assert "models.sizes" in loaded
    assert [module for module in loaded if module.split(".")[0] in ("paddle", "numpy")] == []
