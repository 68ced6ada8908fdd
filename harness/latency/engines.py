"""What can run the network: how each engine opens an exported model, and what it needs. Nothing is loaded before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.analysis.latency.job import Job
from harness.machine.device_kinds import CPU, GPU

Images = npt.NDArray[np.float32]
# Images [N, 3, H, W] in the host's memory to logits [N, classes] there: what a caller waits for, copies included.
Predict = Callable[[Images], Images]

# The largest difference of a logit from the trained network's, as a share of the largest logit. In single precision
# engines add up in another order, which differs by some 1e-6; GPUs may round the factors of products to 11 bits (TF32).
SINGLE_TOLERANCE, TF32_TOLERANCE = 1e-4, 2e-2
INPUT = "image"
GPU_POOL_MEGABYTES = 256
# Of the ONNX standard; Paddle's converter raises it where an operator needs it.
ONNX_OPSET = 13
NO_TOOL = "none"


@dataclass(frozen=True, slots=True)
class Engine:
    """One way of running the network.

    name is what --engine takes, title what it is, device the name of the kind of device that it runs on. modules must
    be importable, install is the command that brings them; none of both for Paddle's own. prints_kernels: it runs
    oneDNN's kernels, or would if they weren't disabled, so that oneDNN prints them on request. open loads the exported
    model of a size from a folder; it raises whatever its library raises.
    """

    name: str
    title: str
    device: str
    open: Callable[[Path, str, Job], Predict]
    modules: tuple[str, ...] = ()
    install: str = ""
    tolerance: float = SINGLE_TOLERANCE
    prints_kernels: bool = False

    @property
    def missing(self) -> list[str]:
        """The modules that aren't installed."""
        return [name for name in self.modules if find_spec(name) is None]


def _paddle_config(model: Path) -> Any:
    import paddle.inference as inference

    config = inference.Config(f"{model}.json", f"{model}.pdiparams")
    config.disable_glog_info()
    return config


def _paddle_predict(config: Any) -> Predict:
    import paddle.inference as inference

    predictor = inference.create_predictor(config)
    image = predictor.get_input_handle(predictor.get_input_names()[0])
    logits = predictor.get_output_handle(predictor.get_output_names()[0])

    def predict(images: Images) -> Images:
        image.copy_from_cpu(images)
        predictor.run()
        found: Images = logits.copy_to_cpu()
        return found

    return predict


def _paddle_on_host(folder: Path, size: str, job: Job, *, onednn: bool) -> Predict:
    config = _paddle_config(folder / size)
    config.disable_gpu()
    config.set_cpu_math_library_num_threads(job.threads)
    # Paddle 3.3 uses oneDNN unless it is told not to; versions before 3.2 know it by its former name only.
    switch, state = ("enable" if onednn else "disable"), "enabled"
    name = "onednn" if hasattr(config, "enable_onednn") else "mkldnn"
    getattr(config, f"{switch}_{name}")()
    if getattr(config, f"{name}_{state}")() != onednn:
        raise RuntimeError(f"Paddle doesn't {switch} oneDNN on this machine")
    if (threads := config.cpu_math_library_num_threads()) != job.threads:
        raise RuntimeError(f"Paddle uses {threads} threads instead of {job.threads}")
    return _paddle_predict(config)


def _paddle_onednn(folder: Path, size: str, job: Job) -> Predict:
    return _paddle_on_host(folder, size, job, onednn=True)


def _paddle_plain(folder: Path, size: str, job: Job) -> Predict:
    return _paddle_on_host(folder, size, job, onednn=False)


def _paddle_cuda(folder: Path, size: str, _: Job) -> Predict:
    config = _paddle_config(folder / size)
    config.enable_use_gpu(GPU_POOL_MEGABYTES, 0)
    if not config.use_gpu():
        raise RuntimeError("Paddle doesn't use the GPU")
    return _paddle_predict(config)


def _paddle_tensorrt(folder: Path, size: str, job: Job) -> Predict:
    """Convert the model as Paddle's guide to TensorRT with its new representation (PIR) has it, and open the result."""
    import paddle
    from paddle.tensorrt.export import Input, TensorRTConfig

    inputs = Input(min_input_shape=job.shape, optim_input_shape=job.shape, max_input_shape=job.shape, name=INPUT)
    converted = folder / f"{size}-tensorrt"
    settings = TensorRTConfig(inputs=[inputs])
    settings.save_model_dir = str(converted)
    paddle.tensorrt.convert(str(folder / size), settings)
    config = _paddle_config(converted)
    config.enable_use_gpu(GPU_POOL_MEGABYTES, 0)
    return _paddle_predict(config)


def _onnx(folder: Path, size: str) -> str:
    """Returns the path of the model that Paddle's converter makes for ONNX."""
    import paddle2onnx

    target = folder / f"{size}.onnx"
    if not target.exists():
        model = folder / size
        # Its usual tool for folding constants, polygraphy, would install what it lacks into this environment. Engines
        # fold them anyway.
        paddle2onnx.export(
            f"{model}.json", f"{model}.pdiparams", str(target), opset_version=ONNX_OPSET, optimize_tool=NO_TOOL
        )
    return str(target)


def _onnxruntime(folder: Path, size: str, job: Job) -> Predict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = job.threads, 1
    session = onnxruntime.InferenceSession(_onnx(folder, size), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def predict(images: Images) -> Images:
        found: Images = session.run(None, {name: images})[0]
        return found

    return predict


def _openvino(folder: Path, size: str, job: Job) -> Predict:
    import openvino

    core = openvino.Core()
    # Where the processor has bfloat16 OpenVINO would compute in it, which is another job.
    settings = {
        "INFERENCE_NUM_THREADS": job.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    request = core.compile_model(_onnx(folder, size), "CPU", settings).create_infer_request()

    def predict(images: Images) -> Images:
        request.infer({0: images}, share_inputs=True)
        found: Images = np.array(request.get_output_tensor(0).data)
        return found

    return predict


PADDLE_ONEDNN, PADDLE_CUDA = "paddle-onednn", "paddle-cuda"
_BY_ONNX = "paddle2onnx"

ENGINES = {
    engine.name: engine
    for engine in (
        Engine(PADDLE_ONEDNN, "Paddle Inference with oneDNN", CPU.name, _paddle_onednn, prints_kernels=True),
        Engine("paddle", "Paddle Inference without oneDNN", CPU.name, _paddle_plain, prints_kernels=True),
        Engine(
            "onnxruntime", "ONNX Runtime", CPU.name, _onnxruntime,
            (_BY_ONNX, "onnxruntime"), f"pip install {_BY_ONNX} onnxruntime",
        ),
        Engine(
            "openvino", "OpenVINO", CPU.name, _openvino, (_BY_ONNX, "openvino"), f"pip install {_BY_ONNX} openvino"
        ),
        Engine(PADDLE_CUDA, "Paddle Inference on CUDA", GPU.name, _paddle_cuda, tolerance=TF32_TOLERANCE),
        Engine(
            "paddle-tensorrt", "Paddle Inference with TensorRT", GPU.name, _paddle_tensorrt,
            ("tensorrt",), "pip install tensorrt", TF32_TOLERANCE,
        ),
    )
}  # fmt: skip
# What --engine is without it.
USUAL = {CPU.name: PADDLE_ONEDNN, GPU.name: PADDLE_CUDA}


def engines_for(device: str) -> list[Engine]:
    """Returns the engines of a kind of device, the usual one first."""
    return [engine for engine in ENGINES.values() if engine.device == device]
