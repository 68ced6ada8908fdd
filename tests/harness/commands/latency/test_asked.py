"""What a command line of `latency` asks for, and what can't be measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness.commands.latency.asked
from harness.commands.latency.asked import Asked, Options, asked
from harness.errors import MachineError, UsageError
from harness.latency.engines import ENGINES, Engine
from harness.machine.device import Devices
from harness.machine.nvml import Gpu
from harness.report.latency import job_text
from models.errors import ActionableError
from models.flops import macs
from models.sizes import SIZES
from models.weights import encode_weights
from tests.support.published import shapes


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two cores and one GPU, on which every engine is installed."""
    module = harness.commands.latency.asked
    monkeypatch.setattr(module, "available_cores", lambda: 2)
    monkeypatch.setattr(module, "allowed_cores", lambda: frozenset({0, 1}))
    monkeypatch.setattr(Engine, "missing", property(lambda self: []))
    gpu = Devices("gpu", 1, "H100", (Gpu(0, "GPU-0", "H100", ""),))
    found = {"gpu": gpu, "cpu": Devices("cpu", 1, "CPU")}
    monkeypatch.setattr(module, "choose_devices", lambda name, count, environment: (found[name], ()))


def given(**options: Any) -> Asked:
    return asked(Options("results", **options), {})


def refused(**options: Any) -> ActionableError:
    with pytest.raises(ActionableError) as caught:
        given(**options)
    return caught.value


def weights_file(folder: Path, size: str, classes: int) -> str:
    path = folder / "weights.safetensors"
    arrays = {name: np.zeros(sides, np.float32) for name, sides in shapes(size, classes).items()}
    path.write_bytes(encode_weights(path, arrays, {}))
    return str(path)


def test_without_options_all_sizes_take_about_two_minutes_on_one_core() -> None:
    found = given()
    job = found.job
    assert (job.sizes, job.engines, job.device) == (tuple(SIZES), ("paddle-onednn",), "cpu")
    assert (job.threads, job.batch_size, job.image_size, job.num_classes, job.strides) == (1, 1, 224, 1000, "both")
    assert job.shape == (1, 3, 224, 224)
    assert (job.rounds, job.turn_seconds) == (20, 0.6)
    assert job.rounds * job.turn_seconds * len(job.pairs) == pytest.approx(96)
    assert len(job.cores) == 1
    assert (found.weights, found.origin, job.has_weights) == (None, "random weights", False)


def test_sizes_and_engines_are_given_with_commas() -> None:
    job = given(model="x1_0, x0_25", engine="paddle,paddle-onednn,paddle", threads=2, rounds=4, seconds=6.0).job
    assert job.sizes == ("x0_25", "x1_0")
    assert job.engines == ("paddle", "paddle-onednn")
    assert job.turn_seconds == 1.5
    assert job.cores == (0, 1)


def test_images_that_are_no_squares() -> None:
    job = given(image_size="80x160", batch_size=2, strides="height").job
    assert (job.image_size, job.shape, job.strides) == ("80x160", (2, 3, 80, 160), "height")
    assert job.macs("x0_25") == macs("x0_25", "80x160", 1000, "height")
    assert job_text(job).endswith("2 images of 80x160 px in a call, stages that halve the height alone")


def test_a_gpu_has_its_own_engines() -> None:
    found = given(device="gpu")
    assert (found.job.engines, found.job.device, found.devices.name) == (("paddle-cuda",), "gpu", "H100")


def test_all_engines_are_those_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given(engine="all").job.engines == ("paddle-onednn", "paddle", "onnxruntime", "openvino")
    monkeypatch.setattr(Engine, "missing", property(lambda self: list(self.modules)))
    assert given(engine="all").job.engines == ("paddle-onednn", "paddle")


def test_an_engine_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "missing", property(lambda self: list(self.modules)))
    error = refused(engine="paddle-onednn,openvino")
    assert isinstance(error, MachineError)
    assert error.message == "--engine openvino needs paddle2onnx and openvino"
    assert error.cure == "pip install paddle2onnx openvino"
    assert all(engine.install for engine in ENGINES.values() if engine.modules)


@pytest.mark.parametrize(
    ("options", "message", "cure"),
    [
        ({"model": "x9_9"}, "--model: unknown size 'x9_9'", "Known: x0_25, x0_35"),
        ({"engine": "tflite"}, "--engine: 'tflite' doesn't run on cpu", "Known: paddle-onednn, paddle, onnxruntime"),
        ({"engine": "paddle-cuda"}, "--engine: 'paddle-cuda' doesn't run on cpu", "all for those that are installed"),
        ({"device": "gpu", "engine": "paddle"}, "--engine: 'paddle' doesn't run on gpu", "paddle-cuda"),
        ({"device": "npu"}, "--device is 'npu'; networks are timed on cpu or gpu", "Name one."),
        ({"batch_size": 0}, "--batch-size is 0; it must be at least 1", ""),
        ({"image_size": 16}, "--image-size is 16; it must be at least 32", ""),
        ({"image_size": "80x16"}, "--image-size is 80x16; its width must be at least 32", ""),
        ({"strides": "width"}, "unknown strides 'width'", "Known: both, height."),
        ({"rounds": 0}, "--rounds is 0; it must be at least 1", ""),
        ({"seconds": 0.0}, "--seconds is 0.0; it must be above 0", ""),
        ({"seconds": float("inf")}, "--seconds is inf; it must be finite", ""),
        ({"threads": 0}, "--threads is 0; it must be at least 1", ""),
    ],
)
def test_what_can_not_be_asked_for(options: dict[str, Any], message: str, cure: str) -> None:
    error = refused(**options)
    assert isinstance(error, UsageError)
    assert message in error.message
    assert cure in error.cure


def test_more_threads_than_cores() -> None:
    error = refused(threads=3)
    assert isinstance(error, MachineError)
    assert (error.message, error.cure) == (
        "--threads 3: this process may use 2 cores, and each thread needs one", "--threads 2",
    )  # fmt: skip


def test_without_a_gpu_the_cure_is_this_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> Any:
        raise MachineError("1 GPU requested, 0 found", "--device cpu --gpus 1")

    monkeypatch.setattr(harness.commands.latency.asked, "choose_devices", none)
    error = refused(device="gpu")
    assert error.message == "1 GPU requested, 0 found"
    assert error.cure == "To time the processor's engines instead, omit --device."


def test_where_a_process_can_not_be_kept_on_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.commands.latency.asked, "can_pin", lambda: False)
    assert given().job.cores == ()


def test_weights_decide_the_size_and_its_classes(tmp_path: Path) -> None:
    found = given(weights=weights_file(tmp_path, "x0_35", 7))
    assert (found.job.sizes, found.job.num_classes, found.job.has_weights) == (("x0_35",), 7, True)
    assert found.origin.startswith("x0_35, 7 classes, ")
    assert given(weights=weights_file(tmp_path, "x0_35", 7), model="x0_35").job.sizes == ("x0_35",)


def test_weights_of_another_size(tmp_path: Path) -> None:
    error = refused(weights=weights_file(tmp_path, "x0_35", 7), model="x0_35,x1_0")
    assert (error.message, error.cure) == (
        "--weights are those of x0_35, not of x0_35, x1_0", "Omit --model, or: --model x0_35",
    )  # fmt: skip


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run 'first'"):
        asked(Options(str(tmp_path), weights="first"), {})
