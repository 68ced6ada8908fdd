"""Numbers of images and ranks, and batch sizes, that orders and shards are tested with."""

from __future__ import annotations

import itertools

SETUPS = [
    *itertools.product([1, 2, 3, 7, 8, 10, 63, 64, 65, 355], [1, 2, 3, 4, 8, 16], [1, 3, 8, 64]),
    (50_000, 4, 512),
    (50_000, 7, 333),
]
