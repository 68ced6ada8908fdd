"""Disturbances, joined to the steps they fell on by the time of day."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.analysis.interference import mark_interference, window_interference
from tests.support.frames import steps_frame

HOST = {"device": "cpu", "util_percent": 95.0, "foreign_util_percent": 1.0, "steal_percent": 0.0, "swap_bytes": 0.0,
        "storage_read_bytes": 0.0, "quota_throttled_seconds": 0.0}  # fmt: skip
GPU = {"device": "gpu0", "util_percent": 99.0, "sm_clock_mhz": 1400.0, "throttle_reasons": "none", "processes": 1.0}


def samples(base: dict[str, Any], **columns: list[Any]) -> pd.DataFrame:
    """A sample every half second from 1000 s on; columns are given as lists."""
    count = len(next(iter(columns.values()))) if columns else 21
    rows = [{**base, "time_unix_seconds": 1000.0 + 0.5 * i, **{name: value[i] for name, value in columns.items()}}
            for i in range(count)]  # fmt: skip
    frame: pd.DataFrame = pd.DataFrame(rows)
    return frame


def taints(devices: pd.DataFrame, steps: int = 100, seconds: float = 0.1) -> list[Any]:
    return mark_interference(steps_frame(*[{"step_seconds": seconds}] * steps), devices, image_bytes=1e5)[
        "interference"
    ].tolist()


def test_a_quiet_machine_taints_nothing() -> None:
    assert set(taints(pd.concat([samples(HOST), samples(GPU)]))) == {"none"}


def test_only_the_steps_under_a_disturbance_are_tainted() -> None:
    foreign = [60.0 if 5 <= i <= 8 else 2.0 for i in range(21)]  # speaks for 1002.0 to 1004.0 s
    found = taints(samples(HOST, foreign_util_percent=foreign))
    assert [index for index, interference in enumerate(found) if interference == "foreign_cpu"] == list(range(20, 40))
    assert set(found) == {"none", "foreign_cpu"}


def test_readings_of_energy_alone_change_nothing() -> None:
    """They are made at the ends of blocks, and know nothing of what disturbs a GPU."""
    throttled = ["HwSlowdown" if 5 <= i <= 8 else "none" for i in range(21)]
    sampled = samples({**GPU, "energy_joules": 5.0}, throttle_reasons=throttled)
    unknown = dict.fromkeys(("util_percent", "sm_clock_mhz", "processes")) | {"throttle_reasons": ""}
    alone = sampled.assign(time_unix_seconds=sampled["time_unix_seconds"] + 0.4, **unknown)
    expected = taints(sampled)
    assert expected.count("gpu_throttled") == 20
    assert taints(pd.concat([sampled, alone])) == expected


def test_steps_in_a_gap_of_the_samples_are_unknown() -> None:
    """From 1002 s to 1008 s nothing was sampled; the first sample behind it speaks for no more than itself."""
    quiet = samples(HOST, foreign_util_percent=[60.0 if i == 16 else 1.0 for i in range(21)])
    found = taints(quiet[(quiet["time_unix_seconds"] <= 1002.0) | (quiet["time_unix_seconds"] >= 1008.0)])
    # Half a second to both sides of the gap counts as covered, as before the first sample and behind the last.
    assert found[:25] == ["none"] * 25
    assert found[25:75] == [None] * 50
    assert found[75:] == ["none"] * 25


def test_a_long_step_is_tainted_by_half_of_its_time() -> None:
    foreign = [60.0 if i in (1, 2) else 2.0 for i in range(21)]  # 1 s
    assert taints(samples(HOST, foreign_util_percent=foreign), steps=5, seconds=2.0)[0] == "foreign_cpu"
    foreign = [60.0 if i == 1 else 2.0 for i in range(21)]  # half a second
    assert taints(samples(HOST, foreign_util_percent=foreign), steps=5, seconds=2.0)[0] == "none"


@pytest.mark.parametrize(
    ("base", "column", "value", "reason"),
    [
        (HOST, "steal_percent", 10.0, "cpu_steal"),
        (HOST, "swap_bytes", 1.0, "swap"),
        (HOST, "quota_throttled_seconds", 0.02, "cpu_quota"),
        (HOST, "storage_read_bytes", 2e6, "cold_data"),
        (GPU, "throttle_reasons", "SwPowerCap|HwThermalSlowdown", "gpu_throttled"),
        (GPU, "processes", 2.0, "foreign_gpu_process"),
    ],
)
def test_each_reason(base: dict[str, Any], column: str, value: Any, reason: str) -> None:
    assert set(taints(samples(base, **{column: [value] * 21}))) == {reason}


@pytest.mark.parametrize(
    ("base", "column", "value"),
    [
        (HOST, "steal_percent", 4.9),
        (HOST, "storage_read_bytes", 1e6),  # of 320 images/s x 100 kB in half a second: 6 %
        (HOST, "foreign_util_percent", 9.0),
        (GPU, "throttle_reasons", "SwPowerCap"),  # a GPU at its power limit does what it is sold for
        (GPU, "throttle_reasons", np.nan),
        (GPU, "processes", np.nan),
        (HOST, "swap_bytes", np.nan),
    ],
)
def test_what_is_no_disturbance(base: dict[str, Any], column: str, value: Any) -> None:
    assert set(taints(samples(base, **{column: [value] * 21}))) == {"none"}


def test_a_clock_that_falls_under_load() -> None:
    clocks = [1400.0] * 11 + [1200.0] * 10
    found = taints(samples(GPU, sm_clock_mhz=clocks))
    assert found[:50] == ["none"] * 50
    assert found[50:] == ["gpu_clock_fell"] * 50
    idle = samples(GPU, sm_clock_mhz=clocks, util_percent=[99.0] * 11 + [10.0] * 10)
    assert set(taints(idle)) == {"none"}


def test_two_devices_and_two_reasons() -> None:
    devices = pd.concat([samples(GPU), samples({**GPU, "device": "gpu1"}, processes=[2.0] * 21),
                         samples(HOST, swap_bytes=[1.0] * 21)])  # fmt: skip
    assert set(taints(devices)) == {"swap|foreign_gpu_process"}


def test_steps_without_samples_are_unknown() -> None:
    assert set(taints(samples(HOST).iloc[:0])) == {None}
    found = taints(samples(HOST), steps=200)
    assert found[0] == "none"
    assert found[-1] is None


def test_a_window_is_tainted_from_a_twentieth_of_its_time_on() -> None:
    window = steps_frame(*[{"interference": "swap"}] * 5, *[{"interference": "cpu_steal|swap"}] * 4, *[{}] * 91)
    found = window_interference(window)
    assert (found.reasons, found.text) == (("swap",), "swap")
    assert (found.interference_steps, found.window_steps) == (9, 100)
    assert found.shares == pytest.approx({"cpu_steal": 0.04, "swap": 0.09})


def test_a_step_that_waited_for_storage_is_tainted_with_or_without_telemetry() -> None:
    """Case B1: for half of its time or more; a shorter wait is not what made it long."""
    steps = steps_frame(
        *[{"storage_wait_seconds": 0.0}] * 3, {"step_seconds": 2.0, "storage_wait_seconds": 1.9},
        {"step_seconds": 2.0, "storage_wait_seconds": 0.9},
    )  # fmt: skip
    sampled = mark_interference(steps, samples(HOST), image_bytes=1e5)["interference"].tolist()
    assert sampled == ["none"] * 3 + ["storage_away", "none"]
    alone = mark_interference(steps, samples(HOST).iloc[:0], image_bytes=1e5)["interference"].tolist()
    assert alone == [None] * 3 + ["storage_away", None]


def test_storage_that_was_away_taints_a_window_however_short_it_was_and_in_any_phase() -> None:
    """Case B1: a lower throughput never passes for the machine's."""
    away = {"interference": "storage_away|swap"}
    found = window_interference(steps_frame(*[{}] * 99, away))
    assert (found.text, found.interference_steps) == ("storage_away", 1)
    assert found.shares == pytest.approx({"storage_away": 0.01, "swap": 0.01})
    window = steps_frame(*[{}] * 99)
    found = window_interference(window, pd.concat([window, steps_frame(away)], ignore_index=True))
    assert (found.text, found.interference_steps, found.shares) == ("storage_away", 0, {"storage_away": 0.01})
    unknown = window_interference(steps_frame(*[{"interference": None}] * 99, {"interference": "storage_away"}))
    assert unknown.text == "storage_away"


def test_a_clean_and_an_unknown_window() -> None:
    assert window_interference(steps_frame(*[{}] * 5)).text == "none"
    unknown = window_interference(steps_frame(*[{"interference": None}] * 5))
    assert (unknown.reasons, unknown.text) == (None, None)
