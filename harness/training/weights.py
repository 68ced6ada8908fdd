"""Gives a file's weights to the model, in place of those drawn at random."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.weights import WeightsError, describe_weights


def load_weights(model: Any, path: Path, size: str, num_classes: int, described: Mapping[str, Any]) -> None:
    """Give the model the file's weights and running statistics.

    described is what `models.weights.describe_weights` said of it. Raises WeightsError unless it fits, and is still
    that file.
    """
    weights, found = describe_weights(path, size, num_classes)
    if found != described:
        raise WeightsError(
            f"{str(path)!r} has changed since the run was planned", "Start again once nothing writes it."
        )
    for name, values in model.state_dict().items():
        values.set_value(weights[name])
