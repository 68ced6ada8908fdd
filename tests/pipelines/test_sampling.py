from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Set as AbstractSet

import numpy as np
import pytest

from pipelines.errors import DataError
from pipelines.sampling import (
    BEGINNING,
    ContinuousOrder,
    Draw,
    EvaluationOrder,
    Order,
    Position,
    ShardShuffle,
    TrainingOrder,
)
from pipelines.sharding import shard_bounds, steps_per_epoch
from tests.support.shards import SETUPS

NONE: frozenset[int] = frozenset()


def draws(order: Order, count: int, bad: AbstractSet[int] = NONE, start: Position = BEGINNING) -> list[Draw]:
    """The next count draws, each from where the one before it ended."""
    drawn, position = [], start
    for _ in range(count):
        drawn.append(order.draw(position, bad))
        position = drawn[-1].next
    return drawn


def epoch_of(order: Order, epoch: int, bad: AbstractSet[int] = NONE) -> list[Draw]:
    """The draws of one epoch, which ends where another number comes next."""
    drawn = draws(order, 1, bad, Position(epoch))
    while drawn[-1].next.epoch == epoch:
        drawn += draws(order, 1, bad, drawn[-1].next)
    assert drawn[-1].next == Position(epoch + 1)
    return drawn


def images_of(drawn: list[Draw]) -> list[int]:
    """Those that count, in their order."""
    return [int(index) for draw in drawn for index in draw.indices[: draw.valid_images]]


def compared(drawn: list[Draw]) -> list[tuple[list[int], int, Position]]:
    return [(draw.indices.tolist(), draw.valid_images, draw.next) for draw in drawn]


# A rank without any image can't train; plans refuse that before (more ranks than images).
TRAINABLE = [setup for setup in SETUPS if setup[0] >= setup[1]]


@pytest.mark.parametrize(("images", "world_size", "batch_size"), TRAINABLE)
def test_an_epoch_has_equal_steps_and_every_image_once_before_any_comes_again(
    images: int, world_size: int, batch_size: int
) -> None:
    first_passes: list[int] = []
    for rank in range(world_size):
        start, end = shard_bounds(images, rank, world_size)
        drawn = epoch_of(TrainingOrder(images, rank, world_size, batch_size, seed=3), epoch=2)
        assert len(drawn) == steps_per_epoch(images, world_size, batch_size)
        assert all(draw.valid_images == len(draw.indices) == batch_size for draw in drawn)
        read = images_of(drawn)
        shard = read[: end - start]
        first_passes += shard
        # The last batch is filled from the shard's start.
        assert read == list(itertools.islice(itertools.cycle(shard), len(read)))
    assert sorted(first_passes) == list(range(images))


def test_every_epoch_shuffles_again_and_deals_other_shards() -> None:
    orders = [TrainingOrder(40, rank, 2, 5, seed=7) for rank in range(2)]
    epochs = [[images_of(epoch_of(order, epoch)) for order in orders] for epoch in range(6)]
    for first, second in epochs:
        assert sorted(first + second) == list(range(40))
        assert first not in ([*range(20)], [*range(20, 40)])
    assert len({tuple(first) for first, _ in epochs}) == 6
    assert len({frozenset(first) for first, _ in epochs}) == 6


def test_every_image_comes_at_every_place_about_as_often() -> None:
    order = TrainingOrder(4, 0, 1, 4, seed=0)
    places = Counter(
        (place, index)
        for epoch in range(2000)
        for place, index in enumerate(images_of(draws(order, 1, start=Position(epoch))))
    )
    # Of 2,000 epochs 500 are expected, with a standard deviation of 19.4.
    assert len(places) == 16
    assert all(400 <= count <= 600 for count in places.values())


def test_the_seed_decides_the_order() -> None:
    def order(seed: int) -> list[tuple[list[int], int, Position]]:
        return compared(draws(TrainingOrder(30, 1, 3, 4, seed), 9))

    assert order(1) == order(1)
    assert len({str(order(seed)) for seed in range(5)}) == 5


@pytest.mark.parametrize("bad", [NONE, frozenset({0, 3, 9, 20})], ids=["all good", "four bad"])
@pytest.mark.parametrize("training", [True, False])
def test_a_draw_from_any_position_is_the_same_again(training: bool, bad: frozenset[int]) -> None:
    def make() -> Order:
        return TrainingOrder(23, 1, 2, 4, seed=5) if training else EvaluationOrder(23, 1, 2, 4)

    whole = draws(make(), 14, bad)
    assert {draw.next.epoch for draw in whole} == {0, 1, 2, 3, 4}
    positions = [BEGINNING, *(draw.next for draw in whole[:-1])]
    again = make()
    for number in (13, 0, 6, 2, 9, 5, 6):
        assert compared(draws(again, 1, bad, positions[number])) == compared([whole[number]])
        assert compared(draws(make(), 14 - number, bad, positions[number])) == compared(whole[number:])


def test_bad_images_are_passed_over_and_others_of_the_shard_take_their_place() -> None:
    order = TrainingOrder(12, 0, 1, 4, seed=2)
    shard = images_of(epoch_of(order, 0))
    bad = frozenset({shard[0], shard[5], shard[6], shard[11]})
    drawn = epoch_of(order, 0, bad)
    good = [index for index in shard if index not in bad]
    assert images_of(drawn) == good + good[:4]
    assert [draw.next for draw in drawn] == [Position(0, 1, 5), Position(0, 2, 11), Position(1)]


def test_an_image_left_out_from_a_step_on_changes_nothing_before_it() -> None:
    order = TrainingOrder(20, 0, 1, 4, seed=2)
    clean = epoch_of(order, 0)
    bad = frozenset({int(clean[2].indices[1])})
    assert compared([order.draw(BEGINNING, bad), order.draw(clean[0].next, bad)]) == compared(clean[:2])
    third = order.draw(clean[1].next, bad)
    assert third.indices.tolist() == [*clean[2].indices[[0, 2, 3]].tolist(), int(clean[3].indices[0])]


# Sets that fill a step many times over, hardly, not at all, and less than one batch.
CONTINUOUS = [(1024, 8, 512), (1024, 4, 16), (23, 3, 4), (7, 2, 5), (5, 4, 16), (1, 2, 3)]


@pytest.mark.parametrize(("images", "world_size", "batch_size"), CONTINUOUS)
def test_without_epochs_ranks_get_equal_batches_and_every_image_equally_often(
    images: int, world_size: int, batch_size: int
) -> None:
    orders = [ContinuousOrder(images, rank, world_size, batch_size, seed=3) for rank in range(world_size)]
    drawn = [draws(order, 12) for order in orders]
    counted = Counter[int]()
    for step in range(12):
        for rank in range(world_size):
            draw = drawn[rank][step]
            assert len(draw.indices) == draw.valid_images == batch_size
            assert draw.next.step == step + 1
            counted.update(draw.indices.tolist())
        of_images = [counted[index] for index in range(images)]
        assert sum(of_images) == (step + 1) * world_size * batch_size
        assert max(of_images) - min(of_images) <= 1


def test_without_epochs_every_pass_is_shuffled_again() -> None:
    orders = [ContinuousOrder(12, rank, 3, 4, seed=2) for rank in range(3)]
    passes = [draws(order, 4) for order in orders]
    for number in range(4):
        assert sorted(int(index) for rank in passes for index in rank[number].indices) == list(range(12))
    assert len({tuple(draw.indices.tolist()) for draw in passes[0]}) == 4
    assert [draw.next.epoch for draw in passes[0]] == [1, 2, 3, 4]
    assert compared(draws(ContinuousOrder(12, 0, 3, 4, seed=2), 4)) == compared(passes[0])
    assert compared(draws(ContinuousOrder(12, 0, 3, 4, seed=1), 4)) != compared(passes[0])


@pytest.mark.parametrize("bad", [NONE, frozenset({0, 3, 9, 20})], ids=["all good", "four bad"])
def test_without_epochs_a_draw_from_any_position_is_the_same_again(bad: frozenset[int]) -> None:
    def make() -> Order:
        return ContinuousOrder(23, 1, 2, 20, seed=5)

    whole = draws(make(), 9, bad)
    positions = [BEGINNING, *(draw.next for draw in whole[:-1])]
    again = make()
    for number in (8, 0, 6, 2, 5, 6):
        assert compared(draws(again, 1, bad, positions[number])) == compared([whole[number]])
        assert compared(draws(make(), 9 - number, bad, positions[number])) == compared(whole[number:])


def test_without_epochs_the_next_images_take_the_place_of_bad_ones() -> None:
    clean = images_of(draws(ContinuousOrder(10, 1, 2, 5, seed=4), 6))
    bad = frozenset({clean[1], clean[7]})
    left = [index for index in clean if index not in bad]
    drawn = draws(ContinuousOrder(10, 1, 2, 5, seed=4), 4, bad)
    assert images_of(drawn) == left[:20]
    (only,) = set(range(10)) - (most := frozenset(range(9)))
    assert images_of(draws(ContinuousOrder(10, 1, 2, 5, seed=4), 2, most)) == [only] * 10
    with pytest.raises(DataError, match="none of the 10 training images can be used"):
        ContinuousOrder(10, 1, 2, 5, seed=4).draw(BEGINNING, frozenset(range(10)))


def test_one_good_image_fills_every_batch() -> None:
    order = TrainingOrder(9, 1, 2, 3, seed=1)
    for epoch in range(4):
        shard = set(images_of(epoch_of(order, epoch)))
        last = min(shard)
        assert images_of(epoch_of(order, epoch, frozenset(shard - {last}))) == [last] * 6


def test_a_shard_without_a_good_image_is_told_instead_of_looked_through_for_ever() -> None:
    with pytest.raises(DataError, match="none of the 6 training images of a rank's shard can be used"):
        TrainingOrder(12, 1, 2, 4, seed=1).draw(BEGINNING, frozenset(range(12)))


@pytest.mark.parametrize(("images", "world_size", "batch_size"), SETUPS)
@pytest.mark.parametrize("every", [0, 3])
def test_evaluation_counts_every_good_image_once(images: int, world_size: int, batch_size: int, every: int) -> None:
    """Every third image is bad, or none, of any number of images, ranks and images in a batch."""
    bad = frozenset(range(1, images, every)) if every else NONE
    good = [index for index in range(images) if index not in bad]
    for epoch in (0, 3):
        counted: list[int] = []
        for rank in range(world_size):
            drawn = epoch_of(EvaluationOrder(images, rank, world_size, batch_size), epoch, bad)
            assert len(drawn) == steps_per_epoch(images, world_size, batch_size)
            for draw in drawn:
                assert len(draw.indices) == batch_size
                assert 0 <= draw.valid_images <= batch_size
                assert not bad.intersection(draw.indices.tolist())
            counted += images_of(drawn)
        assert counted == good


def test_a_batch_is_filled_with_its_last_image_and_that_is_not_counted() -> None:
    drawn = epoch_of(EvaluationOrder(10, 2, 4, 2), 0)
    assert [(draw.indices.tolist(), draw.valid_images) for draw in drawn] == [([5, 6], 2), ([0, 0], 0)]
    drawn = epoch_of(EvaluationOrder(10, 1, 4, 4), 0, frozenset({3}))
    assert [(draw.indices.tolist(), draw.valid_images) for draw in drawn] == [([2, 4, 4, 4], 2)]


def test_a_rank_without_good_images_reads_any_good_one_and_counts_none() -> None:
    for order, bad in ((EvaluationOrder(2, 2, 4, 3), NONE), (EvaluationOrder(8, 3, 4, 3), frozenset({6, 7}))):
        (draw,) = epoch_of(order, 0, bad)
        assert (draw.indices.tolist(), draw.valid_images) == ([0, 0, 0], 0)
    (draw,) = epoch_of(EvaluationOrder(8, 3, 4, 3), 0, frozenset({0, 1, 6, 7}))
    assert (draw.indices.tolist(), draw.valid_images) == ([2, 2, 2], 0)


def test_an_evaluation_without_a_good_image_is_refused() -> None:
    with pytest.raises(DataError, match="none of the 1,500 validation images can be used"):
        EvaluationOrder(1500, 0, 2, 8).draw(BEGINNING, frozenset(range(1500)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 0, 1, 1), "images is 0; it must be at least 1"),
        ((1, 0, 0, 1), "world_size is 0; it must be at least 1"),
        ((1, 0, 1, 0), "batch_size is 0; it must be at least 1"),
        ((1, 4, 4, 1), r"rank is 4; it must lie between 0 and 3 \(world size 4\)"),
        ((1, -1, 4, 1), "rank is -1; it must lie between 0 and 3"),
    ],
)
def test_impossible_orders_are_refused(values: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluationOrder(*values)
    with pytest.raises(ValueError, match=message):
        TrainingOrder(*values, seed=0)
    with pytest.raises(ValueError, match=message):
        ContinuousOrder(*values, seed=0)


def test_indices_are_whole_numbers_of_64_bits() -> None:
    assert TrainingOrder(5, 0, 1, 2, 0).draw(BEGINNING, NONE).indices.dtype == np.int64
    assert ContinuousOrder(5, 0, 1, 2, 0).draw(BEGINNING, NONE).indices.dtype == np.int64
    assert EvaluationOrder(5, 0, 1, 2).draw(BEGINNING, NONE).indices.dtype == np.int64


def test_an_epoch_of_accumulated_batches_has_whole_steps() -> None:
    """21 images on 2 ranks, batches of 2: 3 steps of 2 batches, where single batches would make 6 of 11 images."""
    order = TrainingOrder(21, 0, 2, 2, seed=4, accumulation_steps=2)
    plain = TrainingOrder(21, 0, 2, 2, seed=4)
    drawn, single = draws(order, 6), draws(plain, 6)
    assert [one.next for one in drawn[-1:]] == [Position(1)]
    assert [one.indices.tolist() for one in drawn] == [one.indices.tolist() for one in single]
    order = TrainingOrder(21, 0, 2, 2, seed=4, accumulation_steps=4)
    drawn = draws(order, 8)
    assert [one.next.epoch for one in drawn] == [0] * 7 + [1]
    assert sorted(set(images_of(drawn))) == sorted(set(images_of(single)))


def test_shards_are_shuffled_and_their_images_within_windows() -> None:
    numbers = np.repeat(np.arange(5), (3, 4, 2, 6, 5))
    shuffle = ShardShuffle.of(numbers, window=7)
    orders = [TrainingOrder(20, 0, 1, 20, seed=4, shards=shuffle) for _ in range(2)]
    first, second = (order.draw(Position(epoch), frozenset()).indices.tolist() for epoch, order in enumerate(orders))
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert orders[1].draw(Position(0), frozenset()).indices.tolist() == first
    for order in (first, second):
        # Up to a window's start, each shard but the last one there is read whole.
        for end in (7, 14):
            begun = numbers[order[:end]]
            whole = [shard for shard in set(begun.tolist()) if (begun == shard).sum() == (numbers == shard).sum()]
            assert len(set(begun.tolist())) - len(whole) <= 1
        windows = [order[begin : begin + 7] for begin in (0, 7, 14)]
        assert any(window != sorted(window) for window in windows)


def test_a_window_of_all_images_mixes_all_shards() -> None:
    shuffle = ShardShuffle.of(np.repeat(np.arange(10), 100), window=1000)
    order = ContinuousOrder(1000, 0, 1, 1000, seed=0, shards=shuffle).draw(Position(), frozenset()).indices
    assert sorted(order.tolist()) == list(range(1000))
    assert len(set((order[:50] // 100).tolist())) == 10


def test_every_rank_has_its_own_part_of_the_shards() -> None:
    shuffle = ShardShuffle.of(np.repeat(np.arange(8), 10), window=10)
    parts = [
        TrainingOrder(80, rank, 4, 20, seed=1, shards=shuffle).draw(Position(), frozenset()).indices // 10
        for rank in range(4)
    ]
    assert [len(set(part.tolist())) for part in parts] == [2, 2, 2, 2]
    assert sorted(np.concatenate(parts).tolist()) == sorted([*range(8)] * 10)
