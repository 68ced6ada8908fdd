"""Engines: what each asks of its library, and that Paddle's own give the trained network's logits."""

from __future__ import annotations

import gc
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.analysis.latency.job import Job, write_job
from harness.analysis.latency.kernels import CALL_MARK
from harness.latency.engines import ENGINES, SINGLE_TOLERANCE, USUAL, engines_for
from harness.latency.exporting import export_models
from harness.latency.folder import Folder
from harness.latency.worker import Worker
from models.weights import encode_weights
from tests.support.published import shapes

JOB = Job(("x0_25",), ("paddle-onednn", "paddle"), "cpu", image_size=32, num_classes=5, batch_size=2)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A small network, exported for two images of 32 pixels."""
    folder = Folder(tmp_path_factory.mktemp("exported"))
    write_job(folder.job, JOB)
    export_models(str(folder.path))
    return folder


@pytest.fixture
def collecting() -> Iterator[None]:
    """A worker leaves garbage alone; here it is collected again."""
    yield
    gc.unfreeze()
    gc.enable()


def test_every_kind_of_device_has_a_usual_engine() -> None:
    for device, engine in USUAL.items():
        assert engines_for(device)[0].name == engine
        assert ENGINES[engine].missing == []
    assert [engine.name for engine in engines_for("gpu")] == ["paddle-cuda", "paddle-tensorrt"]


def test_what_is_not_installed_is_missing() -> None:
    engine = replace(ENGINES["onnxruntime"], modules=("json", "no_such_module_at_all"))
    assert engine.missing == ["no_such_module_at_all"]


def test_what_is_exported(exported: Folder) -> None:
    names = {path.name for path in exported.path.iterdir()}
    assert names >= {"x0_25.json", "x0_25.pdiparams", "images.npy", "x0_25.logits.npy", "orders.json"}
    assert np.load(exported.images).shape == (2, 3, 32, 32)
    assert np.load(exported.logits("x0_25")).shape == (2, 5)


@pytest.mark.usefixtures("collecting")
@pytest.mark.parametrize("name", ["paddle-onednn", "paddle"])
def test_paddles_engines_give_the_trained_networks_logits(
    exported: Folder, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    worker = Worker(name, exported)
    assert worker.answer({"do": "load", "size": "x0_25"})["error"] < SINGLE_TOLERANCE
    timed = worker.answer({"do": "time", "size": "x0_25", "seconds": 0.0, "min_calls": 3})
    assert len(timed["milliseconds"]) == 3
    assert 0 <= timed["error"] < SINGLE_TOLERANCE
    profiled = worker.answer({"do": "profile", "size": "x0_25", "calls": 2})
    assert len(profiled["milliseconds"]) == 2
    assert capfd.readouterr().out.count(CALL_MARK) == 2


@pytest.mark.usefixtures("collecting")
def test_another_networks_logits_are_refused(exported: Folder) -> None:
    logits = np.load(exported.logits("x0_25"))
    try:
        np.save(exported.logits("x0_25"), logits[:, ::-1])
        with pytest.raises(Exception, match="logits differ"):
            Worker("paddle", exported).answer({"do": "load", "size": "x0_25"})
    finally:
        np.save(exported.logits("x0_25"), logits)


def test_given_weights_are_those_that_are_exported(tmp_path: Path) -> None:
    """With weights of zero every logit is the last layer's bias."""
    folder = Folder(tmp_path)
    arrays = {name: np.zeros(sides, np.float32) for name, sides in shapes("x0_25", 3).items()}
    arrays["fc.bias"] = np.array([1.0, 2.0, -3.0], np.float32)
    folder.weights.write_bytes(encode_weights(folder.weights, arrays, {}))
    write_job(folder.job, replace(JOB, num_classes=3, has_weights=True, batch_size=1))
    export_models(str(tmp_path))
    assert np.load(folder.logits("x0_25")).tolist() == [[1.0, 2.0, -3.0]]


class Config:
    """Paddle's configuration of a predictor, which keeps what it is asked; onednn is how it then answers."""

    def __init__(self, *files: str) -> None:
        self.files, self.onednn, self.threads, self.gpu = files, False, 0, True
        self.asked: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        if name in ("enable_onednn", "disable_onednn", "disable_gpu", "disable_glog_info", "enable_use_gpu"):
            return lambda *values: self.asked.append((name, *values))
        raise AttributeError(name)

    def onednn_enabled(self) -> bool:
        return self.onednn

    def set_cpu_math_library_num_threads(self, threads: int) -> None:
        self.asked.append(("threads", threads))

    def cpu_math_library_num_threads(self) -> int:
        return self.threads

    def use_gpu(self) -> bool:
        return self.gpu


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Config:
    import paddle.inference

    made = Config()

    def make(*files: str) -> Config:
        made.files = files
        return made

    monkeypatch.setattr(paddle.inference, "Config", make)
    handle = SimpleNamespace(copy_from_cpu=lambda images: None, copy_to_cpu=lambda: np.ones((1, 5), np.float32))
    predictor = SimpleNamespace(
        get_input_names=lambda: ["image"], get_output_names=lambda: ["logits"], run=lambda: None,
        get_input_handle=lambda name: handle, get_output_handle=lambda name: handle,
    )  # fmt: skip
    monkeypatch.setattr(paddle.inference, "create_predictor", lambda _: predictor)
    return made


def test_a_setting_that_paddle_does_not_take_fails(config: Config, tmp_path: Path) -> None:
    config.threads = 1
    with pytest.raises(RuntimeError, match="Paddle doesn't enable oneDNN"):
        ENGINES["paddle-onednn"].open(tmp_path, "x1_0", JOB)
    config.onednn = True
    with pytest.raises(RuntimeError, match="Paddle doesn't disable oneDNN"):
        ENGINES["paddle"].open(tmp_path, "x1_0", JOB)
    with pytest.raises(RuntimeError, match="Paddle uses 1 threads instead of 2"):
        ENGINES["paddle-onednn"].open(tmp_path, "x1_0", replace(JOB, threads=2))
    assert ("threads", 2) in config.asked
    assert config.files == (f"{tmp_path}/x1_0.json", f"{tmp_path}/x1_0.pdiparams")


def test_a_gpu_is_used_or_it_fails(config: Config, tmp_path: Path) -> None:
    predict = ENGINES["paddle-cuda"].open(tmp_path, "x1_0", JOB)
    assert predict(np.zeros((1, 3, 32, 32), np.float32)).tolist() == [[1.0] * 5]
    assert ("enable_use_gpu", 256, 0) in config.asked
    config.gpu = False
    with pytest.raises(RuntimeError, match="Paddle doesn't use the GPU"):
        ENGINES["paddle-cuda"].open(tmp_path, "x1_0", JOB)


def test_tensorrt_converts_for_the_shape_of_a_call(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import paddle

    made: dict[str, Any] = {}
    export = SimpleNamespace(
        Input=lambda **values: values, TensorRTConfig=lambda inputs: SimpleNamespace(inputs=inputs)
    )
    tensorrt = SimpleNamespace(export=export, convert=lambda path, settings: made.update(path=path, settings=settings))
    monkeypatch.setattr(paddle, "tensorrt", tensorrt, raising=False)
    monkeypatch.setitem(sys.modules, "paddle.tensorrt", tensorrt)
    monkeypatch.setitem(sys.modules, "paddle.tensorrt.export", export)
    ENGINES["paddle-tensorrt"].open(tmp_path, "x1_0", JOB)
    (inputs,) = made["settings"].inputs
    assert made["path"] == f"{tmp_path}/x1_0"
    assert inputs == {"min_input_shape": (2, 3, 32, 32), "optim_input_shape": (2, 3, 32, 32),
                      "max_input_shape": (2, 3, 32, 32), "name": "image"}  # fmt: skip
    assert config.files == (f"{tmp_path}/x1_0-tensorrt.json", f"{tmp_path}/x1_0-tensorrt.pdiparams")


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Paddle's converter for ONNX, which writes an empty file and keeps what it is asked."""
    asked: list[tuple[Any, ...]] = []

    def export(model: str, weights: str, target: str, **more: Any) -> None:
        asked.append((model, weights, target, more))
        Path(target).touch()

    monkeypatch.setitem(sys.modules, "paddle2onnx", SimpleNamespace(export=export))
    return asked


def test_onnx_runtime_gets_threads_of_one_call_alone(
    converted: list[tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, Any] = {}
    session = SimpleNamespace(
        get_inputs=lambda: [SimpleNamespace(name="image")], run=lambda outputs, inputs: [inputs["image"][:, 0, 0, :1]]
    )

    def open_session(path: str, options: Any, providers: list[str]) -> Any:
        made.update(path=path, options=options, providers=providers)
        return session

    library = SimpleNamespace(SessionOptions=SimpleNamespace, InferenceSession=open_session)
    monkeypatch.setitem(sys.modules, "onnxruntime", library)
    predict = ENGINES["onnxruntime"].open(tmp_path, "x1_0", replace(JOB, threads=2))
    assert predict(np.full((1, 3, 2, 2), 7.0, np.float32)).tolist() == [[7.0]]
    assert (made["options"].intra_op_num_threads, made["options"].inter_op_num_threads) == (2, 1)
    assert (made["path"], made["providers"]) == (f"{tmp_path}/x1_0.onnx", ["CPUExecutionProvider"])
    ENGINES["onnxruntime"].open(tmp_path, "x1_0", JOB)
    ((model, weights, target, more),) = converted
    assert (model, weights, target) == tuple(f"{tmp_path}/x1_0{end}" for end in (".json", ".pdiparams", ".onnx"))
    # Its default would install packages into the user's environment.
    assert more["optimize_tool"] == "none"


def test_openvino_computes_in_single_precision(
    converted: list[tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, Any] = {}
    given: list[Any] = []
    request = SimpleNamespace(
        infer=lambda inputs, share_inputs: given.append((inputs[0].shape, share_inputs)),
        get_output_tensor=lambda number: SimpleNamespace(data=np.ones((1, 5), np.float32)),
    )

    def compile_model(path: str, device: str, settings: dict[str, Any]) -> Any:
        made.update(path=path, device=device, settings=settings)
        return SimpleNamespace(create_infer_request=lambda: request)

    core = SimpleNamespace(compile_model=compile_model)
    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(Core=lambda: core))
    predict = ENGINES["openvino"].open(tmp_path, "x1_0", replace(JOB, threads=2))
    assert predict(np.zeros((1, 3, 2, 2), np.float32)).tolist() == [[1.0] * 5]
    assert given == [((1, 3, 2, 2), True)]
    assert (made["path"], made["device"]) == (f"{tmp_path}/x1_0.onnx", "CPU")
    assert made["settings"]["INFERENCE_PRECISION_HINT"] == "f32"
    assert (made["settings"]["INFERENCE_NUM_THREADS"], made["settings"]["NUM_STREAMS"]) == (2, 1)


@pytest.mark.usefixtures("collecting")
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_peers_give_the_trained_networks_logits_where_they_are_installed(exported: Folder, name: str) -> None:
    if ENGINES[name].missing or importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} isn't installed: {ENGINES[name].install}")
    assert Worker(name, exported).answer({"do": "load", "size": "x0_25"})["error"] < SINGLE_TOLERANCE
