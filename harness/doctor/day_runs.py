"""Rows of the first GPU day that are runs: each starts run_bench.py as a user would, and judges what it left."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from PIL import Image

from harness.analysis.interference import energy_alone
from harness.artifacts.schema import BAD_IMAGES, COMPUTE_NO_SYNC, DEVICES, EPOCHS, STEPS, TRAIN
from harness.doctor.bench import NAME, SMALL, Bench, Ended, failed, ranks_of, wait_for
from harness.doctor.check import FAIL, OK, Context, Finding, skip
from harness.errors import INTERRUPTED_EXIT_CODE
from harness.machine.device_kinds import CPU
from harness.machine.host import HOST_LABEL

MAX_INTERVAL_FACTOR, MAX_UNACCOUNTED = 1.5, 0.05
MAX_LOSS_DIFFERENCE = 0.05
FOLLOWS = f"the loss of epoch 2 within {MAX_LOSS_DIFFERENCE:.0%} of float32's"
MIN_JPEG_PERCENT = 10.0
STALL_SECONDS = 8
FILLED = ("util_percent", "power_watts", "energy_joules")
DIGITS = ("--data", "digits", "--model", "x0_25", "--image-size", "64")
# Of two classes, for devices that may be as slow as the host: steps of an epoch are 5, of batches of 32.
SMALL_IMAGES = (160, 32)
BATCH = ("--batch-size", "32")


def _task(bench: Bench, epochs: int) -> tuple[str, ...]:
    """Options for a training: digits on a GPU, a small set elsewhere."""
    words: tuple[str, ...] = (*DIGITS, "--learning-rate", "0.05")
    if not bench.kind.nvml:
        words = ("--data", str(write_set(bench.files.folder / "data", *SMALL_IMAGES)), *SMALL[:4], *SMALL[6:])
        # So few steps that a larger one would only amplify rounding.
        words = (*words, "--learning-rate", "0.002")
    return (*words, "--epochs", str(epochs), "--seed", "5")


def _measured(bench: Bench, seconds: int) -> tuple[str, ...]:
    """Options of a throughput run on photographs: as long on a GPU, elsewhere small and short."""
    length = ("--max-seconds", str(seconds)) if bench.kind.nvml else ("--max-seconds", "15", "--warmup", "1", *SMALL)
    return ("--throughput-only", "--data", "photos", *length)


def throughput(context: Context) -> Finding:
    """A throughput run on photographs: its telemetry is complete and regular, and its time is accounted for."""
    bench = Bench(context, 1)
    ended = bench.run(*_measured(bench, 30))
    expected = (
        f"exit code 0, sampling interval at most {MAX_INTERVAL_FACTOR:g} x asked in 95 %, unaccounted below"
        f" {MAX_UNACCOUNTED:.0%}, telemetry filled"
    )
    if ended.code:
        return failed("throughput", ended, expected)
    record, samples = bench.record, bench.table(DEVICES)
    interval = sampling_interval(samples) / record["config"]["telemetry_interval"]
    ledger = record["ledger"]
    unaccounted = ledger["rest_seconds"] / ledger["wall_seconds"]
    own = samples[samples["device"] != HOST_LABEL]
    empty = [name for name in FILLED if bench.kind.nvml and not own[name].notna().any()]
    found = (
        f"{record['summary']['fps']:.1f} images/s, interval {interval:.2f} x asked, unaccounted {unaccounted:.1%}"
        + "".join(
            f", {name} {own[name].mean():.0f}"
            for name in (*FILLED[:2], "jpeg_util_percent", "sm_util_percent")
            if own[name].notna().any()
        )
    )
    reasons = [f"{name} is empty" for name in empty]
    if not interval <= MAX_INTERVAL_FACTOR:
        reasons.append("samples come late: another thread holds the interpreter while it waits for the device")
    if not abs(unaccounted) < MAX_UNACCOUNTED:
        reasons.append("time is unaccounted for")
    return Finding(FAIL if reasons else OK, found, expected, "; ".join(reasons))


def sampling_interval(samples: pd.DataFrame) -> float:
    """Returns the 95th percentile of the seconds between two samples of one device.

    Energy that was read by itself, between the samples, is no sample.
    """
    samples = samples[~energy_alone(samples)]
    gaps = samples.sort_values("time_unix_seconds").groupby("device")["time_unix_seconds"].diff().dropna()
    return float(np.percentile(gaps, 95)) if len(gaps) else float("inf")


def jpeg_engine(context: Context) -> Finding:
    """The JPEG engine works with the default share of images, and rests with none."""
    expected = f"more than {MIN_JPEG_PERCENT:g} % with a share of 0.65, 0 % with 0"
    means = []
    for load in ("0.65", "0"):
        bench = Bench(context, 1)
        ended = bench.run(
            "--throughput-only", "--data", "photos", "--max-seconds", "12", "--decoder", "mixed",
            "--hw-decoder-load", load,
        )  # fmt: skip
        if ended.code:
            return failed(f"--hw-decoder-load {load}", ended, expected)
        used = bench.table(DEVICES)["jpeg_util_percent"].dropna()
        if used.empty:
            return skip("NVML reports no JPEG engine on this GPU (A100, Hopper and newer have them)")
        means.append(float(used.mean()))
    found = f"{means[0]:.0f} % with 0.65, {means[1]:.0f} % with 0"
    return Finding(OK if means[0] > MIN_JPEG_PERCENT and means[1] == 0 else FAIL, found, expected)


def two_devices(context: Context) -> Finding:
    """Two devices train together: both are busy, and every phase was measured."""
    bench = Bench(context, 2)
    log = bench.files.folder / "nccl.%p"
    environment = {**os.environ, "NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "COLL", "NCCL_DEBUG_FILE": str(log)}
    ended = bench.run(*_measured(bench, 12), environment=environment)
    expected = "exit code 0, both devices busy, compute without exchange measured"
    if ended.code:
        return failed("throughput on 2", ended, expected)
    steps, own = bench.table(STEPS), bench.table(DEVICES)
    own = own[own["device"] != HOST_LABEL]
    busy = own[own["util_percent"] > 0]["uuid"].nunique()
    calls = sum(path.read_text(errors="replace").count("AllReduce:") for path in bench.files.folder.glob("nccl.*"))
    alone = int((steps["phase"] == COMPUTE_NO_SYNC).sum())
    found = f"{bench.record['summary']['fps']:.1f} images/s, {alone} steps without exchange"
    found += f", {busy} of 2 busy, {calls} all-reduces in NCCL's logs" if bench.kind.nvml else ""
    reasons = ["no step without exchange was measured"] if not alone else []
    if bench.kind.nvml and busy < 2:
        reasons.append("a GPU stayed idle: the ranks did not land on the GPUs that were asked for")
    return Finding(FAIL if reasons else OK, found, expected, "; ".join(reasons))


VARIANTS: dict[str, tuple[str, ...]] = {
    "bf16 O1": ("--amp", "bf16"),
    "bf16 O2": ("--amp", "bf16", "--amp-level", "O2"),
    "fp16 O2 nhwc": ("--amp", "fp16", "--amp-level", "O2", "--layout", "nhwc"),
    "static, accumulated": ("--to-static", "--batch-size", "16", "--accumulation-steps", "2"),
    "synchronised batch norm": ("--bn-stats", "sync"),
}


def variants(context: Context) -> Finding:
    """Every way of training follows the losses of float32."""
    right = loss_of(context, BATCH)
    if isinstance(right, Ended):
        return failed("float32", right, FOLLOWS)
    return judge_variants(
        right,
        {
            name: loss_of(context, words if "--batch-size" in words else (*BATCH, *words))
            for name, words in variants_on(context).items()
        },
    )


def judge_variants(right: float, losses: Mapping[str, float | Ended]) -> Finding:
    """Returns the finding for the losses of other ways of training, or how these failed, beside float32's.

    A device that says before it trains that it lacks a format is no failure, but shows nothing either.
    """
    found, reasons = [f"float32 {right:.4f}"], []
    for name, loss in losses.items():
        if not isinstance(loss, Ended):
            found.append(f"{name} {loss:.4f}")
            if not abs(loss / right - 1) <= MAX_LOSS_DIFFERENCE:
                reasons.append(f"{name}: {loss / right - 1:+.1%}")
        elif loss.code in (2, 3) and "needs a device" in loss.error:
            found.append(f"{name} refused")
        else:
            found.append(f"{name} failed")
            reasons.append(f"{name}: {loss.error}")
    shown = ", ".join(found)
    if losses and all(isinstance(loss, Ended) for loss in losses.values()) and not reasons:
        return skip(f"nothing to compare: {shown}")
    return Finding(FAIL if reasons else OK, shown, FOLLOWS, "; ".join(reasons))


def variants_on(context: Context) -> dict[str, tuple[str, ...]]:
    """Returns the variants that Paddle has on the kind of device."""
    bench = Bench(context, 1)
    kept = dict(VARIANTS)
    if not bench.kind.sixteen_bit:
        kept = {name: words for name, words in kept.items() if "--amp" not in words}
    if not bench.kind.sync_batch_norm:
        kept = {name: words for name, words in kept.items() if "sync" not in words}
    return kept


def loss_of(context: Context, words: Sequence[str]) -> float | Ended:
    """Returns the training loss of the last of two epochs on digits, or how the run failed."""
    bench = Bench(context, 1)
    ended = bench.run(*_task(bench, 2), *words)
    return ended if ended.code else float(bench.table(EPOCHS)["train_loss"].iloc[-1])


def resume(context: Context) -> Finding:
    """A run that SIGTERM ended is resumed: no step is missing or doubled, and the loss continues."""
    bench = Bench(context)
    sixteen = ("--amp", "bf16", "--amp-level", "O2") if bench.kind.nvml else ()
    found = []
    for words in dict.fromkeys([(), sixteen]):
        one = resume_once(Bench(context), words)
        if one.status != OK:
            return one
        found.append(f"{' '.join(words) or 'float32'}: {one.found}")
    return Finding(OK, "; ".join(found), one.expected)


def resume_once(bench: Bench, words: Sequence[str]) -> Finding:
    """The same for one way of training."""
    expected = "exit code 75, then 0; steps without a gap, a loss that goes on"
    options = (*_task(bench, 3), *BATCH, *words)
    process = bench.start(*options)
    if not wait_for(lambda: bench.rows(STEPS) >= (40 if bench.kind.nvml else 6), process):
        return failed("the run", bench.end(process), expected)
    process.send_signal(signal.SIGTERM)
    ended = bench.end(process)
    if ended.code != INTERRUPTED_EXIT_CODE:
        return failed("after SIGTERM", ended, expected)
    before = len(train_steps(bench.table(STEPS)))
    ended = bench.run(*options, "--resume", NAME)
    if ended.code:
        return failed("--resume", ended, expected)
    return judge_resumed(train_steps(bench.table(STEPS)), before, expected)


def judge_resumed(steps: pd.DataFrame, before: int, expected: str) -> Finding:
    """Returns the finding for the training steps of a run that was resumed after this number of them."""
    numbers, losses = steps["step"].to_numpy(), steps["loss"].to_numpy()
    span = min(10, before, len(losses) - before)
    ratio = float(np.median(losses[before : before + span]) / np.median(losses[before - span : before]))
    found = f"{before} steps, then {len(numbers) - before}; loss x {ratio:.2f} across the break"
    reasons = []
    if not np.array_equal(numbers, np.arange(1, len(numbers) + 1)):
        reasons.append("steps are missing or doubled")
    if not ratio < 1.3:
        reasons.append("the loss rose as after a new start")
    return Finding(FAIL if reasons else OK, found, expected, "; ".join(reasons))


def train_steps(steps: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of training steps, without those of checkpoints."""
    rows: pd.DataFrame = steps[steps["phase"] == TRAIN]
    return rows


def bad_files(context: Context) -> Finding:
    """A truncated file, a text and a turned photograph are judged on the device as on the CPU."""
    bench = Bench(context, 1)
    data = write_bad_set(bench.files.folder / "data")
    options = (*SMALL, "--data", str(data), "--epochs", "1", "--max-bad-share", "1")
    tables = []
    for one in (bench, Bench(context, 1, CPU.name)):
        ended = one.run(*options)
        if ended.code:
            return failed(f"on {one.kind.title}", ended, "exit code 0")
        tables.append(bad_rows(one))
    expected = f"as on the CPU: {'; '.join(tables[1])}"
    same = tables[0] == tables[1] and len(tables[1]) == 2
    return Finding(OK if same else FAIL, "; ".join(tables[0]) or "no bad image", expected)


def bad_rows(bench: Bench) -> list[str]:
    """Returns the bad images of a run, each in a line; the device doesn't show in what it reports."""
    if not bench.files.table(BAD_IMAGES.name).exists():
        return []
    table = bench.table(BAD_IMAGES).sort_values("path")
    return [f"{path} ({split})" for path, split in zip(table["path"], table["split"], strict=True)]


def write_bad_set(folder: Path) -> Path:
    """Returns a set of 34 images: one of them is cut in half, one is a text, and one has an orientation."""
    write_set(folder, 26, 8)
    cut = folder / "train/0/10.jpg"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (folder / "train/1/11.jpg").write_text("this is not an image\n")
    return folder


def write_set(folder: Path, train: int, val: int) -> Path:
    """Returns a set of images in two classes, a dark and a light one; of each split one has an orientation."""
    random = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    for split, count in (("train", train), ("val", val)):
        for index in range(count):
            place = folder / split / str(index % 2)
            place.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 90, (48, 64, 3), dtype=np.uint8) + np.uint8(120 * (index % 2))
            Image.fromarray(pixels).save(place / f"{index:02d}.jpg", exif=exif if index == 3 else b"")
    return folder


def stopped_and_killed(context: Context) -> Finding:
    """A rank that stands still ends the run in time, a killed one at once; both are named, and no process is left."""
    expected = "exit code 5 each, the message names the rank, no process left"
    found: list[str] = []
    for number, name, words in (
        (signal.SIGSTOP, "kill -STOP", "no step for"),
        (signal.SIGKILL, "kill -9", "SIGKILL"),
    ):
        bench = Bench(context, 2)
        process = bench.start(*_task(bench, 200), *BATCH, "--stall-timeout", str(STALL_SECONDS))
        if not wait_for(lambda bench=bench: bench.rows(STEPS) >= 4, process):  # type: ignore[misc]
            return failed("the run", bench.end(process), expected)
        ranks = ranks_of(process)
        others = psutil.Process(process.pid).children(recursive=True)
        ranks[-1].send_signal(number)
        ended = bench.end(process)
        _, left = psutil.wait_procs(others, timeout=10)
        found.append(f"{name}: {ended.error.removeprefix('error: ')[:90]}")
        if ended.code != 5 or "rank" not in ended.error or words not in ended.error or left:
            gone = "" if not left else f"; {len(left)} processes are left"
            return Finding(FAIL, f"{name}: exit code {ended.code}", expected, f"{ended.error}{gone}")
    return Finding(OK, "; ".join(found), expected)


def auto_batch(context: Context) -> Finding:
    """A batch that doesn't fit into the device's memory is halved until it does."""
    bench = Bench(context, 1)
    words: tuple[str, ...] = ("--data", "photos", "--model", "x2_5", "--image-size", "640", "--batch-size", "1024")
    if not bench.kind.nvml:
        small = write_set(bench.files.folder / "data", *SMALL_IMAGES)
        words = ("--data", str(small), *SMALL[:4], "--batch-size", "64")
    ended = bench.run("--throughput-only", "--max-seconds", "5", "--warmup", "1", "--auto-batch", *words)
    expected = "exit code 0 with a smaller batch"
    if ended.code:
        return failed("--auto-batch", ended, expected)
    record: dict[str, Any] = bench.record
    asked, used = record["config"]["batch_size"], record["plan"]["pipeline"]["batch_size"]
    if used == asked:
        return skip(f"{asked} images fit into the device's memory, so that there was nothing to halve")
    return Finding(OK, f"{asked} images halved to {used}", expected)
