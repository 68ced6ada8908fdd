"""Checks of Paddle and its devices: what it offers, whether each device computes, and whether training is right."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from harness.doctor.check import FAIL, OK, WARN, Context, Finding, devices_of, skip
from harness.doctor.isolation import Isolated
from harness.machine.device_kinds import CPU, GPU, device_kind

DEVICE_SECONDS = 40.0  # Paddle takes some of them to load, all devices at once
MATRIX_SIDE = 2048
ALLOCATED_BYTES = 256 * 2**20

# Of `training_losses` on a CPU (x86-64, AVX2). One thread and two, and Paddle's matrix products with MKL's SSE2 kernels
# and its AVX2 ones, differ in them by at most 3e-7; the fourth step would differ by 3e-6, as training amplifies it.
STORED_LOSSES = (2.275374, 2.096319, 1.789538)
CPU_TOLERANCE = 1e-4
# Accelerators round the factors of products to 11 bits (TF32) or sum in other orders.
ACCELERATOR_TOLERANCE = 2e-2
BATCH, SIDE_PIXELS, CLASSES, LEARNING_RATE, SEED = 8, 64, 10, 0.01, 7


def paddle_loads(context: Context) -> Finding:
    """Paddle loads, and offers the kind of device that a run would take."""
    devices = devices_of(context)
    paddle = import_paddle()
    there = [name.partition(":")[0] for name in paddle.device.get_available_custom_device()]
    offered = {CPU.name: 1, GPU.name: paddle.device.cuda.device_count(), **{name: there.count(name) for name in there}}
    shown = ", ".join(
        f"{count} x {name}" if device_kind(name).selection else name for name, count in offered.items() if count
    )
    found = f"Paddle {paddle.__version__} with {shown}"
    expected = f"{devices.count} x {devices.name}"
    wanted = 1 if device_kind(devices.kind).on_host else devices.count
    if offered.get(devices.kind, 0) < wanted:
        return Finding(
            FAIL,
            found,
            expected,
            f"a run would take {expected}, which Paddle doesn't offer",
            "python -c 'import paddle; paddle.utils.run_check()' prints Paddle's reason; docs/devices.md says what to"
            " install",
        )
    return Finding(OK, found, expected)


def each_device(context: Context) -> Finding:
    """Each GPU or plugin device allocates memory and multiplies matrices, in a process for each."""
    devices = devices_of(context)
    if device_kind(devices.kind).on_host:
        return skip("a run would train on the CPU here: there is no GPU or plugin device to try")
    with ExitStack() as stack:
        tried = [
            stack.enter_context(
                Isolated(one_device, context, DEVICE_SECONDS, options={"kind": devices.kind, "number": number})
            )
            for number in range(devices.count)
        ]
        found = [running.finding() for running in tried]
    wrong = [(number, one) for number, one in enumerate(found) if one.status != OK]
    if not wrong:
        return Finding(OK, f"{devices.count} x {devices.name}: {found[0].found}", found[0].expected)
    number, first = wrong[0]
    return Finding(
        max((one.status for _, one in wrong), key=(OK, WARN, FAIL).index),
        "; ".join(f"{devices.kind}:{number}: {one.found or one.reason}" for number, one in wrong),
        first.expected or "finite products on each device",
        first.reason,
        f"{first.cure or 'restart the driver or the machine'}; or leave {devices.kind}:{number} out with"
        f" {device_kind(devices.kind).selection}",
    )


def one_device(_: Context, kind: str, number: int) -> Finding:
    """One device allocates 256 MiB and multiplies two matrices of 2048 x 2048."""
    paddle = import_paddle()
    paddle.device.set_device(f"{kind}:{number}")
    expected = f"{ALLOCATED_BYTES // 2**20} MiB allocated, a finite product of {MATRIX_SIDE} x {MATRIX_SIDE}"
    kept = paddle.ones([ALLOCATED_BYTES // 4], dtype="float32")
    random = np.random.default_rng(SEED)
    factors = random.standard_normal((2, MATRIX_SIDE, MATRIX_SIDE)).astype(np.float32)
    began = time.monotonic()
    product = paddle.matmul(paddle.to_tensor(factors[0]), paddle.to_tensor(factors[1])).numpy()
    seconds = time.monotonic() - began
    total = float(kept.sum().item())
    del kept
    error = float(np.abs(product[:8] - factors[0][:8] @ factors[1]).max()) if np.isfinite(product).all() else np.inf
    if total != ALLOCATED_BYTES / 4 or not error < 1.0:
        return Finding(FAIL, f"largest error {error:g}, sum of ones {total:g}", expected, "the device computes wrongly")
    return Finding(OK, f"allocates and multiplies, {seconds:.2f} s", expected)


def training_step(context: Context) -> Finding:
    """Three training steps of PP-LCNet x0_25 give the stored losses."""
    devices = devices_of(context)
    kind = device_kind(devices.kind)
    paddle = import_paddle()
    paddle.device.set_device(kind.name if kind.on_host else f"{kind.name}:0")
    return judge_losses(training_losses(), CPU_TOLERANCE if kind.on_host else ACCELERATOR_TOLERANCE)


def judge_losses(losses: Sequence[float], tolerance: float, stored: Sequence[float] = STORED_LOSSES) -> Finding:
    """Returns the finding for these losses, which may differ from the stored ones by this share of them."""
    off = [abs(loss - right) / right for loss, right in zip(losses, stored, strict=True)]
    found = " ".join(f"{loss:.6f}" for loss in losses)
    expected = f"{' '.join(f'{loss:.6f}' for loss in stored)} within {tolerance:g}"
    # Not a number compares as false.
    if all(share <= tolerance for share in off):
        return Finding(OK, f"losses {found}, {max(off):.0e} off", expected)
    return Finding(
        FAIL,
        f"losses {found}",
        expected,
        "this build of Paddle computes the network wrongly on this device, or numpy draws other numbers",
        "make install (the locked versions); then try another device: --device cpu",
    )


def training_losses() -> list[float]:
    """Returns the losses of three steps on Paddle's current device; nothing of them is left to Paddle's generators."""
    import paddle
    import paddle.nn.functional as F  # noqa: N812

    from models.pplcnet import PPLCNet

    random = np.random.default_rng(SEED)
    model = PPLCNet(0.25, CLASSES, dropout=0.0)
    for name, tensor in sorted(model.state_dict().items()):
        tensor.set_value(_initial(name, tuple(tensor.shape), random))
    images = paddle.to_tensor(random.standard_normal((BATCH, 3, SIDE_PIXELS, SIDE_PIXELS)).astype(np.float32))
    labels = paddle.to_tensor(random.integers(0, CLASSES, BATCH))
    optimizer = paddle.optimizer.Momentum(LEARNING_RATE, 0.9, parameters=model.parameters())
    model.train()
    losses = []
    for _ in STORED_LOSSES:
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append(float(loss.item()))
    return losses


def _initial(name: str, shape: tuple[int, ...], random: np.random.Generator) -> Any:
    if name.endswith(("bn.weight", "_variance")):
        return np.ones(shape, np.float32)
    if len(shape) == 1:
        return np.zeros(shape, np.float32)
    fan_in = np.prod(shape[1:]) if len(shape) == 4 else shape[0]
    return (random.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)


def import_paddle() -> Any:
    """Returns Paddle, imported without the warnings that it may give."""
    with warnings.catch_warnings():
        # Such as that it found no ccache.
        warnings.simplefilter("ignore")
        import paddle
    return paddle
