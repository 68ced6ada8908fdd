"""What disturbed a measurement from outside, assigned to the steps that it affected."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from harness.artifacts.schema import TRAIN
from harness.machine.host import HOST_LABEL

if TYPE_CHECKING:
    import pandas as pd

# The share of the host's cores that other processes keep busy; it counts only while the host is this busy.
FOREIGN_CPU_PERCENT, BUSY_PERCENT = 10.0, 80.0
STEAL_PERCENT = 5.0
# Seconds per second in which the control group's quota stops the run.
QUOTA_SHARE = 0.02
# The share of the images' bytes from which on they count as read from storage, not from the page cache.
STORAGE_SHARE = 0.1
# Programs also read other files: a lower rate than this is not a sign of cold data.
MIN_STORAGE_BYTES_PER_SECOND = 1e6
# A clock under load counts as fallen below this share of the fast clocks.
FALLEN_CLOCK, LOADED_PERCENT = 0.9, 50.0
POWER_CAP = "SwPowerCap"
# What the ranks know themselves, see the column storage_wait_seconds.
STORAGE_AWAY = "storage_away"
THROTTLE_REASONS = ("HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")
# The shares of a step's time, and of a window's, from which on interference makes it count as disturbed.
DISTURBED_STEP, DISTURBED_WINDOW = 0.5, 0.05
# A sample covers the time since the one before, unless that is more than this many sampling intervals: then telemetry
# failed, or the run was stopped.
MAX_GAP = 10.0
# The share of a window's time that telemetry must cover for its interference to be known.
COVERED_WINDOW = 0.5

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Interference:
    """What disturbed a window, and how many of its steps.

    reasons are those that disturbed at least DISTURBED_WINDOW of the window's seconds; None if telemetry covers less
    than COVERED_WINDOW of them. shares holds every reason's share of the covered seconds. Storage that was away follows
    another rule, see `window_interference`.
    """

    reasons: tuple[str, ...] | None
    interference_steps: int
    window_steps: int
    shares: dict[str, float] = field(default_factory=dict)

    @property
    def text(self) -> str | None:
        """The reasons joined by |, "none", or None if unknown."""
        return None if self.reasons is None else "|".join(self.reasons) or "none"


def mark_interference(steps: pd.DataFrame, devices: pd.DataFrame, image_bytes: float) -> pd.DataFrame:
    """Returns the steps table with its column interference filled in from the devices table.

    A step counts as disturbed by a reason that held for at least DISTURBED_STEP of its time. image_bytes is the mean
    size of a training file. Steps that no sample covers stay unknown.
    """
    import pandas as pd  # loaded already, with the tables

    ends = steps["time_unix_seconds"].to_numpy(np.float64)
    begins = ends - steps["step_seconds"].to_numpy(np.float64)
    found: dict[int, list[str]] = {}
    covered = np.zeros(len(steps), dtype=bool)
    storage_rate = STORAGE_SHARE * image_bytes * _images_per_second(steps)
    for label, samples in devices.groupby("device", sort=True):
        samples = samples[~energy_alone(samples)].sort_values("time_unix_seconds", kind="stable")
        times = samples["time_unix_seconds"].to_numpy(np.float64)
        if len(times) < 2:
            continue
        slack = float(np.median(np.diff(times)))
        covering = np.diff(times, prepend=times[0]) <= MAX_GAP * slack
        after_gap = np.flatnonzero(~covering)
        # Samples before and after a gap cover as much of it as the first and last sample cover beyond themselves.
        gap_ends = np.append(times[after_gap] - slack, np.inf)
        gap_begins = np.append(times[after_gap - 1] + slack, times[-1] + slack)
        covered |= (begins >= times[0] - slack) & (ends <= gap_begins[np.searchsorted(gap_ends, begins, "right")])
        rules = _host_rules(storage_rate) if label == HOST_LABEL else _gpu_rules()
        for reason, rule in rules.items():
            seconds = _seconds_under(times, rule(samples) & covering, begins, ends)
            for row in np.flatnonzero(seconds >= DISTURBED_STEP * (ends - begins)).tolist():
                if reason not in found.setdefault(row, []):
                    found[row].append(reason)
    away = steps["storage_wait_seconds"].to_numpy(np.float64)
    for row in np.flatnonzero((away > 0) & (away >= DISTURBED_STEP * (ends - begins))).tolist():
        found.setdefault(row, []).append(STORAGE_AWAY)
    texts: list[str | None] = ["none" if known else None for known in covered]
    for row, reasons in found.items():
        texts[row] = "|".join(reasons)
    marked: pd.DataFrame = steps.assign(interference=pd.Series(texts, index=steps.index, dtype=object))
    return marked


def window_interference(window: pd.DataFrame, measured: pd.DataFrame | None = None) -> Interference:
    """Returns the interference of measured steps, rows of a steps table with its column interference filled in.

    measured has the measured steps of all phases, by default the window. Storage that was away in any of them is a
    reason, however short it was: nothing was computed meanwhile. Its share is that of all their seconds.
    """
    measured = window if measured is None else measured
    away = [STORAGE_AWAY in str(text).split("|") for text in measured["interference"]]
    away_share = math.fsum(measured.loc[away, "step_seconds"]) / (math.fsum(measured["step_seconds"]) or 1.0)
    known = window[window["interference"].notna() & (window["interference"] != "")]
    total = math.fsum(known["step_seconds"])
    covered = 0 < total >= COVERED_WINDOW * math.fsum(window["step_seconds"])
    if not covered and not away_share:
        return Interference(None, 0, len(window))
    shares: dict[str, float] = {}
    for text, seconds in zip(known["interference"], known["step_seconds"], strict=True):
        for reason in text.split("|") if text != "none" else ():
            shares[reason] = shares.get(reason, 0.0) + seconds / total
    reasons = {reason for reason, share in shares.items() if covered and share >= DISTURBED_WINDOW}
    if away_share:
        shares[STORAGE_AWAY] = away_share
        reasons.add(STORAGE_AWAY)
    return Interference(
        tuple(sorted(reasons)),
        int((known["interference"] != "none").sum()),
        len(window),
        dict(sorted(shares.items())),
    )


Rule = Callable[["pd.DataFrame"], BoolArray]


def _host_rules(storage_rate: float) -> dict[str, Rule]:
    """Returns the rules for the host by reason.

    A rule returns for each sample whether the reason held since the sample before; unknown counts as not.
    """
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
        # At its power limit a GPU's clock follows its load.
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


def energy_alone(samples: pd.DataFrame) -> BoolArray:
    """Returns which rows have the energy counter and nothing else: readings at the ends of bursts, between samples."""
    if "energy_joules" not in samples:
        return np.zeros(len(samples), dtype=bool)
    known = samples.drop(columns=["time_unix_seconds", "device", "throttle_reasons"], errors="ignore").notna()
    return np.asarray(known["energy_joules"] & (known.sum(axis=1) == 1), dtype=bool)


def _named(texts: pd.Series[str], names: Collection[str]) -> BoolArray:
    """Returns which texts, joined by |, contain one of the names. Of millions of texts only few are different."""
    having = [text for text in texts.unique() if not set(str(text).split("|")).isdisjoint(names)]
    return np.asarray(texts.isin(having), dtype=bool)


def _at_least(values: pd.Series[float], limit: float) -> BoolArray:
    return np.asarray(values >= limit, dtype=bool)


def _per_second(samples: pd.DataFrame, column: str) -> pd.Series[float]:
    return samples[column] / samples["time_unix_seconds"].diff()


def _seconds_under(
    times: npt.NDArray[np.float64],
    held: BoolArray,
    begins: npt.NDArray[np.float64],
    ends: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Returns the seconds of each span in which a rule held; a sample covers the time since the one before it."""
    spans = np.diff(times, prepend=times[0])
    until = np.cumsum(np.where(held, spans, 0.0))
    total: npt.NDArray[np.float64] = np.interp(ends, times, until) - np.interp(begins, times, until)
    # Negative, so that a rule that never held doesn't count for a step of no length either.
    return np.where(total > 0, total, -1.0)


def _images_per_second(steps: pd.DataFrame) -> float:
    training = steps[steps["phase"] == TRAIN]
    return float(training["images"].sum() / training["step_seconds"].sum()) if len(training) else 0.0
