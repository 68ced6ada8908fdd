"""Each size against the published definition, written a second time in numpy (`published.py`)."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle import nn

import models
from models.pplcnet import PPLCNet
from tests.support import published

CLASSES = 10


def shaken(model: PPLCNet, images: paddle.Tensor) -> dict[str, published.Array]:
    """Give the model what a trained one has: no gamma of 1, no bias of 0, statistics near those of its activations.

    With a fresh model's 0 and 1 a layer that is left out would not show; with any other statistics activations vanish
    or explode over 27 batch norms, and an error in the first ones would not show either.
    """
    generator = np.random.default_rng(3)
    weights = model.state_dict()
    for name, values in weights.items():
        if name.endswith("bias"):
            values.set_value(generator.normal(0, 0.3, values.shape).astype("float32"))
        elif name.endswith("bn.weight"):
            values.set_value(generator.uniform(0.5, 1.5, values.shape).astype("float32"))
    for layer in model.sublayers():
        if isinstance(layer, nn.BatchNorm2D):
            layer._momentum = 0.0  # one pass replaces the statistics by this batch's
    model.train()
    model(images)
    for name, values in weights.items():
        if name.endswith("_mean"):
            spread = np.sqrt(weights[name.replace("_mean", "_variance")].numpy())
            values.set_value((values.numpy() + generator.normal(0, 0.2, values.shape) * spread).astype("float32"))
        elif name.endswith("_variance"):
            # A channel that hardly varies would have its rounding errors divided by its tiny deviation.
            values.set_value((values.numpy() * generator.uniform(0.7, 1.6, values.shape) + 0.003).astype("float32"))
    model.eval()
    return {name: values.numpy().astype(np.float64) for name, values in weights.items()}


@pytest.mark.parametrize("size", published.CHANNELS)
def test_keys_and_shapes_are_those_of_the_published_weights_in_their_order(size: str) -> None:
    weights = models.build(size).state_dict()
    assert len(published.KEYS) == 146
    assert tuple(weights) == published.KEYS
    assert {name: values.shape for name, values in weights.items()} == published.shapes(size, 1000)


@pytest.mark.parametrize("scales_for_dropout", [True, False], ids=["published dropout", "no dropout"])
@pytest.mark.parametrize("size", published.CHANNELS)
def test_logits_equal_those_of_the_published_definition(size: str, scales_for_dropout: bool) -> None:
    """In float32 against float64, no difference is above 1e-5 of the largest logit, which is of order 1.

    Images of 96 pixels leave 3 x 3 for the last stage, so that every tap of its kernels counts somewhere.
    """
    paddle.seed(5)
    scale = models.SIZES[size].scale
    model = models.build(size, CLASSES) if scales_for_dropout else PPLCNet(scale, CLASSES, dropout=0.0)
    images = np.random.default_rng(1).normal(size=(4, 3, 96, 96)).astype(np.float32)
    with paddle.no_grad():
        weights = shaken(model, paddle.to_tensor(images))
        logits = model(paddle.to_tensor(images)).numpy()
    expected = published.logits(weights, images.astype(np.float64), scales_for_dropout=scales_for_dropout)
    assert not any(np.isin(values, (0, 1)).any() for values in weights.values() if values.ndim == 1)
    # Not by the last bias alone: the images are told apart.
    assert 0.2 < np.abs(expected).max() < 5
    assert expected.std(0).mean() > 0.02
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
