"""What disturbed a measurement from outside, joined to the steps it fell on."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.artifacts.schema import TRAIN
from harness.machine.host import HOST_LABEL

# A share of the host's cores that others keep busy; it disturbs where few cores are left.
FOREIGN_CPU_PERCENT, BUSY_PERCENT = 10.0, 80.0
STEAL_PERCENT = 5.0
# Seconds of a second in which the control group's quota stops the run.
QUOTA_SHARE = 0.02
# Of the images' bytes: from this share on they come from storage, not from the page cache.
STORAGE_SHARE = 0.1
# Programs read files of their own: as a rate, less than this is no sign of cold data.
MIN_STORAGE_BYTES_PER_SECOND = 1e6
# A clock below this share of the fast ones', under load.
FALLEN_CLOCK, LOADED_PERCENT = 0.9, 50.0
POWER_CAP = "SwPowerCap"
THROTTLE_REASONS = ("HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")
# Of a step's time to make it tainted, and of a window's to make the run.
TAINTED_STEP, TAINTED_WINDOW = 0.5, 0.05
# A sample speaks for the time since the one before, unless that is this many sampling intervals: then telemetry failed,
# or the run was stopped.
MAX_GAP = 10.0
# Of a window's time that telemetry must cover for anything to be said of it.
COVERED_WINDOW = 0.5

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Interference:
    """What disturbed a window, and how many of its steps.

    reasons are those of at least TAINTED_WINDOW of the window's seconds, None where telemetry covers less than
    COVERED_WINDOW of it; shares holds every reason's share of the covered seconds.
    """

    reasons: tuple[str, ...] | None
    interference_steps: int
    window_steps: int
    shares: dict[str, float] = field(default_factory=dict)

    @property
    def text(self) -> str | None:
        """The reasons joined by |, "none", or None where unknown."""
        return None if self.reasons is None else "|".join(self.reasons) or "none"


def mark_interference(steps: pd.DataFrame, devices: pd.DataFrame, image_bytes: float) -> pd.DataFrame:
    """The steps table with its column taint filled in from the devices table.

    A step is tainted by what held for at least half of its time; image_bytes is a training file's mean size. Steps that
    no sample covers stay unknown.
    """
    ends = steps["time_unix_seconds"].to_numpy(np.float64)
    begins = ends - steps["step_seconds"].to_numpy(np.float64)
    found: dict[int, list[str]] = {}
    covered = np.zeros(len(steps), dtype=bool)
    storage_rate = STORAGE_SHARE * image_bytes * _images_per_second(steps)
    for label, samples in devices.groupby("device", sort=True):
        samples = samples.sort_values("time_unix_seconds", kind="stable")
        times = samples["time_unix_seconds"].to_numpy(np.float64)
        if len(times) < 2:
            continue
        slack = float(np.median(np.diff(times)))
        spoken_for = np.diff(times, prepend=times[0]) <= MAX_GAP * slack
        behind_gap = np.flatnonzero(~spoken_for)
        # Samples before and behind a gap reach as far into it as those at the run's ends reach out.
        gap_ends = np.append(times[behind_gap] - slack, np.inf)
        gap_begins = np.append(times[behind_gap - 1] + slack, times[-1] + slack)
        covered |= (begins >= times[0] - slack) & (ends <= gap_begins[np.searchsorted(gap_ends, begins, "right")])
        rules = _host_rules(storage_rate) if label == HOST_LABEL else _gpu_rules()
        for reason, rule in rules.items():
            seconds = _seconds_under(times, rule(samples) & spoken_for, begins, ends)
            for row in np.flatnonzero(seconds >= TAINTED_STEP * (ends - begins)).tolist():
                if reason not in found.setdefault(row, []):
                    found[row].append(reason)
    texts: list[str | None] = ["none" if known else None for known in covered]
    for row, reasons in found.items():
        texts[row] = "|".join(reasons)
    marked: pd.DataFrame = steps.assign(interference=pd.Series(texts, index=steps.index, dtype=object))
    return marked


def window_interference(window: pd.DataFrame) -> Interference:
    """The taint of measured steps, rows of a steps table with its column taint filled in."""
    known = window[window["interference"].notna() & (window["interference"] != "")]
    total = math.fsum(known["step_seconds"])
    if total == 0 or total < COVERED_WINDOW * math.fsum(window["step_seconds"]):
        return Interference(None, 0, len(window))
    shares: dict[str, float] = {}
    for text, seconds in zip(known["interference"], known["step_seconds"], strict=True):
        for reason in text.split("|") if text != "none" else ():
            shares[reason] = shares.get(reason, 0.0) + seconds / total
    reasons = tuple(sorted(reason for reason, share in shares.items() if share >= TAINTED_WINDOW))
    return Interference(
        reasons, int((known["interference"] != "none").sum()), len(window), dict(sorted(shares.items()))
    )


Rule = Callable[[pd.DataFrame], BoolArray]


def _host_rules(storage_rate: float) -> dict[str, Rule]:
    """Reasons on the host; a rule says for each sample whether it held since the one before. Unknown is no."""
    return {
        "foreign_cpu": lambda s: (
            _at_least(s["foreign_util_percent"], FOREIGN_CPU_PERCENT) & _at_least(s["util_percent"], BUSY_PERCENT)
        ),
        "cpu_steal": lambda s: _at_least(s["steal_percent"], STEAL_PERCENT),
        "cpu_quota": lambda s: _at_least(_per_second(s, "quota_throttled_seconds"), QUOTA_SHARE),
        "swap": lambda s: _at_least(s["swap_bytes"], 1.0),
        "cold_data": lambda s: _at_least(
            _per_second(s, "storage_read_bytes"), max(storage_rate, MIN_STORAGE_BYTES_PER_SECOND)
        ),
    }


def _gpu_rules() -> dict[str, Rule]:
    def throttled(samples: pd.DataFrame) -> BoolArray:
        return _named(samples["throttle_reasons"], THROTTLE_REASONS)

    def clock_fell(samples: pd.DataFrame) -> BoolArray:
        clocks = samples["sm_clock_mhz"]
        # A card at its power limit clocks as its load lets it.
        capped = _named(samples["throttle_reasons"], (POWER_CAP,))
        loaded: BoolArray = _at_least(samples["util_percent"], LOADED_PERCENT) & ~capped
        if not loaded.any():
            return loaded
        below: BoolArray = (clocks < FALLEN_CLOCK * clocks[loaded].quantile(0.95)).to_numpy(bool)
        return below & loaded

    return {
        "gpu_throttled": throttled,
        "gpu_clock_fell": clock_fell,
        "foreign_gpu_process": lambda s: _at_least(s["processes"], 2.0),
    }


def _named(texts: pd.Series[str], names: Collection[str]) -> BoolArray:
    """Which texts, joined by |, have one of the names in them; few differ among millions."""
    having = [text for text in texts.unique() if not set(str(text).split("|")).isdisjoint(names)]
    return np.asarray(texts.isin(having), dtype=bool)


def _at_least(values: pd.Series[float], limit: float) -> BoolArray:
    return np.asarray(values >= limit, dtype=bool)


def _per_second(samples: pd.DataFrame, column: str) -> pd.Series[float]:
    return samples[column] / samples["time_unix_seconds"].diff()


def _seconds_under(
    times: npt.NDArray[np.float64],
    met: BoolArray,
    begins: npt.NDArray[np.float64],
    ends: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """For each span the seconds in which a rule was met; a sample speaks for the time since the one before it."""
    spans = np.diff(times, prepend=times[0])
    until = np.cumsum(np.where(met, spans, 0.0))
    total: npt.NDArray[np.float64] = np.interp(ends, times, until) - np.interp(begins, times, until)
    # A rule that no sample met leaves nothing to a step of no length either.
    return np.where(total > 0, total, -1.0)


def _images_per_second(steps: pd.DataFrame) -> float:
    training = steps[steps["phase"] == TRAIN]
    return float(training["images"].sum() / training["step_seconds"].sum()) if len(training) else 0.0
