"""What is known of a run while it goes on, from its tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts.record import RunFiles
from harness.artifacts.schema import BAD_IMAGES, DEVICES, EPOCHS, STEPS, Table
from harness.artifacts.tables import TableWriter
from harness.plan.kinds import EPOCHS as OF_EPOCHS
from harness.plan.kinds import EVALUATION, THROUGHPUT, RunKind
from harness.report.live.feed import KEPT_STEPS, REFRESH_SECONDS, Feed
from harness.report.live.now import DeviceNow, Now
from tests.support.plans import a_plan

BEGUN = 1000.0


def step(number: int, **changes: Any) -> dict[str, Any]:
    """A step of half a second: a fifth of it waits for data, the rest computes."""
    row = {
        "phase": "train", "segment": 1, "epoch": 1, "step": number, "time_unix_seconds": BEGUN + number / 2,
        "images": 64, "step_seconds": 0.5, "fps": 128.0, "data_wait_seconds": 0.1, "copy_seconds": 0.0,
        "compute_seconds": 0.4, "recording_seconds": 0.0, "exchange_seconds": 0.0, "loss": 3.5, "learning_rate": 0.1,
    }  # fmt: skip
    return {**row, **changes}


class Followed:
    """A run whose tables grow, and whose clock is moved by hand."""

    def __init__(self, folder: Path, kind: RunKind = OF_EPOCHS, earlier: Sequence[dict[str, Any]] = ()) -> None:
        self.files, self.time = RunFiles(folder, "it"), BEGUN
        if earlier:
            self.add(STEPS, *earlier)
        plan = a_plan(kind=kind, epochs=3, steps_per_epoch=10, max_seconds=45.0, warmup_steps=2)
        self.feed = Feed(plan, self.files, BEGUN, lambda: self.time)

    def add(self, table: Table, *rows: dict[str, Any]) -> None:
        with TableWriter(self.files.table(table.name), table) as writer:
            for row in rows:
                writer.write(row)

    def now(self) -> Now:
        self.time += REFRESH_SECONDS
        self.feed.read()
        return self.feed.now()


def test_before_the_first_step_the_ranks_are_starting(tmp_path: Path) -> None:
    now = Followed(tmp_path).now()
    assert (now.doing, now.state, now.step, now.fps, now.fps_now) == ("starting the ranks", "", None, None, None)
    assert (now.steps, now.share_done, now.seconds_left, now.seconds) == (30, 0.0, None, REFRESH_SECONDS)
    assert now.what == "PPLCNet_x0_25 on 2 x CPU"


def test_the_last_step_says_what_is_going_on(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "training"), ({"phase": "evaluate"}, "evaluating"),
        ({"phase": "checkpoint", "step": None, "images": 0, "loss": None}, "saving"),
        ({"phase": "pipeline", "epoch": None}, "pipeline only"),
        ({"phase": "compute_no_sync", "epoch": None}, "compute, no exchange"),
    ]  # fmt: skip
    for changes, doing in cases:
        followed.add(STEPS, step(1, **changes))
        assert followed.now().doing == doing


def test_the_rate_now_is_that_of_the_phase_s_last_steps(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    followed.add(STEPS, step(1, step_seconds=5.0), *(step(number, images=32) for number in range(2, 30)))
    assert followed.now().fps_now == pytest.approx(64.0)
    followed.add(STEPS, step(1, phase="evaluate", images=640))
    assert followed.now().fps_now == pytest.approx(1280.0)


def test_the_rate_so_far_begins_after_the_warm_up(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    followed.add(STEPS, *(step(number, step_seconds=2.0) for number in range(1, 6)))
    assert followed.now().state == "warming up"
    assert followed.now().fps is None
    followed.add(STEPS, *(step(number, step_seconds=0.5 + 0.001 * (number % 3)) for number in range(6, 60)))
    now = followed.now()
    assert now.state == "measuring"
    assert now.measured_steps == 54
    assert now.fps is not None
    assert now.fps_low is not None
    assert now.fps_high is not None
    assert now.fps == pytest.approx(64 / 0.501, rel=1e-3)
    assert now.fps_low < now.fps < now.fps_high
    assert now.ledger == pytest.approx({"data": 0.1 / 0.501, "compute": 0.4 / 0.501}, rel=1e-2)


def test_it_is_computed_now_and_then(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    followed.add(STEPS, *(step(number) for number in range(1, 31)))
    first = followed.now().measured_steps
    followed.add(STEPS, *(step(number) for number in range(31, 41)))
    followed.feed.read()
    assert followed.feed.now().measured_steps == first
    assert followed.now().measured_steps == first + 10


def test_steps_in_which_another_phase_shows_do_not_count(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    followed.add(STEPS, *(step(number, transition=int(number % 2)) for number in range(1, 61)))
    assert followed.now().measured_steps <= 30


def test_a_split_into_passes_is_in_the_ledger(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    split = {"forward_seconds": 0.1, "backward_seconds": 0.2, "optimizer_seconds": 0.1}
    followed.add(STEPS, *(step(number, **split) for number in range(1, 31)))
    assert followed.now().ledger == pytest.approx({"data": 0.2, "forward": 0.2, "backward": 0.4, "optimizer": 0.2})


def test_a_run_of_epochs_is_as_far_as_its_training_steps(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    followed.add(STEPS, *(step(number) for number in range(1, 11)), step(1, phase="evaluate", time_unix_seconds=1006.0))
    now = followed.now()
    assert (now.step, now.steps, now.epoch, now.epochs) == (10, 30, 1, 3)
    assert now.share_done == pytest.approx(1 / 3)
    # Nine steps and the evaluation took 5.5 s.
    assert now.seconds_left == pytest.approx(5.5 / 9 * 20)


def test_a_resumed_run_is_as_far_as_it_was_and_its_pace_is_its_own(tmp_path: Path) -> None:
    followed = Followed(tmp_path, earlier=[step(number, step_seconds=50.0) for number in range(1, 13)])
    followed.feed.resume(12)
    now = followed.now()
    assert (now.step, now.doing, now.seconds_left, now.fps_now) == (12, "starting the ranks", None, None)
    followed.add(STEPS, step(13, time_unix_seconds=2000.0), step(14, time_unix_seconds=2001.0))
    now = followed.now()
    assert now.step == 14
    assert now.seconds_left == pytest.approx(16.0)


def test_throughput_alone_is_as_far_as_its_measured_time(tmp_path: Path) -> None:
    followed = Followed(tmp_path, THROUGHPUT)
    followed.add(STEPS, step(1, epoch=None, step_seconds=10.0), step(1, epoch=None, phase="pipeline", step_seconds=5.0))
    now = followed.now()
    assert now.share_done == pytest.approx(1 / 3)
    assert now.seconds_left == pytest.approx(30.0)
    assert (now.steps, now.epochs, now.epoch) == (None, None, None)


def test_an_evaluation_is_as_far_as_its_steps(tmp_path: Path) -> None:
    """450 validation images on 2 ranks in batches of 32: 8 steps."""
    followed = Followed(tmp_path, EVALUATION)
    followed.add(STEPS, step(2, phase="evaluate", epoch=0))
    now = followed.now()
    assert (now.step, now.steps, now.share_done, now.epoch) == (2, 8, 0.25, None)


def test_devices_are_as_in_their_last_sample_unless_it_is_old(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    sample = {"device": "gpu0", "time_unix_seconds": BEGUN, "util_percent": 90.0, "memory_used_bytes": 2**30,
              "memory_total_bytes": 2**34, "power_watts": 300.0, "temperature_celsius": 60.0}  # fmt: skip
    followed.add(DEVICES, {"device": "cpu", "time_unix_seconds": BEGUN, "util_percent": 55.0}, sample)
    followed.add(DEVICES, {"device": "gpu0", "time_unix_seconds": BEGUN + 1, "energy_joules": 5.0})
    now = followed.now()
    assert now.devices == (
        DeviceNow("cpu", util_percent=55.0), DeviceNow("gpu0", 90.0, None, 2**30, 2**34, 300.0, 60.0),
    )  # fmt: skip
    followed.time += 100
    assert followed.now().devices == (DeviceNow("cpu"), DeviceNow("gpu0"))


def test_what_training_learns_is_known_after_each_step_and_epoch(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    followed.add(STEPS, step(1, loss=2.25, learning_rate=0.4), step(1, phase="evaluate", loss=9.0, learning_rate=None))
    followed.add(EPOCHS, {"epoch": 2, "top1": 0.75, "val_images": 450})
    now = followed.now()
    assert (now.loss, now.learning_rate, now.top1, now.top1_epoch, now.val_images) == (2.25, 0.4, 0.75, 2, 450)


def test_images_left_out_are_counted(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    assert followed.now().left_out == 0
    with TableWriter(followed.files.table(BAD_IMAGES.name), BAD_IMAGES) as writer:
        for number in range(3):
            writer.write({"split": "train", "path": f'{number}"\n=caf\udce9.jpg', "label": 0, "reason": "0 bytes"})
    assert followed.now().left_out == 3


@pytest.mark.parametrize("empty", ["fps", "step_seconds", "step", "epoch", "loss", "images", "time_unix_seconds"])
def test_an_empty_cell_ends_nothing(tmp_path: Path, empty: str) -> None:
    """Case E12."""
    followed = Followed(tmp_path)
    followed.add(STEPS, step(1), step(2), step(3, **{empty: None}))
    assert followed.now().step == (2 if empty in ("step", "time_unix_seconds") else 3)


def test_a_table_that_can_not_be_read_for_a_while_ends_nothing(tmp_path: Path) -> None:
    """A folder in its place stands in for a disk that fails."""
    followed = Followed(tmp_path)
    path = followed.files.table(STEPS.name)
    followed.add(STEPS, step(1), step(2))
    assert followed.now().step == 2
    path.rename(tmp_path / "aside")
    path.mkdir()
    assert followed.now().step == 2
    path.rmdir()
    (tmp_path / "aside").rename(path)
    followed.add(STEPS, step(3))
    assert followed.now().step == 3


def test_of_a_long_run_the_last_rows_are_read(tmp_path: Path) -> None:
    rows = [step(number) for number in range(1, 20_001)]
    followed = Followed(tmp_path, earlier=rows)
    followed.feed.skip_to_last()
    now = followed.now()
    assert now.step == 20_000
    assert now.measured_steps <= KEPT_STEPS
    assert now.fps == pytest.approx(128.0)
