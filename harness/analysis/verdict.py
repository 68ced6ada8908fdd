"""What holds the training back, told from the rates of its phases, and what to try."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from harness.analysis.interval import t_quantile
from harness.analysis.utilisation import accelerator_utilisation
from harness.analysis.window import PhaseFigures
from harness.artifacts.schema import COMPUTE, COMPUTE_NO_SYNC, PIPELINE, TRAIN

# MLPerf Storage asks this accelerator utilisation of a storage system that feeds its accelerators well.
FED = 0.9
# End to end at this share of a phase's rate runs at that phase's rate.
REACHED = 0.9
# Of the time that training loses against compute-only: waits that make it the pipeline's doing, on a device that shares
# nothing with it.
WAITING = 0.5
# Of the training's time spent on gradients that no computation hides.
EXPOSED = 0.2
# Of a step: a rank that computes so much longer than the quickest holds the others up.
SKEWED = 0.1


@dataclass(frozen=True, slots=True)
class Setting:
    """What a remedy depends on besides the rates: the run's own settings. cores are the host's for this run."""

    device: str
    ranks: int
    cores: int
    compute_threads: int
    decode_threads: int
    prefetch: int
    from_storage: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the training is bound by, with the evidence. All rates are global, images per second.

    bound is pipeline, compute, communication or shared (the phases slow one another down: on a CPU they share its
    cores); certain is False where the intervals leave room for another answer. The ceiling is what end to end could
    reach: min(P, C) of pipeline-only P and compute-only C; where both share cores it lies between 1/(1/P + 1/C), one
    after the other, and min(P, C). share_of_ceiling is end to end over the upper end; unexplained_share is what is
    missing to the lower end. exposed_communication_share is the part of compute-only's time that exchanging gradients
    adds; None with one rank. slowest_rank is None unless it holds the others up.
    """

    bottleneck: str
    certain: bool
    end_to_end_fps: float
    pipeline_fps: float
    compute_fps: float
    compute_no_sync_fps: float | None
    ceiling_low_fps: float
    ceiling_high_fps: float
    share_of_ceiling: float
    unexplained_share: float
    accelerator_util: float
    exposed_communication_share: float | None
    slowest_rank: int | None
    rank_skew_share: float | None
    evidence: tuple[str, ...]
    remedies: tuple[str, ...]


def judge(phases: dict[str, PhaseFigures], setting: Setting) -> Verdict:
    """The verdict on phases TRAIN, PIPELINE and COMPUTE, and COMPUTE_NO_SYNC where there are several ranks.

    Training that reaches FED of compute-only is not held back by its data: it is bound by communication if that costs
    EXPOSED of its time, else by compute. Below FED it is bound by the pipeline where it runs at the pipeline's own rate
    (REACHED), or where waiting makes WAITING of what is lost on a device that shares no cores with it; else by what
    both share. Where DALI's work is too small to take FED from training even one after the other, shared cores are no
    explanation, and what is missing stays unexplained. Sources of the limits: docs/methodology.md.
    """
    end_to_end, pipeline, compute = (phases[name].fps for name in (TRAIN, PIPELINE, COMPUTE))
    alone = phases.get(COMPUTE_NO_SYNC)
    high = min(pipeline, compute)
    low = 1 / (1 / pipeline + 1 / compute) if setting.device == "cpu" else high
    fed = accelerator_utilisation(end_to_end, compute)
    exposed = None if alone is None else 1 - compute / alone.fps
    skewed = alone is not None and alone.rank_skew_share >= SKEWED
    # On a CPU sharing costs training no more than running one after the other would.
    harmless = setting.device == "cpu" and low >= FED * compute
    waits = phases[TRAIN].data_wait_share / end_to_end >= WAITING * (1 / end_to_end - 1 / compute)
    if fed < FED and end_to_end >= REACHED * pipeline:
        bottleneck = "pipeline"
    elif fed < FED and waits and (setting.device != "cpu" or harmless):
        # A pipeline that would keep up by its mean, but not batch by batch.
        bottleneck = "pipeline"
    elif fed < FED and not harmless:
        bottleneck = "shared"
    else:
        bottleneck = "communication" if exposed is not None and exposed >= EXPOSED else "compute"
    doubts = [_straddles(phases[TRAIN], phases[COMPUTE], FED)]
    if fed < FED:
        doubts += [harmless, _straddles(phases[TRAIN], phases[PIPELINE], REACHED)]
    elif alone is not None:
        doubts.append(_straddles(phases[COMPUTE], alone, 1 - EXPOSED))
    facts = Facts(
        bottleneck=bottleneck,
        setting=setting,
        slowest_rank=alone.slowest_rank if alone is not None and skewed else None,
        data_wait_share=phases[TRAIN].data_wait_share,
        share_of_pipeline=end_to_end / pipeline,
    )
    return Verdict(
        bottleneck=bottleneck,
        certain=not any(doubts),
        end_to_end_fps=end_to_end,
        pipeline_fps=pipeline,
        compute_fps=compute,
        compute_no_sync_fps=None if alone is None else alone.fps,
        ceiling_low_fps=low,
        ceiling_high_fps=high,
        share_of_ceiling=end_to_end / high,
        unexplained_share=max(0.0, 1 - end_to_end / low),
        accelerator_util=fed,
        exposed_communication_share=exposed,
        slowest_rank=facts.slowest_rank,
        rank_skew_share=None if alone is None else alone.rank_skew_share,
        evidence=_evidence(phases, fed, exposed, facts.slowest_rank),
        remedies=tuple(
            remedy.text.format(prefetch=2 * setting.prefetch) for remedy in REMEDIES if remedy.applies(facts)
        ),
    )


@dataclass(frozen=True, slots=True)
class Facts:
    """What the remedies are chosen by."""

    bottleneck: str
    setting: Setting
    slowest_rank: int | None
    data_wait_share: float
    share_of_pipeline: float


@dataclass(frozen=True, slots=True)
class Remedy:
    """Something to try, and when; {prefetch} in it stands for twice the run's."""

    applies: Callable[[Facts], bool]
    text: str


def _threads(facts: Facts) -> int:
    return facts.setting.ranks * (facts.setting.compute_threads + facts.setting.decode_threads)


REMEDIES = (
    Remedy(
        lambda f: f.bottleneck == "pipeline" and f.setting.from_storage,
        "the files come from storage: copy them to a local disk or a RAM disk (--data)",
    ),
    Remedy(
        lambda f: f.bottleneck == "pipeline" and f.setting.ranks * f.setting.decode_threads < f.setting.cores,
        "cores are left: more --decode-threads",
    ),
    Remedy(
        lambda f: f.bottleneck == "pipeline" and f.setting.device == "gpu",
        "sweep --hw-decoder-load between 0 and 1, and give --width-hint and --height-hint",
    ),
    Remedy(
        lambda f: f.bottleneck == "pipeline" and not f.setting.from_storage,
        "decoding costs what the files' pixels cost: --data with images made smaller beforehand",
    ),
    Remedy(
        lambda f: f.bottleneck == "pipeline" and f.share_of_pipeline < REACHED,
        "alone the pipeline would deliver more: its batches come unevenly, which --prefetch {prefetch} evens out",
    ),
    Remedy(
        lambda f: f.bottleneck == "shared" and f.setting.device == "cpu" and _threads(f) > f.setting.cores,
        "training and DALI have more threads than there are cores: fewer --decode-threads or --compute-threads",
    ),
    Remedy(
        lambda f: f.bottleneck == "shared" and f.setting.device == "cpu",
        "decoding takes cores from training: --data with images made smaller beforehand, or more cores",
    ),
    Remedy(
        lambda f: f.bottleneck == "shared" and f.setting.device == "gpu",
        "decoding and training slow one another down on the same GPU or host: sweep --hw-decoder-load (the JPEG engine"
        " takes no arithmetic from training) and --decode-threads",
    ),
    Remedy(
        lambda f: f.bottleneck == "communication",
        "gradients cost the same for any batch: a larger --batch-size per device has fewer exchanges per image",
    ),
    Remedy(
        lambda f: f.bottleneck == "communication" and f.setting.device == "cpu" and f.setting.ranks > 1,
        "fewer ranks with more threads each exchange less: --gpus 1 and more --compute-threads",
    ),
    Remedy(
        lambda f: f.slowest_rank is not None,
        "one rank computes longer than the others, and they wait for it: look for its device's clocks and neighbours in"
        " <run>.devices.csv, or leave the device out of CUDA_VISIBLE_DEVICES and --gpus",
    ),
    Remedy(
        lambda f: f.bottleneck == "compute" and f.setting.device == "gpu",
        "the devices are fed: a larger --batch-size if memory is left, more --gpus, or a smaller --model",
    ),
    Remedy(
        lambda f: (
            f.bottleneck == "compute"
            and f.setting.device == "cpu"
            and f.setting.ranks * f.setting.compute_threads < f.setting.cores
        ),
        "cores are left: more --gpus (ranks) or --compute-threads",
    ),
    Remedy(
        lambda f: f.bottleneck == "compute" and f.setting.device == "cpu",
        "the cores are busy training: a smaller --model or --image-size, or more cores",
    ),
    Remedy(
        lambda f: f.bottleneck == "compute" and f.data_wait_share > 0.02,
        "some steps wait for data although it is not the limit: --prefetch {prefetch} evens out decoding times",
    ),
)


def _straddles(numerator: PhaseFigures, denominator: PhaseFigures, limit: float) -> bool:
    """Whether the 95 % interval of a ratio of two rates has the limit in it; a ratio without an interval does."""
    errors = [numerator.relative_standard_error, denominator.relative_standard_error]
    freedoms = [numerator.degrees_of_freedom, denominator.degrees_of_freedom]
    if None in errors or None in freedoms:
        return True
    variance = sum(error**2 for error in errors if error is not None)
    reach = t_quantile(min(freedom for freedom in freedoms if freedom is not None)) * math.sqrt(variance)
    return abs(math.log(numerator.fps / denominator.fps / limit)) <= reach


def _evidence(
    phases: dict[str, PhaseFigures], fed: float, exposed: float | None, slowest_rank: int | None
) -> tuple[str, ...]:
    lines = [
        f"end to end runs at {fed:.1%} of training on cached batches"
        f" ({'at least' if fed >= FED else 'less than'} the {FED:.0%} of a device that is fed)",
        f"end to end runs at {phases[TRAIN].fps / phases[PIPELINE].fps:.1%} of the pipeline alone",
        f"steps wait for data {phases[TRAIN].data_wait_share:.1%} of the time",
    ]
    if exposed is not None:
        lines.append(f"exchanging gradients takes {max(exposed, 0.0):.1%} of compute-only's time")
    if slowest_rank is not None:
        lines.append(
            f"rank {slowest_rank} computes longer than the quickest,"
            f" {phases[COMPUTE_NO_SYNC].rank_skew_share:.0%} of a step"
        )
    return tuple(lines)
