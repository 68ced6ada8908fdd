"""The settings in force, as the engines report them, held against those that were asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from harness.errors import InvariantError
from harness.plan.config import SYNC, RunConfig
from harness.plan.plan import RunPlan

# What a run that only evaluates has no occasion to show.
OF_TRAINING = ("preprocessing", "auto_augment", "accumulation_steps")


def check_settings(config: RunConfig, plan: RunPlan, effective_settings: Mapping[str, Any]) -> None:
    """Raise InvariantError, which names every setting that isn't in force.

    effective_settings is what the ranks' trainer read back. hw_decoder_load counts where DALI reports it (single
    precision, written with six decimals).
    """
    asked: dict[str, Any] = {
        "threads": plan.decode_threads,
        "prefetch": config.prefetch,
        "batch_size": plan.batch_size,
        "image_size": plan.image_size,
        "dtype": "float16" if config.compute_dtype == "float16" else "float32",
        "layout": config.layout,
        "preprocessing": config.preprocessing,
        "antialias": config.preprocessing == "dali",
        "auto_augment": plan.auto_augment,
        "parameters": config.compute_dtype if config.amp_level == "O2" else "float32",
        "logits": config.compute_dtype,
        "network_layout": config.layout,
        "sync_batch_norm": config.bn_stats == SYNC,
        "to_static": config.to_static,
        "accumulation_steps": plan.accumulation_steps,
        "ranks": plan.ranks,
    }
    if config.eval_only:
        asked = {name: value for name, value in asked.items() if name not in OF_TRAINING}
    if plan.device == "gpu" and effective_settings.get("hw_decoder_load") is not None:
        asked["hw_decoder_load"] = config.hw_decoder_load
    wrong = [
        f"{name} {wanted} was asked for, {effective_settings.get(name)} was in force"
        for name, wanted in asked.items()
        if not _same(effective_settings.get(name), wanted)
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
