"""The tables of a run of epochs on four GPUs whose truth is known, as long as one likes and resumed as often."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.artifacts.record import RunFiles, RunRecord, write_record
from harness.artifacts.schema import BAD_IMAGES, DEVICES, EPOCHS, EVALUATE, STEPS, TRAIN
from harness.artifacts.tables import TableWriter, format_cell
from harness.machine.host import HOST_LABEL
from tests.support.plans import a_config, a_plan, a_record

RANKS, BATCH = 4, 512
STEP_SECONDS, EVALUATION_SECONDS, BETWEEN_BLOCKS = 0.8, 0.3, 0.05
# Each attempt begins with this many steps that take three times as long.
SLOW_STEPS = 30
WATTS = 350.0
START = 1.75e9
SAMPLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class LongRun:
    """Epochs of STEP_SECONDS with 2 % noise, each followed by an evaluation, resumed behind some of them.

    Nothing runs for pause_seconds before an attempt. One GPU is too hot in the whole of the epoch hot_epoch.
    """

    epochs: int = 360
    steps_per_epoch: int = 626
    evaluation_steps: int = 25
    resumed_behind: tuple[int, ...] = ()
    pause_seconds: float = 3 * 3600.0
    hot_epoch: int | None = None
    name: str = "long"

    @property
    def breaks(self) -> list[int]:
        """The first blocks of the later attempts."""
        return [2 * epoch + 1 for epoch in self.resumed_behind]

    def write(self, folder: Path) -> tuple[RunFiles, RunRecord]:
        """Write the tables and the record of the run as its workers leave them."""
        files = RunFiles(folder, self.name)
        with (
            TableWriter(files.table(STEPS.name), STEPS) as steps,
            TableWriter(files.table(EPOCHS.name), EPOCHS) as epochs,
            files.table(DEVICES.name).open("w", encoding="utf-8") as devices,
        ):
            devices.write(",".join(DEVICES.header) + "\n")
            now = sampled_until = START
            for epoch in range(1, self.epochs + 1):
                if epoch - 1 in self.resumed_behind:
                    now = sampled_until = now + self.pause_seconds
                training_ends = now
                for row in self._epoch(epoch, now):
                    steps.write(row)
                    now = row["time_unix_seconds"]
                    training_ends = now if row["phase"] == TRAIN else training_ends
                now += BETWEEN_BLOCKS
                devices.writelines(_samples(sampled_until, training_ends, hot=epoch == self.hot_epoch))
                devices.writelines(_samples(training_ends, now))
                sampled_until = now
                done = epoch / self.epochs
                epochs.write({"epoch": epoch, "top1": 0.7 * done, "top5": 0.9 * done, "val_images": 50_000})
        TableWriter(files.table(BAD_IMAGES.name), BAD_IMAGES).close()
        record = a_record(
            run=files.run,
            status="running",
            config=a_config(device="gpu", gpus=RANKS, epochs=self.epochs, image_size=224),
            plan=a_plan(
                device="gpu", device_name="NVIDIA A100-SXM4-80GB", ranks=RANKS, batch_size=BATCH, image_size=224,
                epochs=self.epochs, steps_per_epoch=self.steps_per_epoch, warmup_steps=20,
            ),
            phases={}, steady={}, ledger={}, outliers={}, interference={}, summary={},
        )  # fmt: skip
        pipeline = record.plan.pipeline
        in_force = ("decoder", "decode_region", "hw_decoder_load", "width_hint", "height_hint")
        record.effective_settings.update(
            {name: getattr(pipeline, name) for name in in_force}, batch_size=BATCH, image_size=224, ranks=RANKS
        )
        write_record(files.record, record)
        return files, record

    def _epoch(self, epoch: int, begin: float) -> Iterator[dict[str, Any]]:
        """The rows of an epoch's training and evaluation, from a time of day on."""
        random = np.random.default_rng(epoch)
        seconds = STEP_SECONDS * (1 + 0.02 * random.standard_normal(self.steps_per_epoch))
        if epoch == 1 or epoch - 1 in self.resumed_behind:
            seconds[:SLOW_STEPS] *= 3
        time = begin
        for number, step_seconds in enumerate(np.round(seconds, 9).tolist(), 1):
            time += step_seconds
            step = (epoch - 1) * self.steps_per_epoch + number
            yield _row(TRAIN, 2 * epoch - 1, epoch, step, time, step_seconds)
        time += BETWEEN_BLOCKS
        for number in range(1, self.evaluation_steps + 1):
            time += EVALUATION_SECONDS
            step = (epoch - 1) * self.evaluation_steps + number
            yield _row(EVALUATE, 2 * epoch, epoch, step, time, EVALUATION_SECONDS)


def _row(phase: str, segment: int, epoch: int, step: int, time: float, seconds: float) -> dict[str, Any]:
    wait, compute = 0.1 * seconds, 0.89 * seconds
    return {
        "phase": phase, "segment": segment, "epoch": epoch, "step": step, "time_unix_seconds": time,
        "images": RANKS * BATCH, "step_seconds": seconds, "fps": RANKS * BATCH / seconds, "data_wait_seconds": wait,
        "copy_seconds": 0.0, "compute_seconds": compute, "forward_seconds": 0.3 * compute,
        "backward_seconds": 0.5 * compute, "optimizer_seconds": 0.2 * compute, "recording_seconds": 0.0,
        "exchange_seconds": 0.01 * seconds,
        "slowest_rank": step % RANKS, "rank_skew_seconds": 0.001, "loss": 3.2, "learning_rate": 0.4,
        "gpu_util_percent": 97.0, "gpu_util_min_percent": 96.0, "gpu_util_max_percent": 98.0, "cpu_util_percent": 55.0,
        "jpeg_util_percent": 30.0, "sm_util_percent": 80.0, "foreign_cpu_percent": 0.1,
    }  # fmt: skip


def _samples(begin: float, end: float, hot: bool = False) -> Iterator[str]:
    """The devices table's lines from one time of day to another; the second GPU is hot, if one is."""
    usual: dict[str, Any] = {
        "name": "NVIDIA A100-SXM4-80GB", "uuid": "GPU-20000000-aaaa-bbbb-cccc-000000000002", "util_percent": 97.0,
        "memory_used_bytes": 60_000_000_000, "memory_total_bytes": 80_000_000_000, "power_watts": WATTS,
        "temperature_celsius": 60.0, "sm_clock_mhz": 1410.0, "memory_clock_mhz": 1593.0, "throttle_reasons": "none",
        "jpeg_util_percent": 30.0, "sm_util_percent": 80.0, "dram_util_percent": 40.0, "energy_joules": 0.5,
        "processes": 1,
    }  # fmt: skip
    reasons = {1: "HwThermalSlowdown"} if hot else {}
    lines = [
        _line({**usual, "device": f"gpu{rank}", "throttle_reasons": reasons.get(rank, "none")}) for rank in range(RANKS)
    ]
    host = {"util_percent": 55.0, "foreign_util_percent": 0.1, "steal_percent": 0.0, "swap_bytes": 0,
            "storage_read_bytes": 1000, "quota_throttled_seconds": 0.0}  # fmt: skip
    lines.append(_line({"device": HOST_LABEL, "name": "AMD EPYC 7742 64-Core Processor", **host}))
    for number in range(int((end - begin) / SAMPLE_SECONDS)):
        time = begin + (number + 0.5) * SAMPLE_SECONDS
        counter = f"{WATTS * (time - START):.3f}"
        for line in lines:
            yield f"{time:.3f}{line}".replace("0.500,1,", f"{counter},1,")


def _line(row: dict[str, Any]) -> str:
    """A line of the devices table without its time."""
    return ",".join(["", *(format_cell(row.get(column.name), column) for column in DEVICES.columns[1:])]) + "\n"
