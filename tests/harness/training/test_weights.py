"""The file of weights that a run was planned with is the one it begins with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest

import models
from harness.training.weights import load_weights
from models.errors import WeightsError
from models.weights import describe_weights, encode_weights


def save(path: Path, seed: int) -> dict[str, np.ndarray]:
    paddle.seed(seed)
    weights = {name: values.numpy() for name, values in models.build("x0_25", 10).state_dict().items()}
    path.write_bytes(encode_weights(path, weights, {}))
    return weights


def test_a_model_gets_the_weights_that_were_described(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    weights = save(path, 1)
    model = models.build("x0_25", 10)
    load_weights(model, path, "x0_25", 10, describe_weights(path, "x0_25", 10)[1])
    for name, values in model.state_dict().items():
        np.testing.assert_array_equal(values.numpy(), weights[name])


def test_a_file_that_has_changed_since_is_not_begun_with(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(path, 1)
    described = describe_weights(path, "x0_25", 10)[1]
    save(path, 2)
    model = models.build("x0_25", 10)
    before = model.fc.weight.numpy().copy()
    with pytest.raises(WeightsError, match="has changed since the run was planned"):
        load_weights(model, path, "x0_25", 10, described)
    np.testing.assert_array_equal(model.fc.weight.numpy(), before)
