"""What a run will use, inspected before it starts: devices, data set and weights, and every file that will be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.artifacts.bad_image import BadImage
from harness.errors import MachineError
from harness.launch.decoder_probe import loads_to_try, probe_decoder
from harness.machine.device import Devices, choose_devices, worker_environment
from harness.machine.environment import describe
from harness.plan.decisions import default_data, make_plan
from harness.plan.options import FAIL, RunConfig
from harness.plan.plan import DEFAULT_FOLDER, Decoding, RunPlan, facts_of
from harness.report.console import Console
from models.weights import describe_weights
from pipelines.dataset import Dataset, open_dataset
from pipelines.errors import DataError
from pipelines.page_cache import data_state, read_into_memory, resident_share
from pipelines.profile import profile
from pipelines.settings import MIXED_DECODER
from pipelines.storage import Patience, Storage


@dataclass(frozen=True, slots=True)
class Inputs:
    """A run before it begins: its devices, its data, and the plan that follows from them.

    notices say what the user should know about the choice of devices. pretrained describes the file of weights.
    decoding is what a trial of the GPUs' decoder found; None without one.
    """

    devices: Devices
    dataset: Dataset
    plan: RunPlan
    notices: tuple[str, ...] = ()
    pretrained: Mapping[str, Any] | None = None
    decoding: Decoding | None = None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found about the machine and the files that a run will read, as the record stores it."""

    environment: dict[str, Any]
    profile: dict[str, Any]
    bad_images: tuple[dict[str, Any], ...]


def find_inputs(config: RunConfig, console: Console, environment: Mapping[str, str], *, look: bool = True) -> Inputs:
    """The devices, data and weights that a configuration asks for.

    With look=False, GPUs are assumed to be there. Raises ActionableError when something is missing, or when they don't
    fit together.
    """
    devices, notices = choose_devices(config.device, config.gpus, environment, look=look)
    for notice in notices:
        console.notice(notice)
    source = default_data(config)
    dataset = open_dataset(source, config.classes)
    if not set(config.kind.splits) <= set(dataset.splits):
        raise DataError(
            f"{dataset.name} has no validation images, so a run can't end with a top-1",
            "Add val_list.txt or a val/ folder, or measure with --throughput-only.",
        )
    if config.data is None and dataset.builtin:
        console.notice(f"no --data, and no {DEFAULT_FOLDER} here: using the built-in set {dataset.name}")
    facts, decoding = facts_of(dataset, source), None
    plan = make_plan(config, devices, facts, environment)
    if look and plan.pipeline.decoder == MIXED_DECODER:
        images = dataset.splits[config.kind.splits[0]]
        decoding = probe_decoder(plan, devices, images, environment, loads_to_try(config.hw_decoder_load))
        if decoding.obstacle and config.decoder == MIXED_DECODER:
            raise MachineError(
                f"the GPUs' decoder can't be used: {decoding.obstacle}",
                "Decode on the CPU: --decoder cpu, or let the run choose: --decoder auto.",
            )
        plan = make_plan(config, devices, facts, environment, decoding)
    for note in plan.notes:
        console.notice(note)
    # Only node 0 needs the file, and only at the beginning of a run.
    reads_weights = not config.node_rank and config.resume is None
    return Inputs(devices, dataset, plan, notices, described_weights(plan) if reads_weights else None, decoding)


def described_weights(plan: RunPlan) -> dict[str, Any] | None:
    """Name and digest of a plan's file of initial weights; None without one. Raises WeightsError."""
    path = plan.training.pretrained
    return None if path is None else describe_weights(Path(path), plan.model, plan.data.num_classes)[1]


def inspect_inputs(
    inputs: Inputs, results: Path, environment: Mapping[str, str], say: Callable[[str], None] = lambda _: None
) -> Inspection:
    """Inspect the machine and every file that the run will read; say is called with what the user should know.

    Raises DataError when more files are unusable than the plan allows, StorageError when they can't be read for longer
    than a run may make no progress.
    """
    training = inputs.plan.training
    ranks = worker_environment(inputs.devices, training.compute_threads, environment, training.tf32)
    machine = describe(
        inputs.devices, inputs.dataset.train.root, results, environment=environment, ranks_environment=ranks
    )
    memory = [machine[name] for name in ("memory_bytes", "memory_limit_bytes") if machine[name]]
    patience = Patience(inputs.plan.operation.stall_timeout, say)
    profiled, bad = _inspect_files(inputs.dataset, inputs.plan, min(memory, default=None), patience)
    return Inspection(machine, profiled, tuple(asdict(image) for image in bad))


def _inspect_files(
    dataset: Dataset, plan: RunPlan, memory_bytes: int | None, patience: Patience
) -> tuple[dict[str, Any], list[BadImage]]:
    """The profile of the run's first split, with its share in the page cache, and the unusable files of all splits."""
    read = {split: images for split, images in dataset.splits.items() if split in plan.kind.splits}
    first, images = next(iter(read.items()))
    paths = [f"{images.root}/{path}" for path in images.paths]
    if dataset.builtin:
        # A built-in set measures decoding and training; the disk that it happens to lie on should play no part.
        read_into_memory(paths)
    share = resident_share(paths)
    checks = {split: Storage(of_split, patience).inspect() for split, of_split in read.items()}
    bad: list[BadImage] = []
    for split, check in checks.items():
        bad += [
            BadImage(split, index, check.images.paths[index], check.images.labels[index], reason)
            for index, reason in check.faults.items()
        ]
        if check.faults and (plan.operation.bad_images == FAIL or len(bad) > plan.operation.max_bad_images):
            raise check.refuse()
    found = profile(images, checks[first].sizes)
    state = data_state(share, found.total_bytes, memory_bytes or found.total_bytes)
    larger = None if memory_bytes is None else state.larger_than_memory
    cache = {"share": state.share, "state": state.state, "bytes": state.bytes, "memory_bytes": memory_bytes}
    return {**asdict(found), "page_cache": {**cache, "larger_than_memory": larger}}, bad
