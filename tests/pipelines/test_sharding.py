from __future__ import annotations

import itertools

import pytest

from pipelines.sharding import shard_bounds, steps_per_epoch
from tests.support.shards import SETUPS


@pytest.mark.parametrize(
    ("images", "world_size", "batch_size", "steps"),
    [
        (1_281_167, 4, 512, 626),  # the published recipe
        (1_281_167, 1, 512, 2503),
        (1_281_167, 8, 256, 626),
        (8, 2, 4, 1),
        (9, 2, 4, 2),
        (1, 4, 512, 1),
    ],
)
def test_steps_per_epoch(images: int, world_size: int, batch_size: int, steps: int) -> None:
    assert steps_per_epoch(images, world_size, batch_size) == steps


def test_shard_bounds_of_ten_images_on_four_ranks() -> None:
    assert [shard_bounds(10, rank, 4) for rank in range(4)] == [(0, 2), (2, 5), (5, 7), (7, 10)]


def test_with_more_ranks_than_images_some_shards_are_empty() -> None:
    assert [shard_bounds(2, rank, 4) for rank in range(4)] == [(0, 0), (0, 1), (1, 1), (1, 2)]


@pytest.mark.parametrize(("images", "world_size"), {(images, world) for images, world, _ in SETUPS})
def test_shards_are_contiguous_and_differ_by_at_most_one(images: int, world_size: int) -> None:
    bounds = [shard_bounds(images, rank, world_size) for rank in range(world_size)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == images
    assert all(left[1] == right[0] for left, right in itertools.pairwise(bounds))
    sizes = [end - start for start, end in bounds]
    assert max(sizes) - min(sizes) <= 1


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size is 0"):
        steps_per_epoch(1, 1, 0)
    with pytest.raises(ValueError, match="images is -1"):
        shard_bounds(-1, 0, 1)
    with pytest.raises(ValueError, match=r"rank is 1; it must lie between 0 and 0 \(world size 1\)"):
        shard_bounds(5, 1, 1)
    with pytest.raises(ValueError, match="rank is -1; it must lie between 0 and 3"):
        shard_bounds(1, -1, 4)
    with pytest.raises(ValueError, match="world_size is 0; it must be at least 1"):
        shard_bounds(1, 0, 0)
