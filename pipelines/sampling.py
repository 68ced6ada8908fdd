"""Which images a rank reads and in which order: pure arithmetic, so that any position can be restored."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipelines.errors import DataError
from pipelines.sharding import shard_bounds, steps_per_epoch

IntArray = npt.NDArray[np.int64]
Permutation = npt.NDArray[np.int32] | IntArray


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a rank's sequence of batches, all from 0.

    step is the batch's number in the epoch, cursor the entry of the epoch's shard that it begins with; entries that
    were left out count. A cursor past the shard's end continues at its start.
    """

    epoch: int = 0
    step: int = 0
    cursor: int = 0


BEGINNING = Position()
VERIFY = "Run run_bench.py verify to see what is wrong with each of them."


@dataclass(frozen=True, slots=True)
class Draw:
    """One batch: image indices [batch size], of which the first valid_images count, and where the next batch begins."""

    indices: IntArray
    valid_images: int
    next: Position


@dataclass(frozen=True, slots=True, eq=False)
class ShardShuffle:
    """A shuffle that reads shards almost from their start to their end.

    begins has the first image of each shard. The shards are shuffled, and of their images, one shard's after the other,
    each window of this number.
    """

    begins: IntArray
    window: int

    @staticmethod
    def of(numbers: npt.NDArray[Any], window: int) -> ShardShuffle:
        """That of images whose shards have these numbers [images]."""
        return ShardShuffle(np.flatnonzero(np.concatenate(([True], numbers[1:] != numbers[:-1]))), window)

    def shuffle(self, indices: Permutation, rng: np.random.Generator) -> Permutation:
        """The indices 0, 1, ... in a new order."""
        shards = np.split(indices, self.begins[1:])
        mixed: Permutation = np.concatenate([shards[place] for place in rng.permutation(len(shards))])
        for begin in range(0, len(mixed), self.window):
            rng.shuffle(mixed[begin : begin + self.window])
        return mixed


def _shuffled(images: int, seed: int, shards: ShardShuffle | None, number: int) -> Permutation:
    """The indices of all images in the order of an epoch or pass.

    Without shards it is that of numpy.random.Generator.permutation, in half of its memory: a shuffle's swaps don't
    depend on how many bytes a number has.
    """
    indices = np.arange(images, dtype=np.int32 if images <= np.iinfo(np.int32).max else np.int64)
    rng = np.random.default_rng([seed, number])
    if shards is not None:
        return shards.shuffle(indices, rng)
    rng.shuffle(indices)
    return indices


class Order(Protocol):
    """A rank's endless sequence of batches."""

    def draw(self, position: Position, bad: AbstractSet[int]) -> Draw:
        """The batch at a position, without the images in bad. Raises DataError when no other image is left."""


class TrainingOrder:
    """Every epoch has a new shuffle of all images (see `ShardShuffle` for shards), of which each rank has its own part.

    The shuffle follows from the seed and the epoch's number, which all ranks share. An epoch has `steps_per_epoch`
    steps of accumulation_steps full batches each; where the shard is shorter, and in place of images that are left out,
    its first images are repeated.
    """

    def __init__(
        self,
        images: int,
        rank: int,
        world_size: int,
        batch_size: int,
        seed: int,
        accumulation_steps: int = 1,
        shards: ShardShuffle | None = None,
    ) -> None:
        self._images, self._batch_size, self._seed, self._shards = images, batch_size, seed, shards
        self._start, self._end = shard_bounds(images, rank, world_size)
        self._batches = accumulation_steps * steps_per_epoch(images, world_size, accumulation_steps * batch_size)
        # Two epochs, as DALI already decodes the next one while a failed batch of this one may have to be drawn again.
        self._shard = lru_cache(maxsize=2)(self._make_shard)

    def _make_shard(self, epoch: int) -> Permutation:
        shard: Permutation = _shuffled(self._images, self._seed, self._shards, epoch)[self._start : self._end].copy()
        return shard

    def draw(self, position: Position, bad: AbstractSet[int]) -> Draw:
        """The batch at a position; all of its images are valid."""
        shard = self._shard(position.epoch)
        indices = np.empty(self._batch_size, dtype=np.int64)
        filled, cursor, passed = 0, position.cursor, 0
        while filled < self._batch_size:
            index = int(shard[cursor % len(shard)])
            cursor += 1
            if index in bad:
                passed += 1
                if passed == len(shard):
                    raise DataError(f"none of the {len(shard):,} training images of a rank's shard can be used", VERIFY)
                continue
            indices[filled] = index
            filled, passed = filled + 1, 0
        last = position.step + 1 == self._batches
        following = Position(position.epoch + 1) if last else Position(position.epoch, position.step + 1, cursor)
        return Draw(indices, self._batch_size, following)


class ContinuousOrder:
    """All images again and again without a break, each pass in a new shuffle, dealt to the ranks in turn.

    A batch may be larger than a rank's part of the images, or than all of them: it continues in the next pass. After
    any number of steps every image was drawn equally often within one, on all ranks together, unless images are left
    out: the rank that would have drawn one takes its next image instead. Of a position, epoch is the pass in which the
    batch begins; step and cursor count from the start of the run. Raises ValueError for images or batch_size below 1
    and for a rank outside 0..world_size-1.
    """

    def __init__(
        self,
        images: int,
        rank: int,
        world_size: int,
        batch_size: int,
        seed: int,
        shards: ShardShuffle | None = None,
    ) -> None:
        steps_per_epoch(images, world_size, batch_size)
        shard_bounds(images, rank, world_size)
        self._images, self._rank, self._world_size = images, rank, world_size
        self._batch_size, self._seed = batch_size, seed
        self._pass = lru_cache(maxsize=2)(partial(_shuffled, images, seed, shards))

    def draw(self, position: Position, bad: AbstractSet[int]) -> Draw:
        """The batch at a position; all of its images are valid."""
        if len(bad) >= self._images:
            raise DataError(f"none of the {self._images:,} training images can be used", VERIFY)
        indices = np.empty(self._batch_size, dtype=np.int64)
        filled, cursor = 0, position.cursor
        while filled < self._batch_size:
            number, place = self._entry(cursor)
            index = int(self._pass(number)[place])
            cursor += 1
            if index not in bad:
                indices[filled] = index
                filled += 1
        return Draw(indices, self._batch_size, Position(self._entry(cursor)[0], position.step + 1, cursor))

    def _entry(self, cursor: int) -> tuple[int, int]:
        """The pass and the place in it of one of this rank's entries."""
        return divmod(cursor * self._world_size + self._rank, self._images)


class EvaluationOrder:
    """Every epoch has the rank's shard once, in the list's order.

    Ranks need equal numbers of full batches (otherwise they would hang in a collective operation), but shards may
    differ, so the rest of a batch is filled with an image that is not counted.
    """

    def __init__(self, images: int, rank: int, world_size: int, batch_size: int) -> None:
        self._images, self._batch_size = images, batch_size
        self._start, self._end = shard_bounds(images, rank, world_size)
        self.steps = steps_per_epoch(images, world_size, batch_size)

    def draw(self, position: Position, bad: AbstractSet[int]) -> Draw:
        """The batch at a position; its first valid_images images are the shard's next ones."""
        chosen: list[int] = []
        cursor = position.cursor
        while len(chosen) < self._batch_size and self._start + cursor < self._end:
            index = self._start + cursor
            cursor += 1
            if index not in bad:
                chosen.append(index)
        valid_images = len(chosen)
        if valid_images < self._batch_size:
            chosen += [chosen[-1] if chosen else self._any_image(bad)] * (self._batch_size - valid_images)
        last = position.step + 1 == self.steps
        following = Position(position.epoch + 1) if last else Position(position.epoch, position.step + 1, cursor)
        return Draw(np.array(chosen, dtype=np.int64), valid_images, following)

    def _any_image(self, bad: AbstractSet[int]) -> int:
        for index in range(self._images):
            if index not in bad:
                return index
        raise DataError(f"none of the {self._images:,} validation images can be used", VERIFY)
