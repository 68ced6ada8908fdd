"""Each remedy, followed on the simulated machine that it was given for, makes training faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from harness.analysis.remedies import REMEDIES
from harness.analysis.verdict import Verdict
from tests.support.machines import Machine

SHORT = {"max_seconds": 30.0}

MACHINES = {
    "one decode thread beside two compute threads on two cores": Machine(
        compute_threads=2, batch_size=8, decode_seconds=1 / 33.6, compute_seconds=2 / 195
    ),
    "one worker of PaddleClas's loader on four cores": Machine(
        cores=4, loader="opencv", decode_seconds=0.01, compute_seconds=0.005
    ),
    "one core for both": Machine(cores=1, decode_seconds=0.002, compute_seconds=0.003),
    "images from storage": Machine(cores=4, storage_seconds=0.01),
    "one compute thread on four cores": Machine(cores=4, compute_seconds=0.005),
    "CPU ranks that exchange gradients": Machine(ranks=2, exchange_seconds=0.3),
    "GPU that waits for decoding": Machine(
        "gpu", cores=64, jpeg_engine_seconds=0.005, decode_seconds=0.02, hw_decoder_load=0.5, step_seconds=0.01
    ),
    "GPU that waits for uneven batches": Machine(
        "gpu", cores=8, decode_seconds=0.0025, burst=True, step_seconds=0.01, batch_size=8
    ),
    "GPU slowed by decoding": Machine(
        "gpu", cores=8, decode_seconds=0.003, decoding_slows_gpu=1.5, step_seconds=0.01
    ),
    "GPUs that exchange gradients": Machine("gpu", cores=64, ranks=4, exchange_seconds=0.3, step_seconds=0.01),
    "GPUs of which one is slow": Machine("gpu", cores=64, ranks=4, slow_rank=2, slowed=2.0, step_seconds=0.01),
}  # fmt: skip

Change = Callable[[Machine], Machine]

# What each remedy's text begins with, and what a person who follows it does; each alternative that it names.
FOLLOWED: dict[str, Callable[[Machine], Sequence[Machine]]] = {
    "The images are read from storage": lambda machine: [replace(machine, storage_seconds=0.0)],
    "Decoding leaves cores idle": lambda machine: [replace(machine, decode_threads=2 * machine.decode_threads)],
    "PaddleClas's loader decodes": lambda machine: [
        replace(machine, loader="dali", decode_seconds=machine.decode_seconds / 2)
    ],
    "The JPEG engine and": lambda machine: [
        machine if machine.jpeg_engine_seconds is None else replace(machine, hw_decoder_load=0.8)
    ],
    "Batches take uneven times": lambda machine: [replace(machine, prefetch=2 * machine.prefetch)],
    "Decoding takes time for every pixel": lambda machine: [
        replace(
            machine,
            decode_seconds=machine.decode_seconds / 2,
            jpeg_engine_seconds=None if machine.jpeg_engine_seconds is None else machine.jpeg_engine_seconds / 2,
        )
    ],
    "Exchanging gradients takes the same time": lambda machine: [
        replace(machine, batch_size=2 * machine.batch_size),
        replace(machine, accumulation_steps=2),
    ],
    "The ranks share one host": lambda machine: [
        replace(machine, ranks=1, compute_threads=machine.ranks * machine.compute_threads)
    ],
    "Rank ": lambda machine: [replace(machine, slow_rank=None)],
    "The other ranks would be faster": lambda machine: [replace(machine, slow_rank=None, ranks=machine.ranks - 1)],
    "Training leaves cores idle": lambda machine: [
        replace(machine, compute_threads=2 * machine.compute_threads),
        replace(machine, ranks=2 * machine.ranks),
    ],
    "A part of each step": lambda machine: [replace(machine, batch_size=2 * machine.batch_size)],
    "Training takes time for every image": lambda machine: [
        replace(machine, compute_seconds=machine.compute_seconds / 2),
        replace(machine, ranks=machine.ranks + 1)
        if machine.device == "gpu"
        else replace(
            machine,
            cores=2 * machine.cores,
            compute_threads=2 * machine.compute_threads,
            decode_threads=2 * machine.decode_threads,
        ),
    ],
}


@cache
def verdict_on(name: str) -> Verdict:
    """What the harness finds on a machine."""
    with TemporaryDirectory() as folder:
        verdict = replace(MACHINES[name], options=SHORT).simulation().run(Path(folder))[0].verdict
    assert verdict is not None
    return verdict


def followed(text: str) -> str:
    """The key of FOLLOWED for a remedy."""
    (start,) = (start for start in FOLLOWED if text.startswith(start))
    return start


@pytest.mark.parametrize("name", MACHINES)
def test_following_a_remedy_makes_training_faster(name: str) -> None:
    machine, verdict = MACHINES[name], verdict_on(name)
    before = machine.images_per_second()
    assert verdict.end_to_end_fps == pytest.approx(before, rel=0.05)
    assert verdict.remedies
    for text in verdict.remedies:
        for changed in FOLLOWED[followed(text)](machine):
            assert changed.images_per_second() > 1.02 * before or changed == machine, text


def test_each_remedy_is_given_on_a_machine() -> None:
    given = {followed(text) for name in MACHINES for text in verdict_on(name).remedies}
    assert {followed(remedy.text) for remedy in REMEDIES} == set(FOLLOWED) == given
