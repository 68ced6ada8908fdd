"""Remedies for a bottleneck, in one table; each entry names the cause, then the option to change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.machine.device_kinds import DeviceKind
from pipelines.settings import DALI_LOADER, MIXED_DECODER, OPENCV_LOADER

# The stages of a training, as the verdict names them.
PIPELINE_STAGE, COMPUTE_STAGE, COMMUNICATION_STAGE = "pipeline", "compute", "communication"

# A stage with a smaller gain gets no remedy: an interval of 2 % could hardly show its effect.
MIN_GAIN = 1.05
# With fewer idle cores there is no room for another thread.
MIN_CORES_LEFT = 0.5
# Batches count as uneven from this standard deviation / mean of pipeline-only's step seconds on.
UNEVEN = 0.25


@dataclass(frozen=True, slots=True)
class Setting:
    """The settings of the run that remedies depend on.

    ranks counts those of all hosts, ranks_per_host those that share a host's cores; threads are per rank.
    """

    device: DeviceKind
    ranks: int
    ranks_per_host: int
    cores: int
    compute_threads: int
    decode_threads: int
    prefetch: int
    from_storage: bool
    decoder: str
    loader: str = DALI_LOADER
    workers: int = 0

    @property
    def loading(self) -> int:
        """The number of a rank's threads or processes that make batches."""
        return self.decode_threads if self.loader == DALI_LOADER else self.workers


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts that remedies are chosen by.

    gains holds by stage the gain of removing that stage alone. training_gain is pipeline-only / end to end.
    pipeline_variation is the standard deviation / mean of pipeline-only's step seconds (None: unknown). slowest_rank is
    None unless it slows the other ranks down; rank_skew_share is then the part of a step.
    """

    setting: Setting
    gains: dict[str, float]
    training_gain: float
    pipeline_variation: float | None
    slowest_rank: int | None
    rank_skew_share: float

    @property
    def cores_left(self) -> float:
        """The number of a host's cores that the run leaves idle, by the share of time that its threads work.

        On an accelerator only what makes batches counts, and counts as always working.
        """
        setting = self.setting
        if not setting.device.on_host:
            return float(setting.cores - setting.ranks_per_host * setting.loading)
        decoding = setting.loading / max(self.training_gain, 1.0)
        training = setting.compute_threads / max(self.gains[PIPELINE_STAGE], 1.0)
        return setting.cores - setting.ranks_per_host * (decoding + training)

    @property
    def loading_leaves_cores(self) -> bool:
        """Whether more threads or processes could make batches at the same time."""
        setting = self.setting
        return self.cores_left >= MIN_CORES_LEFT and setting.ranks_per_host * setting.loading < setting.cores

    @property
    def more_prefetch(self) -> int:
        """Twice the length of the run's prefetch queue."""
        return 2 * self.setting.prefetch


def _always(_: Facts) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Remedy:
    """Something to try if the gain of its stage is large enough, and applies returns True.

    text is formatted with `facts`. The remedies of a stage are printed in the table's order.
    """

    stage: str
    text: str
    applies: Callable[[Facts], bool] = _always


REMEDIES = (
    Remedy(
        PIPELINE_STAGE,
        "The images are read from storage, not from memory. Copy them to a local disk or a RAM disk, and pass the copy"
        " as --data.",
        lambda facts: facts.setting.from_storage,
    ),
    Remedy(
        PIPELINE_STAGE,
        "PaddleClas's loader decodes whole images, one process for each batch. Use --loader dali.",
        lambda facts: facts.setting.loader == OPENCV_LOADER,
    ),
    Remedy(
        PIPELINE_STAGE,
        "Decoding leaves cores idle. Raise --decode-threads (this run: {facts.setting.decode_threads} per rank,"
        " {facts.setting.cores} cores).",
        lambda facts: facts.setting.loader == DALI_LOADER and facts.loading_leaves_cores,
    ),
    Remedy(
        PIPELINE_STAGE,
        "Decoding leaves cores idle. Raise --workers (this run: {facts.setting.workers} per rank,"
        " {facts.setting.cores} cores).",
        lambda facts: facts.setting.loader == OPENCV_LOADER and facts.loading_leaves_cores,
    ),
    Remedy(
        PIPELINE_STAGE,
        "The JPEG engine and the GPU's other units share the decoding. Try other shares with --hw-decoder-load; without"
        " it, a trial before the run takes the fastest of 0, 0.65 and 1.",
        lambda facts: facts.setting.decoder == MIXED_DECODER,
    ),
    Remedy(
        PIPELINE_STAGE,
        "Batches take uneven times, and training waits for the slow ones. Raise --prefetch to {facts.more_prefetch}.",
        lambda facts: (
            facts.training_gain >= MIN_GAIN
            and facts.pipeline_variation is not None
            and facts.pipeline_variation >= UNEVEN
        ),
    ),
    Remedy(
        PIPELINE_STAGE,
        "Decoding takes time for every pixel of the files. Scale the images down beforehand, and pass the smaller ones"
        " as --data.",
        lambda facts: not facts.setting.from_storage,
    ),
    Remedy(
        COMMUNICATION_STAGE,
        "Exchanging gradients takes the same time for any batch size. To exchange them less often per image, raise"
        " --batch-size, or --accumulation-steps if memory is full.",
    ),
    Remedy(
        COMMUNICATION_STAGE,
        "The ranks share one host. Use fewer ranks with more threads each, which exchange less: --gpus 1 and more"
        " --compute-threads.",
        lambda facts: facts.setting.device.on_host and facts.setting.ranks_per_host > 1,
    ),
    Remedy(
        COMPUTE_STAGE,
        "Rank {facts.slowest_rank} computes longer than the others, which wait for it. Check the clocks and the foreign"
        " processes of its device in <run>.devices.csv.",
        lambda facts: facts.slowest_rank is not None,
    ),
    Remedy(
        COMPUTE_STAGE,
        "The other ranks would be faster without rank {facts.slowest_rank}. Leave its device out of"
        " {facts.setting.device.selection}, and lower --gpus by one.",
        # Compares n ranks at the speed of the slowest with n - 1 ranks at the speed of the fastest.
        lambda facts: (
            not facts.setting.device.on_host
            and facts.slowest_rank is not None
            and facts.rank_skew_share > 1 / facts.setting.ranks
        ),
    ),
    Remedy(
        COMPUTE_STAGE,
        "Training leaves cores idle. Raise --compute-threads (this run: {facts.setting.compute_threads} per rank,"
        " {facts.setting.cores} cores), or --gpus for more ranks.",
        lambda facts: (
            facts.setting.device.on_host
            and facts.cores_left >= MIN_CORES_LEFT
            and facts.setting.ranks_per_host * facts.setting.compute_threads < facts.setting.cores
        ),
    ),
    Remedy(
        COMPUTE_STAGE,
        "A part of each step takes the same time for any batch size. Raise --batch-size as far as the"
        " {facts.setting.device.memory} allows.",
        lambda facts: not facts.setting.device.on_host,
    ),
    Remedy(
        COMPUTE_STAGE,
        "Training takes time for every image. Use a smaller --model or --image-size, or more devices (--gpus).",
        lambda facts: not facts.setting.device.on_host,
    ),
    Remedy(
        COMPUTE_STAGE,
        "Training takes time for every image. Use a smaller --model or --image-size, or a machine with more cores.",
        lambda facts: facts.setting.device.on_host,
    ),
)


def remedies(facts: Facts) -> tuple[str, ...]:
    """Returns what to try, as sentences, for the stages that bring at least MIN_GAIN, the largest gain first."""
    stages = sorted(facts.gains, key=lambda stage: -facts.gains[stage])
    return tuple(
        remedy.text.format(facts=facts)
        for stage in stages
        if facts.gains[stage] >= MIN_GAIN
        for remedy in REMEDIES
        if remedy.stage == stage and remedy.applies(facts)
    )
