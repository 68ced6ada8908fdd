"""The settings in force, as the engines report them, held against those that were asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from harness.config import RunConfig
from harness.errors import InvariantError
from harness.plan import RunPlan


def check_settings(config: RunConfig, plan: RunPlan, read_back: Mapping[str, Any]) -> None:
    """Raise InvariantError, which names every setting that isn't in force.

    read_back is `harness.trainer.Trainer.read_back`'s. hw_decoder_load counts where DALI tells it (single precision,
    written with six decimals).
    """
    asked: dict[str, Any] = {
        "threads": plan.decode_threads,
        "prefetch": config.prefetch,
        "batch_size": plan.batch_size,
        "image_size": plan.image_size,
        "dtype": "float32",
        "parameters": "float32",
        "ranks": plan.ranks,
    }
    if plan.device == "gpu" and read_back.get("hw_decoder_load") is not None:
        asked["hw_decoder_load"] = config.hw_decoder_load
    wrong = [
        f"{name} {wanted} was asked for, {read_back.get(name)} was in force"
        for name, wanted in asked.items()
        if not _same(read_back.get(name), wanted)
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
