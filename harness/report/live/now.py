"""What is known of a run at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# The state of a run whose rate so far is known, and steady as far as one can tell.
MEASURING = "measuring"


@dataclass(frozen=True, slots=True)
class DeviceNow:
    """A device's last sample; what it doesn't report is None. Memory is in bytes."""

    label: str
    util_percent: float | None = None
    jpeg_util_percent: float | None = None
    memory_used_bytes: float | None = None
    memory_total_bytes: float | None = None
    power_watts: float | None = None
    temperature_celsius: float | None = None


@dataclass(frozen=True, slots=True)
class Now:
    """A run at one moment; what isn't known yet is None, or empty. Rates are global, in images per second.

    doing is the phase of the last step. step and steps count what the run's length is in: training steps, those of an
    evaluation, or None for a run that measures for a time. share_done is from 0 to 1. fps_now is the rate of the last
    steps; fps is that of training's steps since the warm-up as found so far, measured_steps their number, with the 95 %
    interval from fps_low to fps_high. state says whether the run warms up. ledger has the share of each part of these
    steps. seconds_left is a guess from the pace so far. top1 is that of the last epoch, of val_images images. warning
    is the last one.
    """

    run: str
    what: str
    doing: str
    state: str = ""
    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    steps: int | None = None
    share_done: float = 0.0
    seconds: float = 0.0
    seconds_left: float | None = None
    fps_now: float | None = None
    fps: float | None = None
    fps_low: float | None = None
    fps_high: float | None = None
    measured_steps: int = 0
    ledger: Mapping[str, float] = field(default_factory=dict)
    devices: tuple[DeviceNow, ...] = ()
    loss: float | None = None
    learning_rate: float | None = None
    top1: float | None = None
    top1_epoch: int | None = None
    val_images: int | None = None
    left_out: int = 0
    warning: str = ""
