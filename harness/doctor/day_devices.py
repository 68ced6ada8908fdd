"""Rows of the first GPU day that try the device itself: Paddle's own check, the interpreter's lock, the decoders."""

from __future__ import annotations

import contextlib
import hashlib
import io
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from harness.doctor.check import FAIL, OK, Context, Finding, devices_of
from harness.doctor.devices import import_paddle
from harness.doctor.isolation import Isolated
from harness.doctor.pipeline import MAX_GREY_LEVELS, decoded, write_sample
from harness.doctor.software import driver
from harness.machine.device import open_device
from harness.machine.device_kinds import device_kind
from pipelines.settings import CPU_DECODER, HW_DECODER_LOADS, MIXED_DECODER

TICK_SECONDS, MAX_GAP_SECONDS = 0.005, 0.05
# Products are short beside the gaps that are looked for.
GPU_SIDE, OTHER_SIDE, BUSY_SECONDS = 2048, 256, 2.0
MAX_TIME_DIFFERENCE = 0.01
DECODE_SECONDS = 50.0


def run_check(context: Context) -> Finding:
    """The driver fits, the packages agree, and Paddle's own check passes."""
    found_driver = driver(context)
    if found_driver.status == FAIL:
        return found_driver
    agree = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    no_pip = "No module named pip" in agree.stderr
    devices_of(context)
    paddle = import_paddle()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        paddle.utils.run_check()
    last = printed.getvalue().strip().splitlines()[-1:]
    passed = any("successfully" in line for line in printed.getvalue().splitlines())
    pip = "pip is not there" if no_pip else ("pip check passes" if agree.returncode == 0 else "pip check fails")
    works = f"Paddle {paddle.__version__} {'works' if passed else 'fails'}"
    found = f"{found_driver.found or found_driver.reason}; {pip}; {works}"
    expected = "a driver that fits, packages that agree, Paddle's check passes"
    reason = "" if passed else " ".join(last)
    if agree.returncode and not no_pip:
        reason = "; ".join(filter(None, [reason, *agree.stdout.strip().splitlines()[:3]]))
    return Finding(OK if passed and (no_pip or agree.returncode == 0) else FAIL, found, expected, reason)


def ticks(context: Context) -> Finding:
    """Other threads run while the clock waits for the device, and the clock's times are the host's."""
    devices = devices_of(context)
    paddle = import_paddle()
    clock = open_device(devices.kind, 0)
    side = GPU_SIDE if device_kind(devices.kind).nvml else OTHER_SIDE
    factor = paddle.rand([side, side]) / side
    product = factor @ factor
    clock.wait(clock.mark())
    began = time.perf_counter()
    for _ in range(3):
        product = factor @ product
        clock.wait(clock.mark())
    each = (time.perf_counter() - began) / 3
    moments: list[float] = []
    over = threading.Event()

    def tick() -> None:
        while not over.is_set():
            moments.append(time.perf_counter())
            time.sleep(TICK_SECONDS)

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    clock.start()
    began, marks = time.perf_counter(), [clock.mark()]
    # Queued in portions of a quarter of a second, as a run queues its steps.
    portion = max(1, round(0.25 / each))
    while time.perf_counter() - began < BUSY_SECONDS:
        for _ in range(portion):
            product = factor @ product
        marks.append(clock.mark())
        clock.wait(marks[-1])
    wall = time.perf_counter() - began
    over.set()
    thread.join()
    first, *_, last = clock.seconds(marks)
    return judge_ticks(np.diff(moments), last - first, wall)


def judge_ticks(gaps: Sequence[float] | np.ndarray[Any, Any], device_seconds: float, wall_seconds: float) -> Finding:
    """Returns the finding for the gaps between two ticks of a thread, and for the clock's time beside the host's."""
    largest, off = float(np.max(gaps)), device_seconds / wall_seconds - 1
    found = f"largest gap {largest * 1000:.0f} ms, clock {off:+.2%} beside the host's"
    expected = f"gaps below {MAX_GAP_SECONDS * 1000:g} ms, clock within {MAX_TIME_DIFFERENCE:.0%}"
    reasons = []
    if not largest < MAX_GAP_SECONDS:
        reasons.append(
            "the wait for the device keeps the interpreter's lock, so that telemetry and reading stand still"
        )
    if not abs(off) <= MAX_TIME_DIFFERENCE:
        reasons.append("the device's clock and the host's disagree")
    return Finding(FAIL if reasons else OK, found, expected, "; ".join(reasons))


def decoders(context: Context) -> Finding:
    """The GPU's decoder decodes regions and whole images, the same twice, near to the CPU's pixels."""
    cases = [(region, load) for region in (False, True) for load in HW_DECODER_LOADS]
    found, reasons = [], []
    with ExitStack() as stack:
        for region, load in cases:
            name = f"{'region' if region else 'whole'} at {load:g}"
            options = {"region": region, "load": load, "decoder": MIXED_DECODER}
            one = stack.enter_context(Isolated(decode_case, context, DECODE_SECONDS, options=options)).finding()
            found.append(f"{name}: {one.found}")
            # Regions are not what a run uses on GPUs; that they fail is known (NVIDIA/nvImageCodec#55).
            if one.status != OK and not region:
                reasons.append(f"{name}: {one.reason or one.found}")
    expected = f"whole images: equal twice, at most {MAX_GREY_LEVELS:g} grey levels from the CPU's"
    return Finding(FAIL if reasons else OK, "; ".join(found), expected, "; ".join(reasons))


def decode_case(context: Context, region: bool, load: float, decoder: str) -> Finding:
    """Decode the sample twice in this way, and compare both passes with each other and with the CPU's decoder."""
    if decoder != CPU_DECODER:
        devices_of(context)
    return decoded_twice(region, load, decoder)


def decoded_twice(region: bool, load: float, decoder: str) -> Finding:
    """How two passes over the sample compare with each other, and with the CPU's decoder."""
    files = sample_with_orientations(Path(tempfile.mkdtemp()))
    passes = [decode_on(files, region, load, decoder) for _ in range(2)]
    digests = [hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest() for images in passes]
    right = decoded(files)
    shapes = [file.name for file, one, other in zip(files, passes[0], right, strict=True) if one.shape != other.shape]
    if shapes:
        return Finding(FAIL, f"another shape: {', '.join(shapes)}", "the CPU's shapes")
    apart = max(
        float(np.abs(one.astype(np.int16) - other.astype(np.int16)).mean())
        for one, other in zip(passes[0], right, strict=True)
    )
    same = digests[0] == digests[1]
    found = f"{apart:.2f} grey levels, passes {'equal' if same else 'differ'}"
    return Finding(OK if same and apart <= MAX_GREY_LEVELS else FAIL, found, reason="" if same else "two passes differ")


def sample_with_orientations(folder: Path) -> list[Path]:
    """Returns the sample of JPEGs with one that its EXIF data turn."""
    from PIL import Image

    files = write_sample(folder)
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(files[0]) as photo:
        photo.convert("RGB").resize((320, 240)).save(folder / "turned.jpg", exif=exif, quality=92)
    return [*files, folder / "turned.jpg"]


def decode_on(files: Sequence[Path], region: bool, load: float, decoder: str) -> list[Any]:
    """Returns the images as this decoder has them; a region is the whole image, given by its corners."""
    from nvidia.dali import fn, pipeline_def, types

    from pipelines.bad_image_probe import file_name

    names = [file_name(str(file)) for file in files]
    mixed = decoder == MIXED_DECODER
    options = {"device": decoder, "output_type": types.RGB, **({"hw_decoder_load": load} if mixed else {})}

    @pipeline_def(batch_size=len(files), num_threads=2, device_id=0 if mixed else None)  # type: ignore[untyped-decorator]
    def graph() -> Any:
        read = fn.io.file.read(fn.external_source(source=lambda: names, batch=True, dtype=types.UINT8, ndim=1))
        if not region:
            return fn.decoders.image(read, **options)
        shape = fn.slice(fn.peek_image_shape(read, dtype=types.INT32), 0, 2, axes=[0])
        return fn.decoders.image_slice(read, start=[0, 0], shape=shape, axis_names="HW", **options)

    pipeline = graph()
    pipeline.build()
    (images,) = pipeline.run()
    images = images.as_cpu() if mixed else images
    return [np.array(images.at(index)) for index in range(len(files))]
