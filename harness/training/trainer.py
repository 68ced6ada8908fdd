"""What one rank trains with: data, model, optimizer and clock, and how it runs a segment of any phase."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import paddle
from paddle import nn
from paddle.jit.dy2static.program_translator import StaticFunction

import models
from harness.artifacts.bad_image import rule_of
from harness.artifacts.schema import (
    COMPUTE,
    COMPUTE_NO_SYNC,
    PIPELINE,
    PIPELINE_BESIDE,
    TRAIN,
    TRAIN_BESIDE,
)
from harness.errors import InvariantError, MachineError, TrainingError
from harness.launch.rank_files import RankFiles, lists_left, patience_of
from harness.machine.clock import Clock
from harness.machine.device import cudnn_tf32, gradients_add_up, local_rank, open_device
from harness.machine.device_kinds import device_kind
from harness.machine.placement.core_lists import format_cores
from harness.machine.placement.pinning import cores_in_use
from harness.machine.tracing import TracedClock
from harness.plan.effective_settings import check_settings
from harness.plan.option_groups.measuring import END_TO_END
from harness.plan.option_groups.training import SYNC
from harness.plan.plan import RunPlan
from harness.training import recipe
from harness.training.loading.bad_images import BadImages
from harness.training.loading.sources import training_source
from harness.training.loop import GlobalStep, never, run_steps
from harness.training.mixed_precision import MixedPrecision
from harness.training.phases import BESIDE, PHASE_LOADERS, SHARES, InTransition, Phase
from harness.training.ranks import Ranks, join
from harness.training.recorder import Recorder
from harness.training.startup import DATA_SET, MODEL, RENDEZVOUS, Startup
from harness.training.weights import load_weights
from pipelines.batch import Batch, RankSource
from pipelines.image_lists import ImageList
from pipelines.jpeg_data import EndMarkers
from pipelines.settings import PipelineSettings
from pipelines.source import CachedSource, SourceState
from pipelines.storage import Patience

# Batches that compute-only phases cycle through: real data, several so that none stays in a processor's cache.
CACHED_BATCHES = 4


@dataclass(slots=True)
class Trainer:
    """One rank's training, and the number of steps it has made of each phase.

    splits are the lists of images by split. traced is the clock of measured training where --profile asks for a trace.
    patience is how long this rank waits for the images' storage. startup has the stages of its start.
    """

    plan: RunPlan
    ranks: Ranks
    clock: Clock
    splits: Mapping[str, ImageList]
    settings: PipelineSettings
    model: Any
    parallel: Any
    train: recipe.TrainingStep
    bad: BadImages
    patience: Patience = field(default_factory=Patience)
    end_markers: EndMarkers = field(default_factory=EndMarkers)
    cached: CachedSource | None = None
    segments: int = 0
    steps: dict[str, int] = field(default_factory=dict)
    traced: TracedClock | None = None
    checked: set[str] = field(default_factory=set)
    effective_settings: dict[str, Any] = field(default_factory=dict)
    startup: Startup = field(default_factory=Startup)
    _source: RankSource | None = None
    _beside: RankSource | None = None

    @property
    def source(self) -> RankSource:
        """The rank's training images; their pipeline is built when they are first asked for."""
        if self._source is None:
            self.read_from(None)
        assert self._source is not None
        return self._source

    def read_from(self, start: SourceState | None) -> None:
        """Read the training images from the start, or from the state of an equal source."""
        self._source = training_source(self, self.settings, start)

    @property
    def beside(self) -> RankSource:
        """The training images from the other loader, which a throughput run measures beside the plan's."""
        if self._beside is None:
            assert self.plan.beside is not None
            self._beside = training_source(self, self.plan.beside.of_rank(local_rank()))
        return self._beside

    def leave_out(self, images: Iterable[int]) -> None:
        """Read the training images without these, too; a pipeline that is built later knows all bad images."""
        images = list(images)
        for source in (self._source, self._beside):
            if source is not None:
                source.leave_out(images)

    def phase(self, name: str) -> Phase:
        """The phase of this name; compute-only phases share the batches that the first of them keeps."""
        if name in (COMPUTE, COMPUTE_NO_SYNC) and self.cached is None:
            self.cached = CachedSource(self.source, CACHED_BATCHES)
        loader = PHASE_LOADERS.get(name)
        source = self.cached if loader is None else self.beside if loader == BESIDE else self.source
        assert source is not None
        settings = self.plan.beside if loader == BESIDE else self.plan.pipeline
        assert settings is not None
        consume = {COMPUTE_NO_SYNC: self._train_no_sync}.get(name, self._train_together)
        trains = name not in (PIPELINE, PIPELINE_BESIDE)
        ahead = settings.batches_ahead
        transition = 1 if trains else ahead + 1
        return Phase(name, source, consume if trains else _arrived, transition, SHARES[name], loader, trains, ahead)

    def run(
        self,
        phase: Phase,
        recorder: Recorder,
        done: Callable[[GlobalStep], bool] = never,
        max_steps: int | None = None,
        *,
        epoch: int | None = None,
        in_transition: InTransition = never,
    ) -> list[GlobalStep]:
        """Run one segment of a phase (see `run_steps`) and record it; steps in transition are marked.

        Returns the segment's steps. Raises TrainingError for a loss that isn't finite in a run of epochs (a throughput
        run's loss has no meaning), InvariantError when DALI's or Paddle's settings differ from the plan's.
        """
        steps: list[GlobalStep] = []
        trains = phase.trains
        first_step, first_optimizer_step = self.steps.get(phase.name, 0), self.train.optimizer_steps
        self.segments += 1

        def emit(step: GlobalStep) -> None:
            steps.append(step)
            self.startup.reach_first_step(step, self.clock.started_at)
            number = first_step + step.index + 1
            optimizer_step = first_optimizer_step + step.index
            rate = self.train.schedule.at(optimizer_step) if trains else None
            recorder.step(
                step,
                self.clock.started_at,
                phase=phase.name,
                segment=self.segments,
                epoch=epoch,
                step=number,
                learning_rate=rate,
                overflow=optimizer_step in self.train.overflowed if self._scales(trains) else None,
                warmup=True if in_transition(step) else None,
            )
            if epoch is not None and not math.isfinite(step.loss):
                raise TrainingError(
                    f"the loss is {step.loss} at step {number} of phase {phase.name}, on rank"
                    f" {step.nonfinite_rank} first, learning rate {rate:.6g}",
                    "Try a lower --learning-rate, or a longer --lr-warmup-epochs.",
                )

        self.model.train()
        batches = self.plan.training.accumulation_steps if trains else 1
        # A throughput run's first segment of training is its warm-up; the trace itself leaves out that of an epoch.
        measured = phase.name == TRAIN and (epoch is not None or first_step > 0)
        clock = self.traced if self.traced is not None and measured else self.clock
        run_steps(
            phase.source,
            phase.consume,
            clock,
            self.ranks,
            emit,
            done,
            max_steps,
            self.bad,
            batches,
            recorder.read_energy,
            lambda: self.patience.waited_seconds,
        )
        self._check_settings(phase, steps)
        self.steps[phase.name] = first_step + len(steps)
        return steps

    def _check_settings(self, phase: Phase, steps: Sequence[GlobalStep]) -> None:
        """Compare the settings in force with the plan's, once for each loader. Raises InvariantError."""
        if not phase.trains or phase.loader is None or phase.loader in self.checked:
            return
        plan, pipeline = self.plan, self.source.settings()
        if phase.loader == BESIDE:
            assert plan.beside is not None
            plan, pipeline = replace(plan, pipeline=plan.beside), self.beside.settings()
        batches = steps[-1].images // (plan.pipeline.batch_size * self.ranks.world_size)
        found = {**self.read_settings(pipeline), "accumulation_steps": batches}
        self.checked.add(phase.loader)
        check_settings(plan, found)
        if phase.loader != BESIDE:
            self.effective_settings = found

    def read_settings(self, pipeline: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The settings in force, as DALI and Paddle report them; known after a batch was taken.

        pipeline has those of the pipeline that the batches came from; by default the training's.
        """
        train = self.train
        return {
            **(self.source.settings() if pipeline is None else pipeline),
            "parameters": str(self.model.parameters()[0].dtype).rpartition(".")[2],
            "logits": train.logits_dtype,
            "network_layout": self.model.conv1.conv._data_format.lower(),
            "strides": self.model.strides,
            "sync_batch_norm": isinstance(self.model.conv1.bn, nn.SyncBatchNorm),
            "to_static": isinstance(self.model.forward, StaticFunction),
            "ranks": self.ranks.world_size,
            "cudnn_tf32": cudnn_tf32(self.plan.device),
            "rank_cores": self.ranks.exchange_on_node(format_cores(cores_in_use()), self.plan.ranks_per_node),
        }

    def _scales(self, trains: bool) -> bool:
        """Whether steps of a phase may overflow."""
        return trains and self.plan.training.amp == "fp16"

    def _train_together(self, batch: Batch, mark_split: Callable[[], None]) -> Any:
        """Train on a batch; before gradients are exchanged, wait for the ranks that still wait for their batch."""
        if self.train.exchanges_next:
            self.ranks.meet()
        return self.train(batch, mark_split)

    def _train_no_sync(self, batch: Batch, mark_split: Callable[[], None]) -> Any:
        """Train on a batch without exchanging gradients; the ranks' weights diverge."""
        with recipe.no_exchange(self.parallel):
            return self.train(batch, mark_split)


def throughput_phases(plan: RunPlan) -> tuple[str, ...]:
    """The phases of a throughput run, in the order of a round.

    Ranks that share batch norm's statistics exchange them in every pass, so that none computes alone.

    Training follows pipeline-only, which leaves the loader's queue empty: the transition is then over within one step.
    With a full queue, training that is limited by its data would use up the queue for several steps.
    """
    if plan.window.phases == END_TO_END:
        return (TRAIN,)
    alone = (COMPUTE_NO_SYNC,) if plan.ranks > 1 and plan.training.bn_stats != SYNC else ()
    beside = (PIPELINE_BESIDE, TRAIN_BESIDE) if plan.beside is not None else ()
    return (PIPELINE, TRAIN, *beside, COMPUTE, *alone)


def open_trainer(
    plan: RunPlan, lists: Path, pretrained: Mapping[str, Any] | None = None, startup: Startup | None = None
) -> Trainer:
    """Join the other ranks, and set up this rank's part of the plan; startup is told which of its stages are over.

    lists is the folder with the lists of images (see `harness.launch.rank_files`). pretrained describes the file of
    initial weights, if there is one (see `models.fitting.WeightsFile`); rank 0 reads it. Raises WeightsError when they
    don't fit, DataError when the lists can't be read, InvariantError when ranks are missing.
    """
    startup = startup or Startup()
    clock = open_device(plan.device, local_rank())
    ranks = join()
    if ranks.world_size != plan.ranks:
        raise InvariantError(f"{ranks.world_size} ranks are training, but {plan.ranks} were planned")
    who = f"rank {ranks.rank}: " if ranks.world_size > 1 else ""
    patience = patience_of(RankFiles.of(os.environ), who, plan.operation.stall_timeout)
    startup.reach(RENDEZVOUS)
    training, splits = plan.training, lists_left(lists)
    startup.reach(DATA_SET)
    settings = plan.pipeline.of_rank(local_rank())
    paddle.seed(settings.seed)
    model = models.build(plan.model, plan.data.num_classes, settings.layout.upper(), training.strides)
    if pretrained is not None and training.pretrained is not None and ranks.rank == 0:
        # The other ranks get rank 0's weights.
        load_weights(model, Path(training.pretrained), plan.model, plan.data.num_classes, pretrained)
    if training.accumulation_steps > 1 and not gradients_add_up():
        raise MachineError(
            f"--accumulation-steps {training.accumulation_steps} needs a device on which Paddle adds the gradients of"
            " several batches: the plugin of this one lacks the kernel for it",
            f"Use --batch-size {training.accumulation_steps * settings.batch_size} without it, if the memory allows.",
        )
    schedule = recipe.Schedule(
        training.learning_rate, training.lr_warmup_epochs * training.steps_per_epoch, plan.total_steps
    )
    optimizer = recipe.make_optimizer(
        model, training.momentum, training.weight_decay, multi_tensor=device_kind(plan.device).multi_tensor
    )
    precision = MixedPrecision(
        training.dtype, training.amp_level, depthwise=training.amp_depthwise, master_grad=training.master_grad
    )
    if training.bn_stats == SYNC:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    precision.prepare(model, optimizer)
    if training.to_static:
        model = paddle.jit.to_static(model, full_graph=True)
    bad = BadImages(rule_of(plan), ranks)
    parallel = ranks.parallel(model)
    startup.reach(MODEL)
    return Trainer(
        plan=plan,
        ranks=ranks,
        clock=clock,
        splits=splits,
        settings=settings,
        model=model,
        parallel=parallel,
        train=recipe.TrainingStep(
            parallel,
            optimizer,
            schedule,
            training.label_smoothing,
            (settings.seed, 1 + ranks.rank),
            accumulation_steps=training.accumulation_steps,
            precision=precision,
        ),
        bad=bad,
        patience=patience,
        end_markers=EndMarkers(patience.say),
        startup=startup,
    )


def _arrived(_: Batch, __: Callable[[], None]) -> None:
    """The consumer of pipeline-only: does nothing, as the batch is on its device already."""
