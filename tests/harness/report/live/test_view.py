"""A run at one moment, on terminals of any size and as a line."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from harness.report.live.now import DeviceNow, Now
from harness.report.live.view import clock, event, one_line, screen

GPUS = tuple(DeviceNow(f"gpu{rank}", 97.0, 40.0, 30 * 2**30, 80 * 2**30, 312.0, 61.0) for rank in range(4))
NOW = Now(
    run="first", what="PPLCNet_x1_0 on 4 x NVIDIA H200", doing="training", state="measuring", epoch=3, epochs=360,
    step=1872, steps=225_360, share_done=0.008, seconds=3723.0, seconds_left=90_061.0, fps_now=2512.4, fps=2501.25,
    fps_low=2490.0, fps_high=2512.0, measured_steps=1850,
    ledger={"data": 0.05, "forward": 0.3, "backward": 0.6, "between steps": 0.05},
    devices=(DeviceNow("cpu", 55.0, None, 2**33, 2**36), *GPUS), loss=3.2, learning_rate=0.4, top1=0.61234,
    top1_epoch=2, val_images=50_000, left_out=3, warning="2 threads are too few",
)  # fmt: skip


def lines(now: Now, width: int, height: int) -> list[str]:
    return [line.plain for line in screen(now, width, height)]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 50)])
def test_a_usual_window_shows_everything(width: int, height: int) -> None:
    shown = lines(NOW, width, height)
    assert len(shown) <= height
    assert max(map(len, shown)) <= width
    text = "\n".join(shown)
    for part in (
        "PPLCNet_x1_0 on 4 x NVIDIA H200", "run first", "1:02:03", "1 day 1:01:01 left", "training", "2,512.4 now",
        "2,501.2 (2,490.0 to 2,512.0)", "f forward 30%", "3.2", "learning rate 0.4", "top-1 0.6123", "3 images",
        "2 threads are too few",
    ):  # fmt: skip
        assert part in text, part
    assert "more line" not in text
    bar = next(line for line in shown if line.startswith("time"))
    assert bar.count("b") == pytest.approx(0.6 * (width - 14), abs=1)
    assert bar.count("d") == pytest.approx(0.05 * (width - 14), abs=1)


def test_what_a_device_does_not_report_is_a_dash() -> None:
    shown = lines(NOW, 80, 24)
    (cpu,) = [line for line in shown if line.startswith("cpu")]
    assert cpu.split() == ["cpu", "55", "%", "-", "8.0", "/", "64", "-", "-"]
    (gpu,) = [line for line in shown if line.startswith("gpu3")]
    assert gpu.split() == ["gpu3", "97", "%", "40", "%", "30.0", "/", "80", "312", "W", "61", "C"]


@pytest.mark.parametrize("height", range(1, 14))
def test_a_small_window_shows_what_matters_most_and_says_what_it_left_out(height: int) -> None:
    shown = lines(NOW, 80, height)
    assert len(shown) == min(height, len(lines(NOW, 80, 100)))
    left_out = len(lines(NOW, 80, 100)) - len(shown) + 1
    if left_out > 1:
        assert shown[-1].startswith(f"... {left_out} more line")
    if height > 1:
        assert "PPLCNet_x1_0" in shown[0]
    if height > 4:
        assert any("2,512.4 now" in line for line in shown)


@pytest.mark.parametrize("width", [10, 40, 60])
def test_a_narrow_window_cuts_lines_and_not_the_picture(width: int) -> None:
    shown = lines(NOW, width, 24)
    assert max(map(len, shown)) <= max(width, 40)
    assert len(shown) == len(lines(NOW, 200, 24))


def test_the_beginning_of_a_run() -> None:
    shown = lines(Now("first", "PPLCNet_x1_0 on 2 x CPU", "starting the ranks", steps=30), 80, 24)
    assert shown[0] == "PPLCNet_x1_0 on 2 x CPU, run first"
    assert shown[2] == "now         starting the ranks"
    assert shown[3] == "images/s    no step yet"
    assert len(shown) == 4


def test_one_line_for_logs() -> None:
    assert one_line(NOW) == (
        "1:02:03 training, epoch 3 of 360, step 1,872 of 225,360, 2,512.4 images/s now, 2,501.2 (2,490.0 to 2,512.0)"
        " so far, loss 3.2, top-1 0.6123, 3 left out, 1 day 1:01:01 left"
    )
    assert one_line(Now("first", "x", "starting the ranks")) == "0:00:00 starting the ranks"


def test_an_event_has_what_is_known() -> None:
    found = json.loads(json.dumps(event(NOW)))
    assert found["devices"][1]["label"] == "gpu0"
    assert found["fps_low"] == 2490.0
    assert "fps" not in event(replace(NOW, fps=None))


@pytest.mark.parametrize("name", ["\x1b[31mred", "[bold]x[/]", "a\nb"])
def test_names_are_text(name: str) -> None:
    shown = lines(replace(NOW, run=name, warning=name, what=name), 80, 24)
    assert not any("\x1b" in line or "\n" in line for line in shown)
    assert len(shown) == len(lines(NOW, 80, 24))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3600, "1:00:00"), (86_400 * 2 + 5, "2 days 0:00:05")]
)
def test_durations(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_narrow_legend_leaves_out_the_smallest_parts_whole() -> None:
    ledger = {
        "data": 0.04,
        "forward": 0.35,
        "backward": 0.55,
        "optimizer": 0.05,
        "recording": 0.001,
        "between steps": 0.01,
    }
    legends = {width: lines(replace(NOW, ledger=ledger), width, 24)[5].strip() for width in (78, 120)}
    assert (
        legends[120] == "d data 4%, f forward 35%, b backward 55%, o optimizer 5%, r recording 0%, x between steps 1%"
    )
    assert legends[78] == "d data 4%, f forward 35%, b backward 55%, o optimizer 5%"


def test_the_rates_of_a_run_that_is_measured_fit_into_a_window_of_80() -> None:
    (line,) = [line for line in lines(replace(NOW, fps_now=12_512.4), 78, 24) if line.startswith("images/s")]
    assert line.endswith("in 1,850 training steps")
