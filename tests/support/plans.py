"""A plan, a configuration and a finished record, for tests that need one and care for some of its values only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from harness.analysis.gains import Gain
from harness.analysis.interference import Interference
from harness.analysis.ledger import Ledger
from harness.analysis.outliers import Outliers
from harness.analysis.remedies import Setting
from harness.analysis.steady import SteadyState
from harness.analysis.summarize import SUMMARISED
from harness.analysis.verdict import Verdict
from harness.analysis.window import PhaseFigures
from harness.artifacts.record import RunRecord
from harness.artifacts.schema import COMPUTE, COMPUTE_NO_SYNC, PIPELINE, TRAIN
from harness.machine import device_kinds
from harness.machine.device_kinds import device_kind
from harness.plan.kinds import EPOCHS, THROUGHPUT
from harness.plan.options import RunConfig
from harness.plan.plan import (
    IMAGENET,
    PARTS,
    DataFacts,
    OperationPlan,
    RunPlan,
    TrainingPlan,
    WindowPlan,
    settings_of,
)
from pipelines.augmentation import Augmentation
from pipelines.settings import CPU_DECODER, PipelineSettings

DIGITS = DataFacts("digits", "digits", 1347, 450, 10, Augmentation(0.5, 1.0, 0.9, 1.1, 0.0), False, True)


def a_config(**changes: Any) -> RunConfig:
    """What asks for `a_plan`."""
    asked = RunConfig(model="x0_25", device="cpu", gpus=2, epochs=20, image_size=64, data="digits", decode_threads=2)
    return replace(asked, **changes)


def a_plan(**changes: Any) -> RunPlan:
    """20 epochs of the smallest model on digits, on two CPU ranks."""
    plan = RunPlan(
        kind=EPOCHS,
        model="x0_25",
        device="cpu",
        device_name="CPU",
        ranks=2,
        nodes=1,
        data=DIGITS,
        pipeline=PipelineSettings(batch_size=32, image_size=64, decode_threads=2),
        training=TrainingPlan(
            epochs=20,
            steps_per_epoch=22,
            learning_rate=0.025,
            lr_warmup_epochs=5,
            momentum=0.9,
            weight_decay=3e-5,
            label_smoothing=0.1,
            accumulation_steps=1,
            bn_stats="average",
            amp="off",
            amp_level="O1",
            to_static=False,
            compute_threads=1,
            pretrained=None,
        ),
        window=WindowPlan(warmup_steps=3, warmup_given=False, target_ci=0.02, max_seconds=130.0),
        operation=OperationPlan(
            stall_timeout=600.0,
            rendezvous_timeout=300.0,
            checkpoint_minutes=15.0,
            telemetry_interval=0.5,
            bad_images="skip",
            max_bad_images=100,
            max_bad_share=0.01,
        ),
    )
    return with_settings(plan, **changes)


def a_published_plan(**changes: Any) -> RunPlan:
    """The published training: x1_0 on ImageNet, 4 GPUs with 512 images each, 360 epochs."""
    published = {
        "model": "x1_0", "device": "gpu", "device_name": "H100", "ranks": 4, "data": IMAGENET, "image_size": 224,
        "batch_size": 512, "epochs": 360, "steps_per_epoch": 626, "learning_rate": 0.8, "decode_threads": 2,
    }  # fmt: skip
    return a_plan(**{**published, **changes})


def with_settings(plan: RunPlan, **changes: Any) -> RunPlan:
    """The plan with other values of some settings, each in the part of the plan that has it."""
    known = settings_of(plan)
    assert changes.keys() <= known.keys(), changes.keys() - known.keys()
    parts, asked = {}, changes
    for part in PARTS:
        own = {name: value for name, value in changes.items() if name in asdict(getattr(plan, part))}
        if own:
            parts[part] = replace(getattr(plan, part), **own)
            changes = {name: value for name, value in changes.items() if name not in own}
    changed = replace(plan, **parts, **changes)
    # Unless they are asked for: DALI decodes where the training runs, and whole images with a GPU's decoder.
    decoder = asked.get("decoder", device_kind(changed.device).decoder)
    region = asked.get("decode_region", decoder == CPU_DECODER)
    return replace(changed, pipeline=replace(changed.pipeline, decoder=decoder, decode_region=region))


GPU_SETTING = Setting(device_kinds.GPU, 1, 1, 64, 8, 8, 2, from_storage=False, decoder="mixed")


def figures(**changes: Any) -> PhaseFigures:
    """437 steps of 64 images in 328.03 s, 85.26 images/s, known to 1.35 %."""
    measured = PhaseFigures(
        images=27_968,
        window_seconds=328.03,
        window_steps=437,
        warmup_steps=3,
        fps=27_968 / 328.03,
        fps_low=84.12,
        fps_high=86.43,
        relative_standard_error=0.00685,
        degrees_of_freedom=200.0,
        autocorrelation=0.2,
        step_seconds_p50=0.7421,
        step_seconds_p95=0.9013,
        step_seconds_p99=1.0042,
        step_seconds_sd=0.08,
        data_wait_share=0.0312,
        rank_skew_share=0.01,
        slowest_rank=1,
        gpu_util_percent=None,
        cpu_util_percent=93.7,
        outliers=Outliers(4, 3.28, 0.01, 0, 0.0, 27_968 / 328.03, {"data wait": 3, "unknown": 1}),
        interference="none",
    )
    return replace(measured, **changes)


def rate(fps: float, error: float | None = 0.002, **changes: Any) -> PhaseFigures:
    """100 equal steps at that rate, with that relative standard error."""
    usual: dict[str, Any] = {
        "images": 1000, "window_seconds": 1000 / fps, "window_steps": 100, "warmup_steps": 5, "fps": fps,
        "fps_low": fps * 0.99, "fps_high": fps * 1.01, "relative_standard_error": error, "degrees_of_freedom": 50.0,
        "autocorrelation": 0.0, "step_seconds_p50": 0.1, "step_seconds_p95": 0.1, "step_seconds_p99": 0.1,
        "step_seconds_sd": 0.0, "data_wait_share": 0.0, "rank_skew_share": 0.0, "slowest_rank": 0,
        "gpu_util_percent": None, "cpu_util_percent": None, "outliers": Outliers(0, 0.0, 0.0, 0, 0.0, fps),
        "interference": "none",
    }  # fmt: skip
    return PhaseFigures(**{**usual, **changes})


def a_verdict(**changes: Any) -> Verdict:
    """A training that decoding takes cores from."""
    verdict = Verdict(
        bottleneck="shared",
        contenders=("compute", "pipeline"),
        certain=True,
        data_gain=Gain(1.1728, 1.1502, 1.1959),
        training_gain=Gain(1.2431, 1.2213, 1.2653),
        communication_gain=Gain(1.0833, 0.9871, 1.1888),
        computation_gain=Gain(1.2431, 1.2213, 1.2653),
        end_to_end_fps=27_968 / 328.03,
        pipeline_fps=106.0,
        compute_fps=100.0,
        compute_no_sync_fps=110.0,
        accelerator_util=0.8526,
        unexplained_share=0.0,
        exposed_communication_share=1 - 100 / 110,
        slowest_rank=None,
        rank_skew_share=0.01,
        doubts=(),
        evidence=("Steps wait for data 3.1% of the time.",),
        remedies=("Decoding leaves cores idle. Raise --decode-threads (this run: 1 per rank, 4 cores).",),
    )
    return replace(verdict, **changes)


LEDGER = Ledger(
    wall_seconds=400.0,
    data_wait_seconds=10.23,
    copy_seconds=0.0,
    forward_seconds=90.0,
    backward_seconds=180.0,
    optimizer_seconds=44.0,
    compute_seconds=0.0,
    evaluation_seconds=70.0,
    checkpoint_seconds=0.0,
    recording_seconds=1.2,
    exchange_seconds=4.1,
)


def a_record(**changes: Any) -> RunRecord:
    """The finished run of `a_config` and `a_plan`, as it is read back: a run of epochs has no verdict."""
    run, train = "20261124-153012-x0_25-cpu2", figures()
    record = RunRecord(
        run=run,
        status="finished",
        config=a_config(),
        plan=a_plan(),
        environment={"python": "3.11.7", "cores": 2, "gpus": [], "packages": {"numpy": "2.3"}},
        window_end="epochs",
        profile={"images": 1347, "mean_bytes": 113_287.0, "bits_per_pixel": 3.456},
        effective_settings={
            "loader": "dali", "workers": None,
            "decode_threads": 2, "prefetch": 2, "decoder": "cpu", "decode_region": True, "hw_decoder_load": None,
            "width_hint": None, "height_hint": None, "batch_size": 32, "image_size": 64,
            "dtype": "float32", "layout": "nchw", "preprocessing": "paddleclas", "antialias": False,
            "resize": "dali", "auto_augment": False,
            "parameters": "float32", "logits": "float32", "network_layout": "nchw",
            "strides": "both",
            "sync_batch_norm": False, "to_static": False, "accumulation_steps": 1, "ranks": 2,
        },
        phases={TRAIN: plain(train)},
        steady=plain(SteadyState(3, True, -0.0123, "warm-up found in the step times")),
        ledger={**plain(LEDGER), "rest_seconds": LEDGER.rest_seconds},
        outliers=plain(train.outliers),
        interference=plain(Interference((), 2, 437, {"swap": 0.004})),
        summary=a_summary(run, train),
    )  # fmt: skip
    return replace(record, **changes)


def a_published_record(*, summary: Mapping[str, Any] | None = None, **changes: Any) -> RunRecord:
    """The finished run of `a_published_plan`; summary has changes to its row of summary.csv."""
    known = {
        "top1": 0.7102, "top5": 0.8987, "epochs": 360, "val_images": 50_000, "device_name": "H100",
        "left_out_train_images": 0, "left_out_val_images": 0,
    }  # fmt: skip
    plan = changes.pop("plan", a_published_plan())
    record = a_record(config=a_config(model="x1_0", device="gpu", gpus=4, epochs=360, image_size=224, data=None))
    return replace(record, plan=plan, summary={**record.summary, **known, **(summary or {})}, **changes)


def a_throughput_record(**changes: Any) -> RunRecord:
    """The same as a throughput run: every phase measured, with a verdict and without a top-1."""
    verdict = a_verdict()
    rates = {PIPELINE: 106.0, COMPUTE: 100.0, COMPUTE_NO_SYNC: 110.0}
    others = {
        name: figures(
            images=6400,
            window_steps=100,
            window_seconds=6400 / fps,
            fps=fps,
            fps_low=None,
            fps_high=None,
            outliers=Outliers(0, 0.0, 0.0, 0, 0.0, fps),
        )
        for name, fps in rates.items()
    }
    known = {name: getattr(verdict, name) for name in (
        "bottleneck", "pipeline_fps", "compute_fps", "accelerator_util", "exposed_communication_share")}  # fmt: skip
    for name in ("data_gain", "training_gain", "communication_gain"):
        found = getattr(verdict, name)
        known |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    epochs, alone = a_record(), replace(LEDGER, wall_seconds=330.0, evaluation_seconds=0.0)
    record = replace(
        epochs,
        config=a_config(throughput_only=True),
        plan=a_plan(kind=THROUGHPUT),
        window_end="target_ci",
        phases={**epochs.phases, **{name: plain(found) for name, found in others.items()}},
        ledger={**plain(alone), "rest_seconds": alone.rest_seconds},
        verdict=plain(verdict),
        summary={
            **epochs.summary,
            **known,
            "verdict_doubts": "none",
            "window_end": "target_ci",
            "top1": None,
            "top5": None,
            "epochs": 0,
            "val_images": None,
            "left_out_val_images": None,
        },
    )
    return replace(record, **changes)


def a_summary(run: str, train: PhaseFigures) -> dict[str, Any]:
    """The row of summary.csv."""
    plan = a_plan()
    of_train = {name: value for name, value in asdict(train).items() if name in SUMMARISED}
    return {
        "run": run, "series": None, "model": plan.model, "dataset": plan.data.name,
        "crop_size": plan.pipeline.image_size,
        "device": plan.device, "device_name": "Xeon 6148", "devices": plan.ranks,
        "batch_size": plan.pipeline.batch_size,
        "amp": "off", "overflow_steps": None, "fps_per_device": train.fps / plan.ranks, **of_train, "steady": True,
        "window_end": "epochs",
        "bottleneck": None, "verdict_doubts": None, "pipeline_fps": None, "compute_fps": None, "accelerator_util": None,
        "exposed_communication_share": None,
        "data_gain": None, "data_gain_low": None, "data_gain_high": None,
        "training_gain": None, "training_gain_low": None, "training_gain_high": None,
        "communication_gain": None, "communication_gain_low": None, "communication_gain_high": None,
        "outlier_steps": 4, "interference": "none", "interference_steps": 2,
        "model_flops_util": None, "images_per_joule": None, "top1": 0.95333, "top5": 0.99778, "epochs": 20,
        "val_images": 450, "left_out_train_images": 0, "left_out_val_images": 0,
    }  # fmt: skip


def plain(found: Any) -> dict[str, Any]:
    """A dataclass as a record that was read back has it: lists where it has tuples."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(found)))
    return values
