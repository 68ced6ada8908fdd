"""Fresh weights, layer by layer, against the initialisers that PaddleClas and Paddle's defaults name."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import paddle
import pytest
from scipy import stats

import models
from tests.support import published

CLASSES = 100

# No more than that from what is expected; chance gets there once in two million times, and the seed is fixed.
STANDARD_ERRORS = 5
# From as many values on, the shape of the distribution is looked at too.
LARGE = 1000

Values = npt.NDArray[np.float64]


@pytest.fixture(scope="module", params=list(published.CHANNELS))
def fresh(request: pytest.FixtureRequest) -> dict[str, Values]:
    """All values of a fresh model of one size, by key."""
    paddle.seed(7)
    model = models.build(request.param, CLASSES)
    return {name: values.numpy().astype(np.float64) for name, values in model.state_dict().items()}


def convolutions(fresh: dict[str, Values]) -> dict[str, Values]:
    return {name: values for name, values in fresh.items() if values.ndim == 4}


def test_convolutions_are_normal_with_the_spread_of_kaiming(fresh: dict[str, Values]) -> None:
    """N(0, sqrt(2 / fan_in)), fan_in = in_channels / groups x kernel x kernel.

    That is KaimingNormal, which PaddleClas names for each convolution before a batch norm. The four in squeeze-and-
    excitation and last_conv are left to Paddle's default for Conv2D (nn/layer/conv.py), Normal(0, sqrt(2 / (in_channels
    x kernel x kernel))): the same distribution, as none of them has groups.
    """
    checked = convolutions(fresh)
    assert len(checked) == 27 + 4 + 1
    for name, values in checked.items():
        deviation = math.sqrt(2 / math.prod(values.shape[1:]))
        # The standard error of a mean, and of a normal sample's standard deviation.
        mean_error, spread_error = deviation / math.sqrt(values.size), deviation / math.sqrt(2 * values.size)
        assert abs(values.mean()) < STANDARD_ERRORS * mean_error, name
        assert abs(values.std() - deviation) < STANDARD_ERRORS * spread_error, name
        if values.size >= LARGE:
            assert stats.kstest(values.ravel(), stats.norm(0, deviation).cdf).pvalue > 1e-4, name


def test_the_classifier_is_uniform_with_the_limits_of_xavier(fresh: dict[str, Values]) -> None:
    """U(-b, b), b = sqrt(6 / (inputs + outputs)): Paddle's default for the weight of a Linear layer."""
    values = fresh["fc.weight"]
    assert values.shape == (1280, CLASSES)
    limit = math.sqrt(6 / (1280 + CLASSES))
    deviation = limit / math.sqrt(3)
    assert abs(values.mean()) < STANDARD_ERRORS * deviation / math.sqrt(values.size)
    # A uniform distribution's fourth moment is 9/5 of its variance squared: hence the error of its deviation.
    assert abs(values.std() - deviation) < STANDARD_ERRORS * deviation * math.sqrt((9 / 5 - 1) / (4 * values.size))
    assert np.abs(values).max() <= limit * (1 + 1e-6)  # to float32
    assert stats.kstest(values.ravel(), stats.uniform(-limit, 2 * limit).cdf).pvalue > 1e-4


def test_everything_else_starts_at_0_or_1(fresh: dict[str, Values]) -> None:
    others = {name: values for name, values in fresh.items() if values.ndim == 1}
    assert len(others) == 27 * 4 + 4 + 1
    for name, values in others.items():
        start = 1.0 if name.endswith(("bn.weight", "bn._variance")) else 0.0
        np.testing.assert_array_equal(values, start, err_msg=name)
