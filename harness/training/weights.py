"""Loads a file's weights into the model, in place of the random initial ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.weights import WeightsError, describe_weights


def load_weights(model: Any, path: Path, size: str, num_classes: int, described: Mapping[str, Any]) -> None:
    """Load the file's weights and running statistics into the model.

    described is what `models.weights.describe_weights` returned for it when the run was planned. Raises WeightsError
    unless the weights fit and the file is still the same.
    """
    weights, found = describe_weights(path, size, num_classes)
    if found != described:
        raise WeightsError(
            f"{str(path)!r} has changed since the run was planned", "Start again when no other process writes it."
        )
    for name, values in model.state_dict().items():
        values.set_value(weights[name])
