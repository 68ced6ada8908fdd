"""Sources of the opencv loader as tests make them, and the steps that they take."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from pipelines.augmentation import Augmentation
from pipelines.bad_image_probe import Fault
from pipelines.image_lists import ImageList
from pipelines.opencv_images import Prepare, evaluation_images, training_images
from pipelines.opencv_source import OpenCvSource
from pipelines.sampling import EvaluationOrder, Position, TrainingOrder
from pipelines.settings import PipelineSettings
from pipelines.source import SourceState
from pipelines.storage import Storage
from tests.support.storage import unpaused

SIZE = 16


def settings(batch_size: int = 2, **others: Any) -> PipelineSettings:
    return PipelineSettings(**{"batch_size": batch_size, "image_size": SIZE, **others})


def refuse(faults: Sequence[Fault], position: Position) -> None:
    raise AssertionError(f"{faults} at {position}, though the files are good")


OnFaults = Callable[[Sequence[Fault], Position], None]


def training_source(
    images: ImageList,
    batch_size: int = 2,
    start: SourceState | None = None,
    on_faults: OnFaults = refuse,
    workers: int = 1,
    storage: Storage | None = None,
    prepare: Prepare | None = None,
    augmentation: Augmentation | None = None,
    **others: Any,
) -> OpenCvSource:
    chosen = settings(batch_size, workers=workers, **others)
    return OpenCvSource(
        images,
        TrainingOrder(len(images), 0, 1, batch_size, 3),
        prepare or training_images(augmentation or Augmentation(), chosen),
        chosen,
        on_faults,
        seed=(3, 0),
        start=start,
        storage=storage or unpaused(images),
    )


def evaluation_source(
    images: ImageList, batch_size: int = 2, on_faults: OnFaults = refuse, workers: int = 1, **others: Any
) -> OpenCvSource:
    chosen = settings(batch_size, workers=workers, **others)
    order = EvaluationOrder(len(images), 0, 1, batch_size)
    return OpenCvSource(images, order, evaluation_images(chosen), chosen, on_faults, storage=unpaused(images))


def steps(source: OpenCvSource, count: int) -> list[tuple[bytes, list[int]]]:
    return [(batch.images.numpy().tobytes(), batch.labels.tolist()) for batch in itertools.islice(source, count)]


def closed_steps(source: OpenCvSource, count: int) -> list[tuple[bytes, list[int]]]:
    made = steps(source, count)
    source.close()
    return made
