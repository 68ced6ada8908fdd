"""How many images are left out, and the limits on that."""

from __future__ import annotations

import pytest

from harness.plan.kinds import EVALUATION, THROUGHPUT
from harness.plan.left_out import LeftOut, Limit, split_sizes
from tests.support.plans import a_plan


def test_a_kind_of_run_loses_images_of_the_splits_that_it_reads() -> None:
    assert split_sizes(a_plan()) == {"val": 450, "train": 1347}
    assert split_sizes(a_plan(kind=THROUGHPUT)) == {"train": 1347}
    assert split_sizes(a_plan(kind=EVALUATION)) == {"val": 450}


def test_what_is_left_out_in_words() -> None:
    left_out = LeftOut({"train": 3, "val": 45}, {"val": 50, "train": 1_281_167})
    assert left_out.parts == ["45 of 50 validation images", "3 of 1,281,167 training images"]
    assert (left_out.total, left_out.max_share, left_out.whole_splits) == (48, 0.9, [])
    assert LeftOut({}, {"val": 50}).parts == []
    assert LeftOut({"val": 50}, {"val": 50, "train": 9}).whole_splits == ["val"]


@pytest.mark.parametrize(
    ("count", "size", "limit", "wider"),
    [
        (1, 100, Limit(), []),
        (2, 100, Limit(), ["--max-bad-share 0.02"]),
        (1, 50, Limit(), ["--max-bad-share 0.02"]),
        (29, 100, Limit(max_share=0.29), []),
        (100, 50_000, Limit(), []),
        (101, 50_000, Limit(), ["--max-bad-images 101"]),
        (45, 50, Limit(10), ["--max-bad-images 45", "--max-bad-share 0.9"]),
        (1, 3, Limit(), ["--max-bad-share 0.34"]),
        (2, 3, Limit(), ["--max-bad-share 0.67"]),
        (7, 1_281_167, Limit(max_share=0.0), ["--max-bad-share 0.0000055"]),
        (99, 100, Limit(), ["--max-bad-share 0.99"]),
        (999, 1000, Limit(5000), ["--max-bad-share 1"]),
    ],
)
def test_a_limit_is_a_number_and_a_share(count: int, size: int, limit: Limit, wider: list[str]) -> None:
    assert [allowing for _, allowing in limit.exceeded(LeftOut({"val": count}, {"val": size}))] == wider


def test_the_wider_limit_allows_what_it_was_made_for() -> None:
    """Case A4: the cure names an option with a value that works, for any numbers."""
    for size in (*range(1, 80), 1000, 50_000, 1_281_167):
        for count in {1, size // 3, size // 2, size - 1} - {0}:
            left_out = LeftOut({"train": count}, {"train": size})
            (given,) = [wide for _, wide in Limit(10**9, 0.0).exceeded(left_out)]
            assert Limit(10**9, float(given.split()[1])).exceeded(left_out) == []
