"""The settings in force, as DALI and Paddle report them, compared with the plan."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from harness.errors import InvariantError
from harness.machine.device_kinds import ON
from harness.machine.placement.shares import PIN
from harness.plan.kinds import EVALUATION
from harness.plan.option_groups.training import SYNC
from harness.plan.plan import RunPlan
from pipelines.settings import DALI_CROPS, DALI_LOADER, MIXED_DECODER

# Settings that a kind of run doesn't use.
LEFT_OUT = {EVALUATION: ("preprocessing", "auto_augment", "accumulation_steps")}


def check_settings(plan: RunPlan, found: Mapping[str, Any]) -> None:
    """Raise InvariantError, which names every setting that isn't in force.

    found is what the rank's trainer read from DALI and Paddle. DALI reports hw_decoder_load in single precision, with
    six decimals.
    """
    pipeline, training = plan.pipeline, plan.training
    by_dali = pipeline.loader == DALI_LOADER
    asked: dict[str, Any] = {
        "loader": pipeline.loader,
        "workers": None if by_dali else pipeline.workers,
        "decode_threads": pipeline.decode_threads if by_dali else None,
        "prefetch": pipeline.prefetch,
        "decoder": pipeline.decoder,
        "decode_region": pipeline.decode_region,
        "batch_size": pipeline.batch_size,
        "image_size": pipeline.image_size,
        "dtype": pipeline.dtype,
        "layout": pipeline.layout,
        "preprocessing": pipeline.preprocessing,
        "antialias": pipeline.preprocessing == DALI_CROPS,
        "resize": pipeline.resize,
        "auto_augment": pipeline.auto_augment,
        "parameters": training.dtype if training.amp_level == "O2" else "float32",
        "logits": training.dtype,
        "network_layout": pipeline.layout,
        "strides": training.strides,
        "sync_batch_norm": training.bn_stats == SYNC,
        "to_static": training.to_static,
        "accumulation_steps": training.accumulation_steps,
        "ranks": plan.ranks,
    }
    if plan.placement.affinity == PIN:
        asked["rank_cores"] = list(plan.placement.rank_cores)
    if training.tf32 is not None:
        asked["cudnn_tf32"] = training.tf32 == ON
    asked = {name: value for name, value in asked.items() if name not in LEFT_OUT.get(plan.kind, ())}
    if pipeline.decoder == MIXED_DECODER:
        asked |= {name: getattr(pipeline, name) for name in ("hw_decoder_load", "width_hint", "height_hint")}
    wrong = [
        f"{name} {wanted} was asked for, {found.get(name)} was in force"
        for name, wanted in asked.items()
        if not _same(found.get(name), wanted)
    ]
    if wrong:
        raise InvariantError(
            "; ".join(wrong),
            "This is an error in the harness: no row was written. Please report it with the run's files.",
        )


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(found, float) and isinstance(wanted, float):
        return math.isclose(found, wanted, rel_tol=1e-6, abs_tol=1e-6)
    return bool(found == wanted)
