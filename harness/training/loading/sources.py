"""The images of a rank: a split's loader, with the order, the storage and the bad images."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from nvidia.dali.pipeline import Pipeline

from harness.training.loading.hand_over import on_device
from pipelines.batch import HostSource, RankSource
from pipelines.dali_graphs import Feed, evaluation_graph, training_graph
from pipelines.layout import TRAIN_SPLIT, VAL_SPLIT
from pipelines.sampling import ContinuousOrder, EvaluationOrder, Order, ShardShuffle, TrainingOrder
from pipelines.settings import DALI_LOADER, PipelineSettings
from pipelines.source import DaliSource, SourceState
from pipelines.storage import Storage

if TYPE_CHECKING:
    from harness.training.trainer import Trainer


def training_source(trainer: Trainer, settings: PipelineSettings, start: SourceState | None = None) -> RankSource:
    """A rank's training images, from the start or from the state of an equal source."""
    plan, ranks, images = trainer.plan, trainer.ranks, trainer.splits[TRAIN_SPLIT]
    dealt = (len(images), ranks.rank, ranks.world_size, settings.batch_size, settings.seed)
    shards = None
    if settings.shuffle_window and images.extents is not None:
        shards = ShardShuffle.of(images.extents.numbers, settings.shuffle_window)
    order: Order = ContinuousOrder(*dealt, shards=shards)
    if plan.kind.in_epochs:
        order = TrainingOrder(*dealt, plan.training.accumulation_steps, shards)
    bad = trainer.bad.of(TRAIN_SPLIT)
    seed, start = (settings.seed, ranks.rank), start or SourceState(bad=bad)
    storage = Storage(images, trainer.patience, bad)
    report = partial(trainer.bad.report, TRAIN_SPLIT, images)
    source: HostSource
    if settings.loader == DALI_LOADER:

        def graph(feed: Feed, graph_seed: int, state: bytes | None) -> Pipeline:
            return training_graph(feed, plan.data.augmentation, settings, graph_seed, state)

        source = DaliSource(
            images,
            order,
            graph,
            settings,
            report,
            seed=seed,
            start=start,
            storage=storage,
            end_markers=trainer.end_markers,
        )
    else:
        # Loaded only where it is used, as OpenCV need not be installed.
        from pipelines.opencv_images import training_images
        from pipelines.opencv_source import OpenCvSource

        prepare = training_images(plan.data.augmentation, settings)
        source = OpenCvSource(images, order, prepare, settings, report, seed=seed, start=start, storage=storage)
    return on_device(source, plan.device, settings.decoder, saves_state=plan.kind.resumable)


def evaluation_source(trainer: Trainer, order: EvaluationOrder, storage: Storage) -> RankSource:
    """A rank's validation images from the first to the last, without those that can't be used."""
    # They come in the order in which they lie in shards.
    settings, images = replace(trainer.settings, shuffle_window=0), storage.images
    start = SourceState(bad=trainer.bad.of(VAL_SPLIT))
    report = partial(trainer.bad.report, VAL_SPLIT, images)
    source: HostSource
    if settings.loader == DALI_LOADER:

        def graph(feed: Feed, _: int, __: bytes | None) -> Pipeline:
            return evaluation_graph(feed, settings)

        source = DaliSource(
            images, order, graph, settings, report, start=start, storage=storage, end_markers=trainer.end_markers
        )
    else:
        from pipelines.opencv_images import evaluation_images
        from pipelines.opencv_source import OpenCvSource

        source = OpenCvSource(
            images, order, evaluation_images(settings), settings, report, start=start, storage=storage
        )
    return on_device(source, trainer.plan.device, settings.decoder, saves_state=False)
