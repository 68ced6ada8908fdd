"""What looking at a run costs: the share of a core that `run_bench.py watch` takes, and that a run's own view takes.

usage: watching.py [--seconds 60] [--steps-per-second 20] [--limit-share 0.005]

Writes the tables of a run on four GPUs as fast as such a run does, with telemetry, and follows it from another process
on a terminal of 80 x 24 and in a log. Printed: processor time over elapsed time, without the start. Exits with 1 beyond
the limit.
"""

from __future__ import annotations

import argparse
import os
import pty
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import ROOT
from harness.artifacts.liveness import own_process
from harness.artifacts.record import RunFiles, write_record
from harness.artifacts.schema import BAD_IMAGES, DEVICES, EPOCHS, STEPS
from harness.artifacts.tables import TableWriter
from tests.support.plans import a_config, a_plan, a_record

# The first line of a log, after ten seconds, loads what later ones have.
RANKS, SAMPLE_SECONDS, START_SECONDS = 4, 0.5, 15.0


def main() -> int:
    """Measure and print. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--steps-per-second", type=float, default=20.0)
    parser.add_argument("--limit-share", type=float, default=0.005)
    asked = parser.parse_args()
    worst = 0.0
    for title, on_terminal in (("on a terminal", True), ("in a log", False)):
        with tempfile.TemporaryDirectory() as folder:
            share = followed(Path(folder), asked.seconds, asked.steps_per_second, on_terminal)
        worst = max(worst, share)
        print(f"watch {title}: {share:.2%} of a core, {asked.steps_per_second:g} steps a second", flush=True)
    return int(worst > asked.limit_share)


def followed(folder: Path, seconds: float, rate: float, on_terminal: bool) -> float:
    """The share of a core that following a run takes, by its number of steps a second."""
    files = RunFiles(folder, "run")
    record = a_record(
        run="run", status="running", config=a_config(device="gpu", gpus=RANKS),
        plan=a_plan(device="gpu", device_name="NVIDIA H200", ranks=RANKS, epochs=100, steps_per_epoch=1000),
        attempts=({"first_segment": 1, "step": 0, "begun_unix_seconds": time.time(), "ranks": RANKS, "epochs": 100,
                   "started_unix_seconds": time.time(), "process": own_process(), "startup": {}},),
    )  # fmt: skip
    write_record(files.record, replace(record, warnings=("2 threads are too few",)))
    ended = threading.Event()
    writer = threading.Thread(target=_write, args=(files, rate, ended))
    writer.start()
    command = [sys.executable, str(ROOT / "run_bench.py"), "watch", "run", "--results", str(folder)]
    screen, terminal = pty.openpty()
    output: Any = terminal if on_terminal else subprocess.DEVNULL
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
    reader = threading.Thread(target=_discard, args=(screen,), daemon=True)
    reader.start()
    try:
        time.sleep(START_SECONDS)
        of = psutil.Process(process.pid)
        before, began = sum(of.cpu_times()[:2]), time.monotonic()
        time.sleep(seconds)
        return (sum(of.cpu_times()[:2]) - before) / (time.monotonic() - began)
    finally:
        process.terminate()
        process.wait()
        ended.set()
        writer.join()
        os.close(terminal)


def _write(files: RunFiles, rate: float, ended: threading.Event) -> None:
    """Write steps and samples until it has ended."""
    with (
        TableWriter(files.table(STEPS.name), STEPS) as steps,
        TableWriter(files.table(DEVICES.name), DEVICES) as devices,
        TableWriter(files.table(EPOCHS.name), EPOCHS),
        TableWriter(files.table(BAD_IMAGES.name), BAD_IMAGES),
    ):
        step, sampled = 0, 0.0
        while not ended.wait(1 / rate):
            step += 1
            now = time.time()
            steps.write({
                "phase": "train", "segment": 1, "epoch": 1, "step": step, "time_unix_seconds": now, "images": 2048,
                "step_seconds": (1 + 0.02 * (step % 7)) / rate, "fps": 2048 * rate, "data_wait_seconds": 0.1 / rate,
                "copy_seconds": 0.0, "compute_seconds": 0.9 / rate, "forward_seconds": 0.3 / rate,
                "backward_seconds": 0.5 / rate, "optimizer_seconds": 0.1 / rate, "recording_seconds": 0.0,
                "exchange_seconds": 0.0, "loss": 3.2, "learning_rate": 0.4, "transition": 0,
            })  # fmt: skip
            if now - sampled >= SAMPLE_SECONDS:
                sampled = now
                for device in ("cpu", *(f"gpu{rank}" for rank in range(RANKS))):
                    devices.write({"time_unix_seconds": now, "device": device, "util_percent": 97.0,
                                   "memory_used_bytes": 2**34, "memory_total_bytes": 2**37, "power_watts": 600.0,
                                   "temperature_celsius": 60.0, "throttle_reasons": "none"})  # fmt: skip


def _discard(descriptor: int) -> None:
    """Read what is drawn, as a terminal does."""
    try:
        while os.read(descriptor, 65536):
            pass
    except OSError:
        pass


if __name__ == "__main__":
    sys.exit(main())
