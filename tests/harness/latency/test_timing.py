"""The timed loop, with a clock of the test's own, and what every call's logits must be."""

from __future__ import annotations

import numpy as np
import pytest

from harness.latency.engines import Images
from harness.latency.timing import LogitsCheck, OtherLogitsError, time_calls

IMAGES = np.zeros((1, 3, 2, 2), np.float32)
LOGITS = np.array([[1.0, -4.0, 2.0]], np.float32)


class Clock:
    """Seconds that pass when a call or a check takes them."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.seconds

    def call(self, images: Images) -> Images:
        """A call of 0.25 s."""
        assert images is IMAGES
        self.calls.append("call")
        self.seconds += 0.25
        return LOGITS

    def check(self, logits: Images) -> float:
        """A check of 0.5 s."""
        assert logits is LOGITS
        self.calls.append("check")
        self.seconds += 0.5
        return 1e-6 * self.calls.count("check")

    def mark(self) -> None:
        """What comes before each call takes 1 s."""
        self.calls.append("mark")
        self.seconds += 1.0


def test_calls_alone_are_timed_and_each_is_checked() -> None:
    clock = Clock()
    found, worst = time_calls(clock.call, IMAGES, clock.check, 3.0, 1, clock=clock, before=clock.mark)
    assert found == [250.0, 250.0]
    assert worst == 2e-6
    assert clock.calls == ["mark", "call", "check", "mark", "call", "check"]


def test_there_are_at_least_as_many_calls_as_asked_for() -> None:
    clock = Clock()
    found, _ = time_calls(clock.call, IMAGES, clock.check, 0.0, 7, clock=clock)
    assert found == [250.0] * 7


def test_the_difference_is_a_share_of_the_largest_logit() -> None:
    check = LogitsCheck(LOGITS, 0.01)
    assert check(LOGITS) == 0.0
    assert check(LOGITS + np.array([[0.0, 0.0, 0.02]], np.float32)) == pytest.approx(0.005)


@pytest.mark.parametrize(
    "logits",
    [
        LOGITS + np.array([[0.05, 0.0, 0.0]], np.float32),
        LOGITS[:, ::-1],
        np.full_like(LOGITS, np.nan),
        np.array([[1.0, np.nan, 2.0]], np.float32),
    ],
)
def test_other_logits_are_another_network(logits: Images) -> None:
    with pytest.raises(OtherLogitsError, match="logits differ"):
        LogitsCheck(LOGITS, 0.01)(logits)


def test_where_every_logit_is_zero_the_difference_itself_counts() -> None:
    check = LogitsCheck(np.zeros_like(LOGITS), 0.01)
    assert check(np.zeros_like(LOGITS)) == 0.0
    with pytest.raises(OtherLogitsError):
        check(LOGITS)


def test_logits_of_another_shape() -> None:
    with pytest.raises(OtherLogitsError, match=r"shape \(1, 2\) instead of \(1, 3\)"):
        LogitsCheck(LOGITS, 0.01)(LOGITS[:, :2])


def test_a_call_with_other_logits_ends_the_turn() -> None:
    answers = iter([LOGITS, LOGITS, -LOGITS])
    with pytest.raises(OtherLogitsError):
        time_calls(lambda _: next(answers), IMAGES, LogitsCheck(LOGITS, 0.01), 60.0, 1)
