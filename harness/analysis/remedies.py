"""What to try against a bottleneck: one table, whose entries name the cause and then the flag."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# The stages of a training, as the verdict names them.
PIPELINE_STAGE, COMPUTE_STAGE, COMMUNICATION_STAGE = "pipeline", "compute", "communication"

# A stage whose removal brings less than this has no remedy: it brings nothing that an interval of 2 % can show.
MIN_GAIN = 1.05
# Idle cores below this are no room for another thread.
MIN_CORES_LEFT = 0.5
# Standard deviation over mean of the seconds between batches of the pipeline alone, from which they come unevenly.
UNEVEN = 0.25


@dataclass(frozen=True, slots=True)
class Setting:
    """What a remedy depends on besides the rates: the run's own settings.

    ranks are those of all hosts, ranks_per_host those that share the host's cores; threads are per rank.
    """

    device: str
    ranks: int
    ranks_per_host: int
    cores: int
    compute_threads: int
    decode_threads: int
    prefetch: int
    from_storage: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """What remedies are chosen by.

    gains are by stage: what the removal of that stage alone brings. training_gain is pipeline-only over end to end.
    pipeline_variation is the standard deviation over the mean of pipeline-only's step seconds (None: unknown).
    slowest_rank is None unless it holds the others up; rank_skew_share is then the part of a step.
    """

    setting: Setting
    gains: dict[str, float]
    training_gain: float
    pipeline_variation: float | None
    slowest_rank: int | None
    rank_skew_share: float

    @property
    def cores_left(self) -> float:
        """Cores of a host that the run leaves idle, by how long its threads have work to do.

        On a GPU only DALI's threads count, as if they always had work.
        """
        setting = self.setting
        if setting.device == "gpu":
            return float(setting.cores - setting.ranks_per_host * setting.decode_threads)
        decoding = setting.decode_threads / max(self.training_gain, 1.0)
        training = setting.compute_threads / max(self.gains[PIPELINE_STAGE], 1.0)
        return setting.cores - setting.ranks_per_host * (decoding + training)

    @property
    def more_prefetch(self) -> int:
        """Twice the run's queue."""
        return 2 * self.setting.prefetch


def _always(_: Facts) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Remedy:
    """Something to try where its stage's removal would bring something, and applies says so.

    text is formatted with `facts`. The remedies of a stage are printed in the table's order.
    """

    stage: str
    text: str
    applies: Callable[[Facts], bool] = _always


REMEDIES = (
    Remedy(
        PIPELINE_STAGE,
        "The images are read from storage, not from memory. Copy them to a local disk or a RAM disk, and pass the copy"
        " with --data.",
        lambda facts: facts.setting.from_storage,
    ),
    Remedy(
        PIPELINE_STAGE,
        "Decoding leaves cores idle. Raise --decode-threads (this run: {facts.setting.decode_threads} per rank,"
        " {facts.setting.cores} cores).",
        lambda facts: (
            facts.cores_left >= MIN_CORES_LEFT
            and facts.setting.ranks_per_host * facts.setting.decode_threads < facts.setting.cores
        ),
    ),
    Remedy(
        PIPELINE_STAGE,
        "The JPEG engine and the GPU's other units share the decoding. Try values of --hw-decoder-load between 0 and 1,"
        " and pass --width-hint and --height-hint.",
        lambda facts: facts.setting.device == "gpu",
    ),
    Remedy(
        PIPELINE_STAGE,
        "Batches take unequal time, and training waits for the slow ones. Raise --prefetch to {facts.more_prefetch}.",
        lambda facts: (
            facts.training_gain >= MIN_GAIN
            and facts.pipeline_variation is not None
            and facts.pipeline_variation >= UNEVEN
        ),
    ),
    Remedy(
        PIPELINE_STAGE,
        "Decoding takes time for each pixel of the files. Make the images smaller beforehand, and pass them with"
        " --data.",
        lambda facts: not facts.setting.from_storage,
    ),
    Remedy(
        COMMUNICATION_STAGE,
        "Exchanging gradients takes the same time for a batch of any size. Raise --batch-size, or --accumulation-steps"
        " where memory is full, to exchange them less often per image.",
    ),
    Remedy(
        COMMUNICATION_STAGE,
        "The ranks share one host. Use fewer with more threads each, which exchange less: --gpus 1 and more"
        " --compute-threads.",
        lambda facts: facts.setting.device == "cpu" and facts.setting.ranks_per_host > 1,
    ),
    Remedy(
        COMPUTE_STAGE,
        "Rank {facts.slowest_rank} computes longer than the others, which wait for it. Look for its device's clocks and"
        " foreign processes in <run>.devices.csv.",
        lambda facts: facts.slowest_rank is not None,
    ),
    Remedy(
        COMPUTE_STAGE,
        "The others would be faster without rank {facts.slowest_rank}. Leave its device out of CUDA_VISIBLE_DEVICES and"
        " --gpus.",
        # n ranks at the slowest one's pace against n - 1 at the quickest one's.
        lambda facts: (
            facts.setting.device == "gpu"
            and facts.slowest_rank is not None
            and facts.rank_skew_share > 1 / facts.setting.ranks
        ),
    ),
    Remedy(
        COMPUTE_STAGE,
        "Training leaves cores idle. Raise --compute-threads (this run: {facts.setting.compute_threads} per rank,"
        " {facts.setting.cores} cores), or --gpus for more ranks.",
        lambda facts: (
            facts.setting.device == "cpu"
            and facts.cores_left >= MIN_CORES_LEFT
            and facts.setting.ranks_per_host * facts.setting.compute_threads < facts.setting.cores
        ),
    ),
    Remedy(
        COMPUTE_STAGE,
        "A part of each step takes the same time for a batch of any size. Raise --batch-size as far as the GPU's memory"
        " allows.",
        lambda facts: facts.setting.device == "gpu",
    ),
    Remedy(
        COMPUTE_STAGE,
        "Training takes time for each image. Use a smaller --model or --image-size, or more devices (--gpus).",
        lambda facts: facts.setting.device == "gpu",
    ),
    Remedy(
        COMPUTE_STAGE,
        "Training takes time for each image. Use a smaller --model or --image-size, or a machine with more cores.",
        lambda facts: facts.setting.device == "cpu",
    ),
)


def remedies(facts: Facts) -> tuple[str, ...]:
    """What to try, as sentences: first for the stage whose removal brings most, none for one that brings nothing."""
    stages = sorted(facts.gains, key=lambda stage: -facts.gains[stage])
    return tuple(
        remedy.text.format(facts=facts)
        for stage in stages
        if facts.gains[stage] >= MIN_GAIN
        for remedy in REMEDIES
        if remedy.stage == stage and remedy.applies(facts)
    )
