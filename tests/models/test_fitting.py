"""Which model a file's weights are those of: names under prefixes, sizes, and last layers for other classes."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import models
from models.architecture import HEAD, KEEP, NEW, parameter_shapes
from models.errors import WeightsError
from models.fitting import closest_size, compare_shapes, fit, of_one_model, read_file, recognise
from models.weights import encode_weights

Arrays = dict[str, npt.NDArray[Any]]


def zeros(size: str, num_classes: int, prefix: str = "") -> Arrays:
    shapes = parameter_shapes(models.SIZES[size].scale, num_classes)
    return {prefix + name: np.zeros(shape, "float32") for name, shape in shapes.items()}


def saved(folder: Path, arrays: Arrays, name: str = "some.safetensors") -> Path:
    path = folder / name
    path.write_bytes(encode_weights(path, arrays, {}))
    return path


def refused(path: Path, size: str, num_classes: int, head: str | None = None) -> tuple[list[str], str]:
    with pytest.raises(WeightsError) as caught:
        read_file(path).fit(size, num_classes, head)
    return caught.value.message.splitlines(), caught.value.cure


def test_differences_are_listed_missing_first_then_shapes_then_unexpected() -> None:
    found = {"z": np.ones(1), "c": np.ones((2, 3)), "b": np.ones(()), "y\n": np.ones(1)}
    assert compare_shapes(found, {"a": (1,), "b": (2,), "c": (3, 2), "d": (1,)}) == [
        "a is missing",
        "d is missing",
        "b: a single number in the file, 2 wanted",
        "c: 2 x 3 in the file, 3 x 2 wanted",
        "'z' is not part of the model",
        "'y\\n' is not part of the model",
    ]
    assert compare_shapes(zeros("x0_5", 7), parameter_shapes(0.5, 7)) == []


@pytest.mark.parametrize("size", models.SIZES)
def test_every_size_is_recognised(size: str) -> None:
    found = zeros(size, 3)
    assert recognise(found) == closest_size(found) == (size, 3)
    assert list(fit(dict(reversed(found.items())), size, 3)) == list(found)
    del found["conv1.bn._mean"]
    assert recognise(found) is None
    assert closest_size(found) == (size, 3)


def unfit(found: Arrays, size: str, num_classes: int) -> tuple[list[str], str]:
    with pytest.raises(WeightsError) as caught:
        fit(found, size, num_classes)
    return caught.value.message.splitlines(), caught.value.cure


def test_weights_of_another_size_are_named() -> None:
    lines, cure = unfit(zeros("x0_25", 10), "x1_0", 10)
    assert lines[:2] == [
        "the weights don't fit x1_0 with 10 classes: 144 differences from its 146 entries",
        "  conv1.conv.weight: 8 x 3 x 3 x 3 in the file, 16 x 3 x 3 x 3 wanted",
    ]
    assert len(lines) == 7
    assert lines[-1] == "  and 139 more"
    assert cure == "They are those of x0_25: --model x0_25."
    # Following it leads to the next question, that of the classes, and not to an evaluation.
    assert unfit(zeros("x0_25", 10), "x1_0", 1)[1] == cure
    assert unfit(zeros("x0_25", 10), "x0_25", 1)[0] == [
        "the last layer of the weights has 10 outputs, but this data has 1 class"
    ]


def test_weights_of_another_network_are_named() -> None:
    lines, cure = unfit({"layer1.weight": np.ones((3, 3))}, "x0_25", 10)
    assert lines[0] == "the weights don't fit x0_25 with 10 classes: 147 differences from its 146 entries"
    assert lines[1] == "  conv1.conv.weight is missing"
    assert cure.startswith("Give PP-LCNet's weights")


def test_values_that_are_not_finite_fit_nothing() -> None:
    found = zeros("x0_25", 10)
    found["conv1.bn._mean"][0] = np.inf
    assert unfit(found, "x0_25", 10)[0] == [
        "the model has values in 'conv1.bn._mean' that are not finite numbers in single precision"
    ]


@pytest.mark.parametrize(("asked", "classes", "decided"), [
    (None, 7, KEEP), (None, 10, NEW), (None, 6, NEW), (KEEP, 7, KEEP), (NEW, 7, NEW), (NEW, 1000, NEW),
])  # fmt: skip
def test_the_last_layer_is_kept_where_it_fits(tmp_path: Path, asked: str | None, classes: int, decided: str) -> None:
    """Case C1: the rest of the model is always the file's."""
    weights, described = read_file(saved(tmp_path, zeros("x0_25", 7))).fit("x0_25", classes, asked)
    assert (described.head, described.classes) == (decided, 7)
    assert set(zeros("x0_25", 7)) - set(weights) == (set() if decided == KEEP else set(HEAD))


def test_a_file_without_a_last_layer_gets_a_new_one(tmp_path: Path) -> None:
    """Case C1: as a backbone is saved."""
    found = {name: values for name, values in zeros("x0_25", 7).items() if name not in HEAD}
    path = saved(tmp_path, found)
    weights, described = read_file(path).fit("x0_25", 10)
    assert (described.head, described.classes, list(weights)) == (NEW, 0, list(found))
    lines, _ = refused(path, "x0_25", 10, KEEP)
    assert lines[1:] == ["  fc.weight is missing", "  fc.bias is missing"]


def test_a_last_layer_that_must_be_kept_has_to_fit(tmp_path: Path) -> None:
    """Cases C1 and A3: no cure that leads to a top-1 of 0 without a condition."""
    lines, cure = refused(saved(tmp_path, zeros("x0_25", 1000)), "x0_25", 10, KEEP)
    assert lines == ["the last layer of the weights has 1,000 outputs, but this data has 10 classes"]
    assert cure == (
        "Give weights that were trained on this data's classes. A training can start that layer anew:"
        " --pretrained-head new.\nIf lists give the labels, and they count those 1,000 classes: --classes 1000."
    )


@pytest.mark.parametrize("broken", [
    {"fc.bias": np.ones((2, 2), "float32")},
    {"fc.weight": np.ones((7, 1280), "float32")},
    {"fc.weight": np.ones((1280, 8), "float32")},
])  # fmt: skip
def test_a_last_layer_of_another_shape_is_not_replaced_silently(tmp_path: Path, broken: Arrays) -> None:
    """Case C1: as other frameworks store it, rows and columns swapped."""
    path = saved(tmp_path, zeros("x0_25", 7) | broken)
    for classes in (7, 10):
        lines, _ = refused(path, "x0_25", classes)
        assert next(iter(broken)) in " ".join(lines)
    assert read_file(path).fit("x0_25", 10, NEW)[1].head == NEW


@pytest.mark.parametrize("prefix", [
    "Student.", "Teacher.", "student_model.", "model.", "module.", "backbone.", "_layers.", "module.model.",
    "_layers.Student.", "_orig_mod.", "some.other.",
])  # fmt: skip
def test_names_under_one_prefix_are_the_model_s(tmp_path: Path, prefix: str) -> None:
    """Case C5: as distillation and parallel training save them."""
    others = {"loss.weight": np.ones(3, "float32"), "Other.layer1.weight": np.ones(2, "float32")}
    path = saved(tmp_path, zeros("x0_25", 7, prefix) | others)
    weights, described = read_file(path).fit("x0_25", 7)
    assert list(weights) == list(zeros("x0_25", 7))
    assert described.prefix == prefix
    assert described.others == 2
    assert described.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_name_that_the_prefix_has_besides_the_model_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, zeros("x0_25", 7, "Student.") | {"Student.extra": np.ones(1, "float32")})
    assert refused(path, "x0_25", 7)[0][1:] == ["  'extra' is not part of the model"]


def test_a_prefix_that_some_names_lack_is_none(tmp_path: Path) -> None:
    found = zeros("x0_25", 7, "module.")
    found["conv1.bn.bias"] = found.pop("module.conv1.bn.bias")
    assert refused(saved(tmp_path, found), "x0_25", 7)[0][1] == "  conv1.conv.weight is missing"


@pytest.mark.parametrize(("prefixes", "listed", "command"), [
    (("Student.", "Teacher."), "'Student.' and 'Teacher.'", ["student.pdparams", "--prefix", "Student."]),
    (("", "ema."), "the model's own names and 'ema.'", ["model.pdparams", "--prefix", ""]),
    (("a.b.", "a."), "'a.' and 'a.b.'", ["a.pdparams", "--prefix", "a."]),
])  # fmt: skip
def test_two_models_in_a_file_are_a_question(
    tmp_path: Path, prefixes: tuple[str, str], listed: str, command: list[str]
) -> None:
    """Case C5: also where only one of them has the size that was asked for."""
    found = zeros("x0_25", 7, prefixes[0]) | {
        name: values + 1 for name, values in zeros("x0_5", 7, prefixes[1]).items()
    }
    path = saved(tmp_path, found)
    lines, cure = refused(path, "x0_25", 7)
    assert lines == [f"{str(path)!r} holds 2 models, with names that begin with {listed}"]
    words = shlex.split(cure.partition(": ")[2])
    assert words == ["python", "run_bench.py", "export", str(path), *command]
    for prefix, size, value in zip(prefixes, ("x0_25", "x0_5"), (0, 1), strict=True):
        own, _ = of_one_model(found, path, prefix.removesuffix("."))
        assert recognise(own) == (size, 7)
        assert {float(values.max(initial=value)) for values in own.values()} == {float(value)}
    with pytest.raises(WeightsError, match=r"holds no whole model with names that begin with 'Student2\.'") as caught:
        of_one_model(found, path, "Student2")
    assert caught.value.cure == f"It holds one for each of: {listed}."
