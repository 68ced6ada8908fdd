"""The file of weights that a run was planned with is the one it begins with, and a new last layer is a fresh one."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import paddle
import pytest

import models
from harness.training.weights import load_weights
from models.architecture import HEAD, KEEP, NEW
from models.errors import WeightsError
from models.fitting import read_file
from models.weights import encode_weights


def save(path: Path, seed: int, classes: int = 10, prefix: str = "") -> dict[str, np.ndarray]:
    paddle.seed(seed)
    weights = {name: values.numpy() for name, values in models.build("x0_25", classes).state_dict().items()}
    path.write_bytes(encode_weights(path, {prefix + name: values for name, values in weights.items()}, {}))
    return weights


def test_a_model_gets_the_weights_that_were_described(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    weights = save(path, 1)
    model = models.build("x0_25", 10)
    load_weights(model, path, "x0_25", 10, asdict(read_file(path).fit("x0_25", 10)[1]))
    for name, values in model.state_dict().items():
        np.testing.assert_array_equal(values.numpy(), weights[name])


@pytest.mark.parametrize(("classes", "asked", "prefix"), [(1000, None, ""), (10, NEW, "Student.")])
def test_a_new_last_layer_starts_as_without_a_file(
    tmp_path: Path, classes: int, asked: str | None, prefix: str
) -> None:
    """Case C1: with the same seed it has the same values, to the bit; everything else is the file's."""
    path = tmp_path / "a.safetensors"
    weights = save(path, 1, classes, prefix)
    described = asdict(read_file(path).fit("x0_25", 10, asked)[1])
    assert described["head"] == NEW
    paddle.seed(3)
    fresh = {name: values.numpy() for name, values in models.build("x0_25", 10).state_dict().items()}
    paddle.seed(3)
    model = models.build("x0_25", 10)
    load_weights(model, path, "x0_25", 10, described)
    for name, values in model.state_dict().items():
        wanted = fresh if name in HEAD else weights
        assert values.numpy().tobytes() == wanted[name].tobytes(), name


def test_a_file_that_has_changed_since_is_not_begun_with(tmp_path: Path) -> None:
    """Case E9: the digest that was recorded is compared with that of the bytes that are loaded."""
    path = tmp_path / "a.safetensors"
    save(path, 1)
    described = asdict(read_file(path).fit("x0_25", 10)[1])
    save(path, 2)
    model = models.build("x0_25", 10)
    before = model.fc.weight.numpy().copy()
    with pytest.raises(WeightsError, match="has changed since the run was planned"):
        load_weights(model, path, "x0_25", 10, described)
    np.testing.assert_array_equal(model.fc.weight.numpy(), before)


@pytest.mark.parametrize("suffix", [".safetensors", ".pdparams"])
def test_a_file_is_read_once(tmp_path: Path, suffix: str) -> None:
    """Case E9: so that the digest is that of the bytes that the weights come from."""
    path, opened = tmp_path / f"a{suffix}", []
    weights = save(path, 1)
    sys.addaudithook(lambda event, given: opened.append(given[0]) if event == "open" else None)
    found, described = read_file(path).fit("x0_25", 10)
    read = [str(one) for one in opened if str(one) == str(path)]
    assert len(read) == 1
    np.testing.assert_array_equal(found["fc.weight"], weights["fc.weight"])
    assert (described.head, described.sha256) == (KEEP, hashlib.sha256(path.read_bytes()).hexdigest())
