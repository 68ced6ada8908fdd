"""Reads a run's tables as they grow, and keeps what there is to see."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.analysis.interval import mean_estimate
from harness.analysis.steady import MIN_STEPS, STILL_CHANGING, find_steady_state
from harness.analysis.window import PHASE_TITLES
from harness.artifacts.record import RunFiles
from harness.artifacts.schema import BAD_IMAGES, CHECKPOINT, DEVICES, EPOCHS, EVALUATE, STEPS, TRAIN
from harness.artifacts.table_tail import TableTail
from harness.plan import kinds
from harness.plan.plan import RunPlan
from harness.report.live.now import MEASURING, DeviceNow, Now
from pipelines.sharding import steps_per_epoch

DOING = {**PHASE_TITLES, TRAIN: "training", EVALUATE: "evaluating", CHECKPOINT: "saving"}
STARTING = "starting the ranks"
WARMING_UP, CHANGING = "warming up", "the step times still change"
# Parts of a step, by the letter that stands for them in a bar; a split into passes replaces the third.
PARTS = {
    "data_wait_seconds": "data", "copy_seconds": "copy", "compute_seconds": "compute", "forward_seconds": "forward",
    "backward_seconds": "backward", "optimizer_seconds": "optimizer", "recording_seconds": "recording",
    "exchange_seconds": "between steps",
}  # fmt: skip
SPLIT = ("forward_seconds", "backward_seconds", "optimizer_seconds")
# The rate of this moment is that of a phase's last steps: at most this number of them, or those of these seconds.
NOW_STEPS, NOW_SECONDS = 20, 10.0
# Steps that the rate so far is computed from, the last ones, and how often.
KEPT_STEPS, REFRESH_SECONDS = 5000, 3.0
# An older sample says nothing about this moment.
FRESH_SECONDS = 10.0
# What is read of a table that has millions of rows already.
LAST_BYTES = 2 << 20


FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Length:
    """The length of a kind of run: phase is the one whose steps count, steps their number, epochs that of epochs.

    A run that measures for a time has no number of steps.
    """

    phase: str
    steps: Callable[[RunPlan], int | None]
    epochs: Callable[[RunPlan], int | None] = lambda _: None


LENGTHS = {
    kinds.EPOCHS: _Length(TRAIN, lambda plan: plan.total_steps, lambda plan: plan.training.epochs),
    kinds.THROUGHPUT: _Length(TRAIN, lambda _: None),
    kinds.EVALUATION: _Length(
        EVALUATE, lambda plan: steps_per_epoch(plan.data.val_images, plan.ranks, plan.pipeline.batch_size)
    ),
}


@dataclass(slots=True)
class _Figures:
    """What is computed from training's steps now and then."""

    at: float = float("-inf")
    state: str = WARMING_UP
    fps: float | None = None
    low: float | None = None
    high: float | None = None
    steps: int = 0


class _LastRows:
    """The last rows of numbers that were added, in room that doesn't grow."""

    def __init__(self, most: int, columns: int) -> None:
        self._rows = np.zeros((most, columns))
        self._added = 0

    def add(self, row: Sequence[float]) -> None:
        """Add a row; the oldest is forgotten when there is no room."""
        self._rows[self._added % len(self._rows)] = row
        self._added += 1

    def __len__(self) -> int:
        return min(self._added, len(self._rows))

    def in_order(self) -> FloatArray:
        """The rows, the oldest first."""
        if self._added <= len(self._rows):
            return self._rows[: self._added]
        return np.roll(self._rows, -(self._added % len(self._rows)), axis=0)


class Feed:
    """Follows a run's tables. begun is the time of day of its start; clock gives the time of day, in seconds.

    Rows that are there already are read, too, unless `resume` or `skip_to_last` is called.
    """

    def __init__(self, plan: RunPlan, files: RunFiles, begun: float, clock: Callable[[], float] = time.time) -> None:
        self._plan, self._files, self._begun, self._clock = plan, files, begun, clock
        self._steps, self._devices, self._epochs, self._bad = (
            TableTail(files.table(table.name), table.header) for table in (STEPS, DEVICES, EPOCHS, BAD_IMAGES)
        )
        self._phase = ""
        self._last: dict[str, str] = {}
        self._recent: deque[tuple[float, float]] = deque(maxlen=NOW_STEPS)
        # Of training's steps: images, seconds, and the parts of the seconds.
        self._train = _LastRows(KEPT_STEPS, 2 + len(PARTS))
        self._samples: dict[str, dict[str, str]] = {}
        self._epoch: dict[str, str] = {}
        self._step: int | None = None
        self._first: tuple[float, int] | None = None
        self._spent = 0.0
        self._left_out = 0
        self._loss: dict[str, str] = {}
        self._figures = _Figures()
        self.warning = ""

    def resume(self, made: int) -> None:
        """Begin after the rows that are there: those of a resumed run, which has made that number of steps already."""
        self._step = made or None
        self._steps.skip()
        self._devices.skip()

    def skip_to_last(self) -> None:
        """Read only the last rows of long tables; a run that measures for a time counts those of all its steps."""
        counted = () if LENGTHS[self._plan.kind].steps(self._plan) is None else (self._steps,)
        for tail in (*counted, self._devices, self._epochs):
            tail.skip_to_last(LAST_BYTES)

    def read(self) -> bool:
        """Read the new rows. Returns whether there was a step. If the disk can't be read now, there is nothing new."""
        rows: list[dict[str, str]] = []
        with suppress(OSError):
            rows = self._steps.new()
            self._left_out += len(self._bad.new())
            for sample in self._devices.new():
                # A reading at a burst's edge has its energy alone.
                if sample["util_percent"] or sample["device"] not in self._samples:
                    self._samples[sample["device"]] = sample
            for row in self._epochs.new():
                self._epoch = row
        for row in rows:
            self._add(row)
        return bool(rows)

    def _add(self, row: Mapping[str, str]) -> None:
        phase, seconds = row["phase"], float(row["step_seconds"] or 0.0)
        self._spent += seconds
        self._last = dict(row)
        if phase != self._phase:
            self._recent.clear()
            self._phase = phase
        if phase == CHECKPOINT:
            return
        images = float(row["images"] or 0.0)
        if seconds:
            self._recent.append((images, seconds))
        if phase == TRAIN:
            self._loss = {name: row[name] for name in ("loss", "learning_rate")}
            if seconds and row["transition"] != "1":
                self._train.add((images, seconds, *(float(row[name] or 0.0) for name in PARTS)))
        if phase == LENGTHS[self._plan.kind].phase and row["step"] and row["time_unix_seconds"]:
            self._step = int(row["step"])
            if self._first is None:
                self._first = (float(row["time_unix_seconds"]), self._step)

    def at_the_end(self) -> Now:
        """What is known of a run that has ended: its moment is that of the last step."""
        return self._at(float(self._last.get("time_unix_seconds") or self._begun))

    def now(self) -> Now:
        """What is known at this moment."""
        return self._at(self._clock())

    def _at(self, at: float) -> Now:
        plan = self._plan
        length = LENGTHS[plan.kind]
        steps = length.steps(plan)
        share = self._share(steps)
        epoch = self._last.get("epoch") or "0"
        self._estimate(at)
        figures = self._figures
        return Now(
            run=self._files.run,
            what=f"PPLCNet_{plan.model} on {plan.ranks} x {plan.device_name}",
            doing=DOING.get(self._phase, self._phase) if self._phase else STARTING,
            state=figures.state if self._phase else "",
            epoch=int(epoch) or None,
            epochs=length.epochs(plan),
            step=self._step,
            steps=steps,
            share_done=share,
            seconds=max(0.0, at - self._begun),
            seconds_left=self._seconds_left(steps),
            fps_now=self._rate(),
            fps=figures.fps,
            fps_low=figures.low,
            fps_high=figures.high,
            measured_steps=figures.steps,
            ledger=self._ledger(),
            devices=tuple(_device(self._samples[label], at) for label in sorted(self._samples)),
            loss=_number(self._loss, "loss"),
            learning_rate=_number(self._loss, "learning_rate"),
            top1=_number(self._epoch, "top1"),
            top1_epoch=int(self._epoch["epoch"]) if self._epoch else None,
            val_images=int(self._epoch.get("val_images") or 0) or None,
            left_out=self._left_out,
            warning=self.warning,
        )

    def _share(self, steps: int | None) -> float:
        if steps is None:
            return min(1.0, self._spent / self._plan.window.max_seconds)
        return min(1.0, (self._step or 0) / steps) if steps else 1.0

    def _rate(self) -> float | None:
        images = seconds = 0.0
        for one, took in reversed(self._recent):
            images, seconds = images + one, seconds + took
            if seconds >= NOW_SECONDS:
                break
        return images / seconds if seconds else None

    def _seconds_left(self, steps: int | None) -> float | None:
        if steps is None:
            return max(0.0, self._plan.window.max_seconds - self._spent) if self._spent else None
        if self._first is None or self._step is None or self._step <= self._first[1]:
            return None
        # Evaluations and checkpoints are part of the pace.
        seconds = float(self._last["time_unix_seconds"] or 0.0) - self._first[0]
        return max(0.0, seconds / (self._step - self._first[1]) * (steps - self._step))

    def _estimate(self, at: float) -> None:
        """Compute the rate so far, unless that was done a moment ago."""
        if at - self._figures.at < REFRESH_SECONDS:
            return
        figures = self._figures = _Figures(at)
        if len(self._train) < MIN_STEPS:
            return
        rows = self._train.in_order()
        images, seconds = rows[:, 0], rows[:, 1]
        found = find_steady_state(seconds, self._plan.window.warmup_steps, self._plan.window.given_warmup)
        measured = seconds[found.warmup_steps :]
        figures.state = CHANGING if found.reason == STILL_CHANGING else MEASURING
        figures.steps = len(measured)
        if not len(measured):
            return
        figures.fps = float(images[found.warmup_steps :].sum() / measured.sum())
        half = mean_estimate(measured).relative_half_width
        if half is not None:
            figures.low = figures.fps / (1 + half)
            figures.high = figures.fps / (1 - half) if half < 1 else None

    def _ledger(self) -> dict[str, float]:
        """The share of each part of training's last steps."""
        rows = self._train.in_order()[-max(self._figures.steps, 1) :]
        total = float(rows[:, 1].sum()) if len(rows) else 0.0
        if not total:
            return {}
        sums = {name: float(value) / total for name, value in zip(PARTS, rows[:, 2:].sum(axis=0), strict=True)}
        if any(sums[name] for name in SPLIT):
            sums["compute_seconds"] = max(0.0, sums["compute_seconds"] - sum(sums[name] for name in SPLIT))
        return {PARTS[name]: share for name, share in sums.items() if share >= 0.0005}


def _number(row: Mapping[str, str], name: str) -> float | None:
    return float(row[name]) if row.get(name) else None


def _device(sample: Mapping[str, str], at: float) -> DeviceNow:
    """A device's sample, or its name alone if the sample is old."""
    label = sample["device"]
    if at - float(sample["time_unix_seconds"] or 0.0) > FRESH_SECONDS:
        return DeviceNow(label)
    names = ("util_percent", "jpeg_util_percent", "memory_used_bytes", "memory_total_bytes", "power_watts",
             "temperature_celsius")  # fmt: skip
    return DeviceNow(label, *(_number(sample, name) for name in names))
