"""Weights from a file: looked at before a run begins, and given to the model in place of those drawn at random."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.weights import WeightsError, fit, read_weights


def describe_weights(path: Path, size: str, num_classes: int) -> dict[str, Any]:
    """The file's name and SHA-256, for the record. Raises WeightsError unless it fits the model."""
    return _read(path, size, num_classes)[1]


def load_weights(model: Any, path: Path, size: str, num_classes: int, described: Mapping[str, Any]) -> None:
    """Give the model the file's weights and running statistics.

    described is what `describe_weights` said of it. Raises WeightsError unless it fits, and is still that file.
    """
    weights, found = _read(path, size, num_classes)
    if found != described:
        raise WeightsError(
            f"{str(path)!r} has changed since the run was planned", "Start again once nothing writes it."
        )
    for name, values in model.state_dict().items():
        values.set_value(weights[name])


def _read(path: Path, size: str, num_classes: int) -> tuple[Mapping[str, Any], dict[str, Any]]:
    weights = fit(read_weights(path), size, num_classes)
    return weights, {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
