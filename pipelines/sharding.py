"""Which images belong to which rank, and how many steps that makes: arithmetic that every rank must agree on."""

from __future__ import annotations

from dataclasses import dataclass


def _require_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")


def _require_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ValueError(f"rank is {rank}; it must lie between 0 and {world_size - 1} (world size {world_size})")


def _steps(images: int, world_size: int, batch_size: int) -> int:
    """Batches that the largest shard needs: ceil(ceil(images / world_size) / batch_size)."""
    largest_shard = -(-images // world_size)
    return -(-largest_shard // batch_size)


def steps_per_epoch(images: int, world_size: int, batch_size: int) -> int:
    """Training steps of one epoch, the same on every rank; batch_size is per rank.

    ceil(ceil(images / world_size) / batch_size), as PaddleClas counts them (paddle.io.DistributedBatchSampler with
    drop_last=False): ImageNet's 1,281,167 images on 4 ranks of 512 make 626 steps. The learning rate follows steps, so
    another count would be another recipe. Raises ValueError for a value below 1.
    """
    _require_positive(images=images, world_size=world_size, batch_size=batch_size)
    return _steps(images, world_size, batch_size)


def shard_bounds(images: int, rank: int, world_size: int) -> tuple[int, int]:
    """The half-open range [start, end) of image indices that belongs to rank.

    Shards are contiguous, cover every image once and differ by at most one image; start is floor(images * rank /
    world_size), which is also how DALI's file reader cuts its shards. With more ranks than images some are empty.
    Raises ValueError for images or world_size below 1 or a rank outside the world.
    """
    _require_positive(images=images, world_size=world_size)
    _require_rank(rank, world_size)
    return images * rank // world_size, images * (rank + 1) // world_size


@dataclass(frozen=True, slots=True)
class EvalShard:
    """One rank's part of an evaluation that counts each image once.

    Ranks need equal step counts (unequal ones hang in a collective) and full batches, while shards need neither. So
    each rank pads its shard, and real() says how many entries of a batch may be counted. batch_size is per rank.
    Raises ValueError for a value below 1 or a rank outside the world.
    """

    images: int
    rank: int
    world_size: int
    batch_size: int

    def __post_init__(self) -> None:
        _require_positive(images=self.images, world_size=self.world_size, batch_size=self.batch_size)
        _require_rank(self.rank, self.world_size)

    @property
    def steps(self) -> int:
        """Batches to run, the same on every rank."""
        return _steps(self.images, self.world_size, self.batch_size)

    @property
    def real_images(self) -> int:
        """Images of the shard itself; 0 on a rank that has none."""
        start, end = shard_bounds(self.images, self.rank, self.world_size)
        return end - start

    def indices(self) -> tuple[int, ...]:
        """Image indices in the order to read them, steps * batch_size of them: the shard, then its last image again.

        A rank with an empty shard reads image 0 throughout and counts none of it.
        """
        start, end = shard_bounds(self.images, self.rank, self.world_size)
        padding = self.steps * self.batch_size - (end - start)
        filler = end - 1 if end > start else 0
        return (*range(start, end), *(filler for _ in range(padding)))

    def real(self, step: int) -> int:
        """How many entries of the batch of step (0-based) are real, which are always its first ones.

        Raises ValueError for a step outside 0..steps-1.
        """
        if not 0 <= step < self.steps:
            raise ValueError(f"step is {step}; it must lie between 0 and {self.steps - 1}")
        # Never negative: shards differ by at most one image, so that only a last batch can be all padding.
        return min(self.real_images - step * self.batch_size, self.batch_size)
