"""Exports networks for inference, in a process of its own: each size once, with the logits that it must give."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.analysis.latency.job import read_job
from harness.latency.engines import INPUT
from harness.latency.folder import Folder
from models.weights import read_weights


def export_models(path: str) -> None:
    """Write each size of the job in the folder: `<size>.json` and `<size>.pdiparams`, its images and its logits.

    The logits are those of the network as it is trained, in single precision on the CPU.
    """
    import paddle

    from models import build

    folder = Folder(Path(path))
    job = read_job(folder.job)
    paddle.set_device("cpu")
    images = np.random.default_rng(job.seed).standard_normal(job.shape, dtype=np.float32)
    np.save(folder.images, images)
    for size in job.sizes:
        paddle.seed(job.seed)
        network = build(size, job.num_classes, strides=job.strides)
        if job.has_weights:
            given, _ = read_weights(folder.weights)
            network.set_state_dict({name: paddle.to_tensor(values) for name, values in given.items()})
        network.eval()
        with paddle.no_grad():
            np.save(folder.logits(size), network(paddle.to_tensor(images)).numpy())
        spec = paddle.static.InputSpec(list(job.shape), "float32", INPUT)
        paddle.jit.save(network, str(folder.path / size), input_spec=[spec])
