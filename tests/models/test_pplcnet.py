from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import paddle
import pytest
from paddle import nn

import models
from models.architecture import scaled_channels
from models.pplcnet import PPLCNet

ROOT = Path(__file__).parents[2]


class Published(NamedTuple):
    """Of one size: what PaddleClas's model page, its recipe and its parameter files say."""

    scale: float
    parameters: int
    mmacs: float
    weight_decay: float
    top1_percent: float
    top5_percent: float


PUBLISHED = {
    "x0_25": Published(0.25, 1_521_184, 16.77, 3e-5, 51.86, 75.65),
    "x0_35": Published(0.35, 1_643_090, 27.36, 3e-5, 58.09, 80.83),
    "x0_5": Published(0.5, 1_879_576, 44.73, 3e-5, 63.14, 84.66),
    "x0_75": Published(0.75, 2_357_008, 94.79, 3e-5, 68.18, 88.30),
    "x1_0": Published(1.0, 2_952_520, 155.70, 3e-5, 71.32, 90.03),
    "x1_5": Published(1.5, 4_499_832, 334.19, 4e-5, 73.71, 91.53),
    "x2_0": Published(2.0, 6_521_512, 580.19, 4e-5, 75.18, 92.27),
    "x2_5": Published(2.5, 9_017_560, 893.72, 4e-5, 76.60, 93.00),
}


class Block(NamedTuple):
    """One depthwise separable block of the published definition, at the channels of one scale."""

    path: str
    kernel: int
    inputs: int
    outputs: int
    stride: int
    squeezes: bool


# Spelled out per scale, so that no rounding rule is needed to read them.
STEM = {"x0_25": 8, "x1_0": 16}
BLOCKS = {
    "x0_25": (
        Block("blocks2.0", 3, 8, 8, 1, False),
        Block("blocks3.0", 3, 8, 16, 2, False),
        Block("blocks3.1", 3, 16, 16, 1, False),
        Block("blocks4.0", 3, 16, 32, 2, False),
        Block("blocks4.1", 3, 32, 32, 1, False),
        Block("blocks5.0", 3, 32, 64, 2, False),
        Block("blocks5.1", 5, 64, 64, 1, False),
        Block("blocks5.2", 5, 64, 64, 1, False),
        Block("blocks5.3", 5, 64, 64, 1, False),
        Block("blocks5.4", 5, 64, 64, 1, False),
        Block("blocks5.5", 5, 64, 64, 1, False),
        Block("blocks6.0", 5, 64, 128, 2, True),
        Block("blocks6.1", 5, 128, 128, 1, True),
    ),
    "x1_0": (
        Block("blocks2.0", 3, 16, 32, 1, False),
        Block("blocks3.0", 3, 32, 64, 2, False),
        Block("blocks3.1", 3, 64, 64, 1, False),
        Block("blocks4.0", 3, 64, 128, 2, False),
        Block("blocks4.1", 3, 128, 128, 1, False),
        Block("blocks5.0", 3, 128, 256, 2, False),
        Block("blocks5.1", 5, 256, 256, 1, False),
        Block("blocks5.2", 5, 256, 256, 1, False),
        Block("blocks5.3", 5, 256, 256, 1, False),
        Block("blocks5.4", 5, 256, 256, 1, False),
        Block("blocks5.5", 5, 256, 256, 1, False),
        Block("blocks6.0", 5, 256, 512, 2, True),
        Block("blocks6.1", 5, 512, 512, 1, True),
    ),
}


def conv_bn_shapes(path: str, weight: list[int]) -> Iterator[tuple[str, list[int]]]:
    yield f"{path}.conv.weight", weight
    for name in ("weight", "bias", "_mean", "_variance"):
        yield f"{path}.bn.{name}", weight[:1]


def published_shapes(size: str, num_classes: int) -> dict[str, list[int]]:
    """Every entry of the published parameter file and its shape."""
    shapes = dict(conv_bn_shapes("conv1", [STEM[size], 3, 3, 3]))
    for block in BLOCKS[size]:
        shapes.update(conv_bn_shapes(f"{block.path}.dw_conv", [block.inputs, 1, block.kernel, block.kernel]))
        if block.squeezes:
            squeezed = block.inputs // 4
            shapes[f"{block.path}.se.conv1.weight"] = [squeezed, block.inputs, 1, 1]
            shapes[f"{block.path}.se.conv1.bias"] = [squeezed]
            shapes[f"{block.path}.se.conv2.weight"] = [block.inputs, squeezed, 1, 1]
            shapes[f"{block.path}.se.conv2.bias"] = [block.inputs]
        shapes.update(conv_bn_shapes(f"{block.path}.pw_conv", [block.outputs, block.inputs, 1, 1]))
    shapes["last_conv.weight"] = [1280, BLOCKS[size][-1].outputs, 1, 1]
    shapes["fc.weight"] = [1280, num_classes]
    shapes["fc.bias"] = [num_classes]
    return shapes


def shaken(model: PPLCNet) -> PPLCNet:
    """The model with biases and BN statistics other than 0 and 1, which would hide a layer that is left out."""
    generator = np.random.default_rng(3)
    with paddle.no_grad():
        for name, values in model.state_dict().items():
            if name.endswith(("bias", "_mean")):
                values.set_value(generator.normal(0, 0.3, values.shape).astype("float32"))
            elif name.endswith(("bn.weight", "_variance")):
                values.set_value(generator.uniform(0.5, 1.5, values.shape).astype("float32"))
    return model


@pytest.fixture(scope="module")
def smallest() -> PPLCNet:
    """x0_25 with 10 classes, shaken, in evaluation mode."""
    paddle.seed(5)
    model = shaken(models.build("x0_25", 10))
    model.eval()
    return model


def images(batch: int, side: int) -> paddle.Tensor:
    return paddle.to_tensor(np.random.default_rng(1).normal(size=(batch, 3, side, side)).astype("float32"))


def hard_swish(x: paddle.Tensor) -> paddle.Tensor:
    return x * paddle.clip(x + 3, 0, 6) / 6


def hard_sigmoid(x: paddle.Tensor) -> paddle.Tensor:
    return paddle.clip(x / 6 + 0.5, 0, 1)


def relu(x: paddle.Tensor) -> paddle.Tensor:
    return paddle.clip(x, min=0)


def normalised(weights: dict[str, Any], path: str, x: paddle.Tensor) -> paddle.Tensor:
    """Batch normalisation in evaluation mode, epsilon 1e-5."""
    mean, variance, gamma, beta = (
        weights[f"{path}.{name}"].reshape([1, -1, 1, 1]) for name in ("_mean", "_variance", "weight", "bias")
    )
    return (x - mean) / paddle.sqrt(variance + 1e-5) * gamma + beta


def conv_bn(
    weights: dict[str, Any], path: str, x: paddle.Tensor, kernel: int, stride: int, groups: int
) -> paddle.Tensor:
    weight = weights[f"{path}.conv.weight"]
    x = nn.functional.conv2d(x, weight, stride=stride, padding=(kernel - 1) // 2, groups=groups)
    return hard_swish(normalised(weights, f"{path}.bn", x))


def squeezed(weights: dict[str, Any], path: str, x: paddle.Tensor) -> paddle.Tensor:
    attention = x.mean([2, 3], keepdim=True)
    for name, activation in (("conv1", relu), ("conv2", hard_sigmoid)):
        weight, bias = weights[f"{path}.{name}.weight"], weights[f"{path}.{name}.bias"]
        attention = activation(nn.functional.conv2d(attention, weight, bias))
    return x * attention


def block_by_hand(weights: dict[str, Any], block: Block, x: paddle.Tensor) -> paddle.Tensor:
    x = conv_bn(weights, f"{block.path}.dw_conv", x, block.kernel, block.stride, groups=block.inputs)
    if block.squeezes:
        x = squeezed(weights, f"{block.path}.se", x)
    return conv_bn(weights, f"{block.path}.pw_conv", x, 1, 1, groups=1)


def hidden_by_hand(weights: dict[str, Any], features: paddle.Tensor) -> paddle.Tensor:
    """The [batch, 1280] activations that dropout gets, from the last block's output."""
    pooled = features.mean([2, 3], keepdim=True)
    return hard_swish(nn.functional.conv2d(pooled, weights["last_conv.weight"])).flatten(1)


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
    assert len(model.state_dict()) == 146


def test_the_eight_sizes_say_what_was_published() -> None:
    assert {
        size: (entry.scale, entry.weight_decay, round(100 * entry.top1, 2), round(100 * entry.top5, 2))
        for size, entry in models.SIZES.items()
    } == {
        size: (entry.scale, entry.weight_decay, entry.top1_percent, entry.top5_percent)
        for size, entry in PUBLISHED.items()
    }


@pytest.mark.parametrize(("size", "num_classes"), [("x1_0", 1000), ("x0_25", 10)])
def test_names_and_shapes_are_those_of_the_published_weights(size: str, num_classes: int) -> None:
    expected = published_shapes(size, num_classes)
    assert len(expected) == 146
    assert {name: values.shape for name, values in models.build(size, num_classes).state_dict().items()} == expected


@pytest.mark.parametrize(
    ("scale", "stages"),
    [
        # The stages' channels at scale 1 are 16, 32, 64, 128, 256 and 512.
        (0.25, [8, 8, 16, 32, 64, 128]),
        # 5.6 -> 8; 11.2 -> 16, since 8 would lose more than 10 %; 22.4 -> 24; 44.8 -> 48; 89.6 -> 88; 179.2 -> 176
        (0.35, [8, 16, 24, 48, 88, 176]),
        (0.5, [8, 16, 32, 64, 128, 256]),
        (0.75, [16, 24, 48, 96, 192, 384]),
        (1.0, [16, 32, 64, 128, 256, 512]),
        (1.5, [24, 48, 96, 192, 384, 768]),
        (2.0, [32, 64, 128, 256, 512, 1024]),
        (2.5, [40, 80, 160, 320, 640, 1280]),
    ],
)
def test_channels_of_each_scale(scale: float, stages: list[int]) -> None:
    assert [scaled_channels(channels, scale) for channels in (16, 32, 64, 128, 256, 512)] == stages


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


@pytest.mark.parametrize("block", BLOCKS["x0_25"], ids=lambda block: block.path)
def test_each_block_is_depthwise_then_attention_then_pointwise(smallest: PPLCNet, block: Block) -> None:
    stage, index = block.path.split(".")
    features = paddle.to_tensor(np.random.default_rng(2).normal(size=(2, block.inputs, 9, 9)).astype("float32"))
    with paddle.no_grad():
        output = getattr(smallest, stage)[int(index)](features)
        by_hand = block_by_hand(smallest.state_dict(), block, features)
    side = 5 if block.stride == 2 else 9
    assert output.shape == [2, block.outputs, side, side]
    np.testing.assert_allclose(output.numpy(), by_hand.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", ["blocks6.0", "blocks6.1"])
def test_attention_acts_between_the_convolutions_not_after_them(smallest: PPLCNet, path: str) -> None:
    stage, index = path.split(".")
    block = getattr(smallest, stage)[int(index)]
    channels = block.dw_conv.conv.weight.shape[0]
    features = paddle.to_tensor(np.random.default_rng(2).normal(size=(2, channels, 9, 9)).astype("float32"))
    with paddle.no_grad():
        output = block(features).numpy()
        between = block.pw_conv(block.se(block.dw_conv(features))).numpy()
        before = block.pw_conv(block.dw_conv(block.se(features))).numpy()
    np.testing.assert_array_equal(output, between)
    assert np.abs(output - before).max() > 0.01


def test_logits_equal_a_forward_pass_by_hand(smallest: PPLCNet) -> None:
    weights = smallest.state_dict()
    with paddle.no_grad():
        x = conv_bn(weights, "conv1", images(2, 64), 3, 2, groups=1)
        for block in BLOCKS["x0_25"]:
            x = block_by_hand(weights, block, x)
        assert x.shape == [2, 128, 2, 2]
        expected = 0.8 * (hidden_by_hand(weights, x) @ weights["fc.weight"]) + weights["fc.bias"]
        logits = smallest(images(2, 64))
    assert float(expected.std()) > 0.01
    np.testing.assert_allclose(logits.numpy(), expected.numpy(), rtol=1e-3, atol=1e-4)


def test_evaluation_scales_by_the_kept_share(smallest: PPLCNet) -> None:
    seen: list[paddle.Tensor] = []
    handle = smallest.dropout.register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0]))
    try:
        with paddle.no_grad():
            logits = smallest(images(3, 32))
            undropped = smallest.fc(seen[0].flatten(1))
    finally:
        handle.remove()
    bias = smallest.fc.bias.numpy()
    assert np.abs(bias).min() > 0
    np.testing.assert_allclose(logits.numpy() - bias, 0.8 * (undropped.numpy() - bias), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("options", "share"), [({}, 0.2), ({"dropout": 0.5}, 0.5)])
def test_training_drops_activations_and_leaves_the_rest_as_they_are(options: dict[str, float], share: float) -> None:
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


def test_hard_swish_is_everywhere_but_inside_attention(smallest: PPLCNet) -> None:
    expected = {"act": nn.Hardswish, "conv1.act": nn.Hardswish}
    for block in BLOCKS["x0_25"]:
        expected |= {f"{block.path}.{part}.act": nn.Hardswish for part in ("dw_conv", "pw_conv")}
        if block.squeezes:
            expected |= {f"{block.path}.se.relu": nn.ReLU, f"{block.path}.se.hardsigmoid": nn.Hardsigmoid}
    activations = {
        path: type(layer)
        for path, layer in smallest.named_sublayers()
        if type(layer).__module__ == nn.Hardswish.__module__
    }
    assert activations == expected
    assert len(activations) == 32


def test_convolutions_start_with_the_spread_of_kaiming() -> None:
    paddle.seed(7)
    model = models.build("x1_0")
    pointwise = model.blocks6[1].pw_conv.conv.weight.numpy()
    depthwise = model.blocks6[1].dw_conv.conv.weight.numpy()
    assert pointwise.std() == pytest.approx(math.sqrt(2 / 512), rel=0.01)
    assert depthwise.std() == pytest.approx(math.sqrt(2 / 25), rel=0.03)


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
