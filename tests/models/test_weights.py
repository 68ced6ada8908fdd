"""Files of weights: what Paddle and others write is read to the bit, and everything else is named and refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import paddle
import pytest
import safetensors.numpy
from safetensors import safe_open

import models
from harness import ROOT
from models.errors import WeightsError
from models.fitting import fit
from models.pplcnet import PPLCNet
from models.weights import encode_weights, read_weights

Arrays = dict[str, npt.NDArray[Any]]


@pytest.fixture(scope="module")
def model() -> PPLCNet:
    """x0_25 with 10 classes, with statistics that are not 0 and 1."""
    paddle.seed(5)
    made = models.build("x0_25", 10)
    generator = np.random.default_rng(1)
    for name, values in made.state_dict().items():
        if name.endswith(("_mean", "_variance")):
            values.set_value(generator.uniform(0.5, 1.5, values.shape).astype("float32"))
    made.eval()
    return made


@pytest.fixture(scope="module")
def weights(model: PPLCNet) -> Arrays:
    return {name: values.numpy() for name, values in model.state_dict().items()}


def logits(model: PPLCNet) -> npt.NDArray[Any]:
    model.eval()
    images = np.random.default_rng(2).normal(size=(2, 3, 32, 32)).astype("float32")
    with paddle.no_grad():
        computed: npt.NDArray[Any] = model(paddle.to_tensor(images)).numpy()
    return computed


def assert_same(found: Arrays, wanted: Arrays) -> None:
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        assert found[name].dtype == np.float32
        assert found[name].shape == values.shape
        assert found[name].tobytes() == values.tobytes(), name


def refused(path: Path) -> tuple[str, str]:
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    return caught.value.message.removeprefix(f"{str(path)!r} "), caught.value.cure


@pytest.mark.parametrize("suffix", [".pdparams", ".safetensors"])
def test_weights_come_back_to_the_bit_and_answer_the_same(
    tmp_path: Path, model: PPLCNet, weights: Arrays, suffix: str
) -> None:
    path = tmp_path / f"some{suffix}"
    path.write_bytes(encode_weights(path, weights, {"model": "x0_25"}))
    found = fit(read_weights(path)[0], "x0_25", 10)
    assert list(found) == list(weights)
    assert_same(found, weights)
    other = models.build("x0_25", 10)
    assert not np.array_equal(logits(other), logits(model))
    assert other.set_state_dict({name: paddle.to_tensor(values) for name, values in found.items()}) == ([], [])
    np.testing.assert_array_equal(logits(other), logits(model))


def test_paddle_loads_what_is_written(tmp_path: Path, model: PPLCNet, weights: Arrays) -> None:
    path = tmp_path / "some.pdparams"
    path.write_bytes(encode_weights(path, weights, {}))
    loaded = paddle.load(str(path))
    assert list(loaded) == list(weights)
    other = models.build("x0_25", 10)
    assert other.set_state_dict(loaded) == ([], [])
    np.testing.assert_array_equal(logits(other), logits(model))


def test_safetensors_has_the_metadata(tmp_path: Path, weights: Arrays) -> None:
    path = tmp_path / "some.safetensors"
    path.write_bytes(encode_weights(path, weights, {"model": "x0_25", "top1": "0.7"}))
    with safe_open(path, "np") as stream:
        assert stream.metadata() == {"model": "x0_25", "top1": "0.7"}
    assert_same(safetensors.numpy.load_file(path), weights)


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("kind", ["state_dict", "arrays", "tuples"])
def test_what_paddle_saves_is_read(tmp_path: Path, model: PPLCNet, weights: Arrays, protocol: int, kind: str) -> None:
    path = tmp_path / "some.pdparams"
    if kind == "state_dict":
        paddle.save(model.state_dict(), str(path), protocol=protocol)
        assert b"StructuredToParameterName@@" in path.read_bytes()
    elif kind == "arrays":
        paddle.save(weights, str(path), protocol=protocol)
    else:
        # As tensors are pickled where they are in a dictionary of a dictionary.
        tuples = OrderedDict((name, (f"of {name}", values)) for name, values in weights.items())
        path.write_bytes(pickle.dumps(tuples, protocol))
    found = read_weights(path)[0]
    assert list(found) == list(weights)
    assert_same(found, weights)


def test_what_older_numpy_pickled_is_read(tmp_path: Path, weights: Arrays) -> None:
    data = pickle.dumps(weights, 2)
    assert b"numpy._core.multiarray" in data
    path = tmp_path / "old.pdparams"
    path.write_bytes(data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert_same(read_weights(path)[0], weights)


def test_arrays_in_any_layout_are_read(tmp_path: Path) -> None:
    wanted = np.arange(6, dtype="float32").reshape(2, 3)
    path = tmp_path / "some.pdparams"
    for protocol in (2, 3, 4, 5):
        path.write_bytes(pickle.dumps({"f": np.asfortranarray(wanted), "b": wanted.astype(">f4")}, protocol))
        found = read_weights(path)[0]
        assert_same(found, {"f": wanted, "b": wanted})
        assert found["f"].flags.writeable


def test_the_content_says_what_a_file_is(tmp_path: Path, weights: Arrays) -> None:
    misnamed = tmp_path / "some.pdparams"
    misnamed.write_bytes(safetensors.numpy.save(weights))
    assert_same(read_weights(misnamed)[0], weights)


def test_half_and_double_precision_become_single(tmp_path: Path) -> None:
    exact = np.array([1.5, -0.25, 65504.0, 2.0**-24], dtype="float32")
    path = tmp_path / "some.pdparams"
    for kind in ("float16", "float64", "float32"):
        for data in (pickle.dumps({"a": exact.astype(kind)}, 4), safetensors.numpy.save({"a": exact.astype(kind)})):
            path.write_bytes(data)
            assert_same(read_weights(path)[0], {"a": exact})


def test_bfloat16_becomes_single(tmp_path: Path) -> None:
    exact = np.array([1.5, -0.25, 2.0**100, 2.0**-130], dtype="float32")
    path = tmp_path / "some.pdparams"
    paddle.save({"a": paddle.to_tensor(exact).astype("bfloat16")}, str(path))
    assert pickle.loads(path.read_bytes())["a"].dtype == np.uint16
    assert_same(read_weights(path)[0], {"a": exact})
    halves = (exact.view(np.uint32) >> 16).astype(np.uint16)
    header = json.dumps({"a": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + halves.tobytes())
    assert_same(read_weights(path)[0], {"a": exact})


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.array([1, 2]), "has 'a' as int64; weights are floating point"),
        (np.array([True]), "has 'a' as bool; weights are floating point"),
        (np.array([1], dtype="uint32"), "has 'a' as uint32; weights are floating point"),
        (np.array([1j]), "has an array of kind 'c16', not of numbers"),
        (np.array(["x"]), "has an array of kind 'U1', not of numbers"),
        (np.array([1e300]), "has values in 'a' that are not finite numbers in single precision"),
        (np.array([1, np.nan]), "has values in 'a' that are not finite numbers in single precision"),
        (np.array([1, np.inf], "float32"), "has values in 'a' that are not finite numbers in single precision"),
    ],
)
def test_what_are_no_weights_is_refused(tmp_path: Path, values: npt.NDArray[Any], told: str) -> None:
    path = tmp_path / "some.pdparams"
    path.write_bytes(pickle.dumps({"fine": np.ones(1), "a": values, "z": np.array([np.nan])}, 4))
    message, cure = refused(path)
    assert message == told
    assert "state_dict" in cure


def test_integers_in_safetensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    path.write_bytes(safetensors.numpy.save({"a": np.array([1], "uint16")}))
    assert refused(path)[0] == "has 'a' as U16; weights are F32, F16, BF16 or F64"


def archive(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as writer:
        writer.writestr(name, b"something")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is empty"),
        (b"random bytes", "begins like neither .pdparams nor .safetensors"),
        (archive("x.txt"), "is a zip archive"),
        (archive("net/data.pkl"), "is PyTorch's, which has other names for a model's weights"),
        (
            pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2),
            "is PyTorch's, which has other names for a model's weights",
        ),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "is HDF5, as Keras writes it"),
        (b"\x1f\x8b\x08" + bytes(100), "is compressed by gzip"),
        (b"x" * 257 + b"ustar" + bytes(100), "is a tar archive"),
        (b"<!DOCTYPE html>", "is a web page, not a file of weights"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is only a placeholder for a file in Git LFS"),
        # As paddle.jit.save writes it.
        (bytes(16) + b"\x04\0\0\0\x08\x05\x10\x08", "belongs to a Paddle inference model, whose weights have no names"),
        (pickle.dumps({"a": 1}, 0), "begins like neither .pdparams nor .safetensors"),
    ],
)
def test_other_files_are_told_by_what_they_are(tmp_path: Path, data: bytes, told: str) -> None:
    for name in ("some.pdparams", "some.safetensors"):
        (tmp_path / name).write_bytes(data)
        message, cure = refused(tmp_path / name)
        assert message == told
        assert cure


@pytest.mark.parametrize("shape", [[1] * 65, [0, 2**62, 4], [0, 2**64 - 1]])
def test_shapes_that_no_array_has_are_refused(tmp_path: Path, shape: list[int]) -> None:
    size = 0 if 0 in shape else 4
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    path = tmp_path / "some.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))
    assert refused(path)[0].startswith("has 'a' in an impossible shape: ")


def test_damaged_safetensors_are_refused(tmp_path: Path) -> None:
    whole = safetensors.numpy.save({"a": np.ones((2, 3), "float32")})
    path = tmp_path / "some.safetensors"
    path.write_bytes(whole[:-1])
    assert refused(path)[0].startswith("is not a complete .safetensors: ")
    path.write_bytes(whole.replace(b"[2,3]", b"[9,9]"))
    assert refused(path)[0].startswith("is not a complete .safetensors: ")
    path.write_bytes((2**62).to_bytes(8, "little") + whole[8:])
    assert refused(path)[0] == "begins like neither .pdparams nor .safetensors"
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        refused(path)


def test_files_that_cannot_be_opened_are_told(tmp_path: Path) -> None:
    none = tmp_path / "none.pdparams"
    assert refused(none)[0] == f"can't read {str(none)!r}: No such file or directory"
    assert refused(tmp_path)[0] == f"can't read {str(tmp_path)!r}: Is a directory"
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe")[0] == "is not a regular file"
    assert refused(Path("/dev/zero"))[0] == "is not a regular file"
    huge = tmp_path / "huge.pdparams"
    with huge.open("wb") as stream:
        stream.truncate(2**31 + 1)
    assert refused(huge)[0] == "has 2,147,483,649 bytes; at most 2,147,483,648 are read"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "some.pdparams"
    path.touch(mode=0)
    assert refused(path)[0] == f"can't read {str(path)!r}: Permission denied"


@pytest.mark.parametrize("name", ["some", "some.pth", "some.PDPARAMS", ".pdparams"])
def test_another_ending_is_refused_with_the_two(tmp_path: Path, weights: Arrays, name: str) -> None:
    with pytest.raises(WeightsError) as caught:
        encode_weights(tmp_path / name, weights, {})
    assert caught.value.message == f"{str(tmp_path / name)!r} ends in neither .pdparams nor .safetensors"
    assert list(tmp_path.iterdir()) == []


def test_reading_weights_does_not_load_paddle(tmp_path: Path, weights: Arrays) -> None:
    for suffix in (".pdparams", ".safetensors"):
        (tmp_path / f"some{suffix}").write_bytes(encode_weights(tmp_path / f"some{suffix}", weights, {}))
    program = (
        "import json, sys; from pathlib import Path; from models.weights import read_weights\n"
        "[read_weights(Path(path)) for path in sys.argv[1:]]; print(json.dumps(sorted(sys.modules)))"
    )
    line = [sys.executable, "-c", program, *map(str, tmp_path.iterdir())]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert "models.weights" in loaded
    assert "paddle" not in loaded
