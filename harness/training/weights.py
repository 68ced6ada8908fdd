"""Loads a file's weights into the model, in place of the random initial ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.errors import WeightsError
from models.fitting import read_file


def load_weights(model: Any, path: Path, size: str, num_classes: int, described: Mapping[str, Any]) -> None:
    """Load the file's weights and running statistics into the model, whose last layer stays as it is if it is new.

    described is what `models.fitting.ReadFile.fit` returned for it when the run was planned, as a dictionary.
    Raises WeightsError unless the weights fit and the bytes that they come from are still the same.
    """
    weights, found = read_file(path).fit(size, num_classes, described["head"])
    if asdict(found) != described:
        raise WeightsError(
            f"{str(path)!r} has changed since the run was planned", "Start again when no other process writes it."
        )
    for name, values in model.state_dict().items():
        if name in weights:
            values.set_value(weights[name])
