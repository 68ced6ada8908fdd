"""Decodes some images as a run will, in its own process, so that a decoder may crash or hang there."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from nvidia.dali.pipeline import Pipeline

from models.errors import ActionableError
from pipelines.augmentation import Augmentation
from pipelines.bad_image_probe import Fault, what_happened
from pipelines.dali_graphs import Feed, training_graph
from pipelines.file_checks import check_files
from pipelines.image_lists import ImageList
from pipelines.sampling import ContinuousOrder, Position
from pipelines.settings import PipelineSettings
from pipelines.source import DaliSource, SourceState
from pipelines.stored_lists import load_list


def rate(images: ImageList, settings: PipelineSettings, seconds: float) -> float:
    """Returns the images per second that this process decodes and prepares as for training, in about this time.

    The images come over and over; those that can't be decoded are left out. Raises DecoderError when the decoder fails
    on good images, DataError without a good one, and ValueError for results that are not finite.
    """

    def graph(feed: Feed, seed: int, state: bytes | None) -> Pipeline:
        return training_graph(feed, Augmentation(), settings, seed, state)

    def leave_out(_: Sequence[Fault], __: Position) -> None:
        """Nothing to report: the run looks at its images itself."""

    order = ContinuousOrder(len(images), 0, 1, settings.batch_size, settings.seed)
    # Missing files are left out at once: nothing is gained by waiting for them in a trial.
    unusable = SourceState(bad=frozenset(check_files(images).faults))
    source = DaliSource(images, order, graph, settings, leave_out, start=unusable)
    # The first batches wait for memory; DALI has prepared the next ones by then.
    for _ in range(1 + settings.prefetch):
        values = next(source).images.astype("float32").numpy()
        if not np.isfinite(values).all():
            raise ValueError("decoded images have values that are not finite")
    began, batches = time.monotonic(), 0
    while time.monotonic() - began < seconds or not batches:
        next(source)
        batches += 1
    return batches * settings.batch_size / (time.monotonic() - began)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Returns rates, images per second by share of the JPEG engine, and error: what kept the decoder from working.

    request has the folder of the images' list and their root, the settings by name, the shares to try, and the seconds
    for each.
    """
    images = load_list(Path(request["list"]), Path(request["root"]))
    settings, rates = PipelineSettings(**request["settings"]), {}
    try:
        for load in request["loads"]:
            rates[str(load)] = rate(images, replace(settings, hw_decoder_load=load), request["seconds"])
    except ActionableError as error:
        return {"rates": rates, "error": error.message}
    except Exception as error:
        return {"rates": rates, "error": f"{type(error).__name__}: {what_happened(str(error))}"}
    return {"rates": rates, "error": ""}


if __name__ == "__main__":
    # Libraries print as well, so that the answer is the last line.
    print("\n" + json.dumps(answer(json.load(sys.stdin))), flush=True)
