"""Storage for tests of images that stay where they are."""

from __future__ import annotations

from pipelines.image_lists import ImageList
from pipelines.storage import Clock, Patience, Storage


def unpaused(images: ImageList) -> Storage:
    """Returns what judges the images' storage as in a run, but looks at an image twice without a pause between."""
    return Storage(images, Patience(clock=Clock(sleep=lambda _: None)))
