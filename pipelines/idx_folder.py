"""Images read from IDX files as a folder in ImageNet's layout: JPEG files, lists and dataset.toml."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from io import BytesIO
from pathlib import Path

from PIL import Image

from pipelines.augmentation import Augmentation
from pipelines.builtin.digits import JPEG_QUALITY
from pipelines.idx import Bytes, IdxSet, IdxSplit
from pipelines.settings_file import SETTINGS_FILE, settings_text

# A few hundredths of a second of work: often enough for a progress bar, and to notice an interruption.
_IMAGES_PER_CHUNK = 256


def write_folder(
    data: IdxSet, folder: Path, name: str, image_size: int, augmentation: Augmentation, threads: int
) -> Generator[int, None, None]:
    """Write the set into the empty folder; yields the number of images written so far, at intervals and at the end.

    Files are <split>/<label>/<index in the IDX file>.jpg, in colour, image_size pixels wide and high, and the same
    bytes each time. <split>_list.txt names them in the IDX file's order: class folders alone would be numbered by those
    that exist, and a set may have no image of a label. Close the generator before removing the folder: until then
    threads write to it. Raises OSError when the folder can't be written.
    """
    settings = settings_text(name, data.num_classes, augmentation)
    (folder / SETTINGS_FILE).write_text(settings, encoding="utf-8")
    done = 0
    for split, images in (("train", data.train), ("val", data.val)):
        for label in sorted({int(label) for label in images.labels}):
            (folder / split / str(label)).mkdir(parents=True)
        paths = _paths(split, images)
        with closing(_write_images(images.images, [folder / path for path in paths], image_size, threads)) as writing:
            for written in writing:
                done += written
                yield done
        lines = [f"{path} {label}\n" for path, label in zip(paths, images.labels, strict=True)]
        (folder / f"{split}_list.txt").write_text("".join(lines), encoding="utf-8")


def _paths(split: str, images: IdxSplit) -> list[str]:
    """Paths below the set's folder, of equal length so that they sort by index."""
    digits = len(str(len(images.labels) - 1))
    return [f"{split}/{label}/{index:0{digits}}.jpg" for index, label in enumerate(images.labels)]


def _write_images(images: Bytes, files: list[Path], image_size: int, threads: int) -> Generator[int, None, None]:
    """Write images[i] to files[i]; yields the number of images written since the last time."""

    def write(begin: int) -> int:
        end = min(begin + _IMAGES_PER_CHUNK, len(files))
        for index in range(begin, end):
            files[index].write_bytes(_jpeg(images[index], image_size))
        return end - begin

    with ThreadPoolExecutor(threads) as pool:
        try:
            yield from pool.map(write, range(0, len(files), _IMAGES_PER_CHUNK))
        finally:
            # After an error or an interruption, chunks that have not begun need not be written.
            pool.shutdown(wait=True, cancel_futures=True)


def _jpeg(image: Bytes, image_size: int) -> bytes:
    # Not saved directly to the file: on a full disk Pillow would only report that its encoder failed.
    content = BytesIO()
    enlarged = Image.fromarray(image).resize((image_size, image_size), Image.Resampling.BICUBIC)
    enlarged.convert("RGB").save(content, "JPEG", quality=JPEG_QUALITY)
    return content.getvalue()
