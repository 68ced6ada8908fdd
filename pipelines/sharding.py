"""Which images belong to which rank, and the resulting number of steps: arithmetic that all ranks must agree on."""

from __future__ import annotations


def _require_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")


def _require_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ValueError(f"rank is {rank}; it must lie between 0 and {world_size - 1} (world size {world_size})")


def steps_per_epoch(images: int, world_size: int, batch_size: int) -> int:
    """The number of steps of one epoch, the same on every rank; batch_size is per rank.

    ceil(ceil(images / world_size) / batch_size), as PaddleClas counts them (paddle.io.DistributedBatchSampler with
    drop_last=False): ImageNet's 1,281,167 images on 4 ranks of 512 make 626 steps. The learning rate depends on the
    steps, so another number would be another recipe. Raises ValueError for a value below 1.
    """
    _require_positive(images=images, world_size=world_size, batch_size=batch_size)
    largest_shard = -(-images // world_size)
    return -(-largest_shard // batch_size)


def shard_bounds(images: int, rank: int, world_size: int) -> tuple[int, int]:
    """The half-open range [start, end) of image indices that belongs to rank.

    Shards are contiguous, cover every image once and differ by at most one image; start is floor(images * rank /
    world_size), as in DALI's file reader. With more ranks than images some shards are empty. Raises ValueError for
    images or world_size below 1 and for a rank outside 0..world_size-1.
    """
    _require_positive(images=images, world_size=world_size)
    _require_rank(rank, world_size)
    return images * rank // world_size, images * (rank + 1) // world_size
