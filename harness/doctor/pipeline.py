"""Checks of the way of the images: DALI's pixels, the hand-over to Paddle, and the data set's first images."""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.doctor.check import FAIL, OK, Context, Finding, devices_of, skip
from harness.doctor.devices import import_paddle
from harness.machine.host import available_cores
from models.words import count_of

# Decoders may differ in how they round and smooth colours, not in more.
MAX_GREY_LEVELS = 2.0
DATA_IMAGES = 64
Pixels = npt.NDArray[np.uint8]


def decode(_: Context) -> Finding:
    """DALI decodes JPEGs to the pixels that Pillow has, within 2 grey levels in the mean."""
    folder = Path(tempfile.mkdtemp())
    files = write_sample(folder)
    return compare_decoders(files)


def compare_decoders(files: Sequence[Path]) -> Finding:
    """Returns how DALI's CPU decoder and Pillow compare on these files."""
    from PIL import Image

    expected = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    return judge_pixels([file.name for file in files], decoded(files), expected)


def judge_pixels(
    names: Sequence[str], found: Sequence[Pixels], right: Sequence[Pixels], decoder: str = "DALI"
) -> Finding:
    """Returns the finding for images by this decoder beside the right ones."""
    expected = f"at most {MAX_GREY_LEVELS:g} grey levels apart in the mean"
    cure = f"make install (the locked versions of {decoder} and Pillow)"
    worst = 0.0
    for name, own, other in zip(names, found, right, strict=True):
        if own.shape != other.shape:
            shapes = f"{name}: {decoder} {own.shape}, Pillow {other.shape}"
            return Finding(FAIL, shapes, "images of one shape", f"{decoder} decodes another image than Pillow", cure)
        apart = float(np.abs(own.astype(np.int16) - other.astype(np.int16)).mean())
        if apart > MAX_GREY_LEVELS:
            return Finding(FAIL, f"{name}: {apart:.1f} grey levels", expected, f"{decoder}'s pixels are wrong", cure)
        worst = max(worst, apart)
    return Finding(OK, f"{worst:.2f} grey levels apart on {len(names)} JPEGs", expected)


def write_sample(folder: Path) -> list[Path]:
    """Returns JPEGs to decode: the two photographs that scikit-learn includes, and re-encoded parts of them.

    Parts have the subsamplings, an odd size, and grey of one channel.
    """
    from PIL import Image

    # Found without importing scikit-learn, which takes a second.
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        return []
    images = sorted((Path(package.origin).parent / "datasets/images").glob("*.jpg"))
    made = []
    for number, image in enumerate(images):
        with Image.open(image) as photo:
            part = photo.convert("RGB").crop((40, 30, 351, 263))
        for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
            name = folder / f"{number}-{subsampling.replace(':', '')}.jpg"
            part.save(name, quality=90, subsampling=subsampling)
            made.append(name)
        part.convert("L").save(folder / f"{number}-grey.jpg", quality=90)
        made.append(folder / f"{number}-grey.jpg")
    return [*images, *made]


def decoded(files: Sequence[Path]) -> list[Pixels]:
    """Returns the files as DALI decodes them on the CPU."""
    from pipelines.bad_image_probe import file_name
    from pipelines.dali_graphs import decoding_graph
    from pipelines.settings import PipelineSettings

    names = [file_name(str(file)) for file in files]
    settings = PipelineSettings(batch_size=len(names), image_size=224, decode_threads=available_cores())
    pipeline = decoding_graph(lambda: names, settings)
    pipeline.build()
    (images,) = pipeline.run()
    return [np.array(images.at(index)) for index in range(len(names))]


def hand_over(context: Context) -> Finding:
    """DALI's batches reach Paddle without a copy on the host: both name the same address."""
    from nvidia.dali import fn, pipeline_def, types

    devices_of(context)
    import_paddle().device.set_device("cpu")
    from paddle.utils import dlpack

    batch = np.arange(4 * 3 * 8 * 8, dtype=np.float32).reshape(4, 3, 8, 8)

    @pipeline_def(batch_size=4, num_threads=1, device_id=None)  # type: ignore[untyped-decorator]
    def graph() -> Any:
        return fn.external_source(source=lambda: list(batch), batch=True, dtype=types.FLOAT, ndim=3)

    pipeline = graph()
    pipeline.build()
    (images,) = pipeline.run()
    dense = images.as_tensor()
    tensor = dlpack.from_dlpack(dense)
    return judge_hand_over(int(dense.data_ptr()), int(tensor.data_ptr()), bool((tensor.numpy() == batch).all()))


def judge_hand_over(address: int, received: int, equal: bool) -> Finding:
    """Returns the finding for a batch at one address that Paddle has at another, with equal values or not."""
    expected = "one address, equal values"
    cure = "make install (the locked versions of DALI and Paddle)"
    if not equal:
        return Finding(FAIL, "other values", expected, "Paddle reads another batch than DALI made", cure)
    if address != received:
        reason = "each batch is copied on the host, which takes about as long as decoding some of its images"
        return Finding(FAIL, "two addresses: a copy", expected, reason, cure)
    return Finding(OK, "one address: no copy", expected)


def data(context: Context) -> Finding:
    """The first images of --data can be read and decoded, as a run would."""
    from pipelines.builtin import BUILTIN
    from pipelines.builtin.cache import CACHE_VARIABLE, cache_folder
    from pipelines.dataset import open_dataset
    from pipelines.storage import Storage
    from pipelines.verification import KINDS, Verification

    if context.data is None:
        return skip("no --data was given")
    if context.data in BUILTIN and not list(cache_folder().glob(f"{context.data}-v*")):
        # A run makes it there; this only looks.
        os.environ[CACHE_VARIABLE] = tempfile.mkdtemp()
    dataset = open_dataset(context.data, with_labels=False)
    began = time.monotonic()
    first = next(iter(dataset.splits.values()))
    images = first.part(range(min(DATA_IMAGES, len(first))))
    bad = [
        f"{images.paths[finding.index]}: {finding.reason}"
        for checked in Verification(Storage(images), available_cores())
        for finding in checked.findings
        if KINDS[finding.kind].bad
    ]
    rate = len(images) / max(time.monotonic() - began, 1e-9)
    expected = f"the first {count_of(len(images), 'image')} of {dataset.name} can be decoded"
    if bad:
        more = f"; {len(bad) - 1} more" if len(bad) > 1 else ""
        return Finding(FAIL, f"{len(bad)} can't", expected, bad[0] + more, f"python run_bench.py verify {context.data}")
    return Finding(OK, f"{len(images)} of {count_of(len(first), 'image')}, {rate:.0f} images/s", expected)
