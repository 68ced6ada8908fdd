"""A data set of 12-megapixel JPEGs of 3.2 MB, as cameras make them: decoding takes far longer than training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 4000, 3000


def write_large_photos(folder: Path, images: int) -> Path:
    """Write the set, with a photograph's detail: noise over smooth gradients. Returns the folder."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    lines = []
    for number in range(images):
        small = random.integers(0, 255, (HEIGHT // 100, WIDTH // 100, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = np.clip(smooth + random.integers(-12, 13, smooth.shape, dtype=np.int16), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number}.jpg", quality=90)
        lines.append(f"{number}.jpg {number % 2}\n")
    (folder / "train_list.txt").write_text("".join(lines), encoding="utf-8")
    return folder
