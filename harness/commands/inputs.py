"""What a run will use, inspected before it starts: devices, data set and weights, and every file that will be read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.artifacts.bad_image import BadImage, rule_of
from harness.errors import MachineError
from harness.launch.decoder_probe import loads_to_try, probe_decoder
from harness.machine.device import Devices, choose_devices, worker_environment
from harness.machine.environment import describe
from harness.plan.decisions import default_data, make_plan
from harness.plan.options import RunConfig
from harness.plan.plan import DEFAULT_FOLDER, Decoding, RunPlan, facts_of
from harness.report.console import Console
from models.architecture import KEEP
from models.fitting import ReadFile, WeightsFile, read_file
from models.notes import Note
from pipelines.dataset import Dataset, open_dataset
from pipelines.image_lists import shown
from pipelines.layout import Lists
from pipelines.list_findings import label_notes, link_notes, repeat_notes
from pipelines.page_cache import SAMPLES, data_state, read_into_memory, resident_share
from pipelines.profile import profile
from pipelines.settings import MIXED_DECODER
from pipelines.storage import Patience, Storage

NAME_THE_DATA = "--data names the data set's folder."


@dataclass(frozen=True, slots=True)
class Inputs:
    """A run before it begins: its devices, its data, and the plan that follows from them.

    notices say what the user should know about the devices and the data. pretrained describes the file of weights.
    decoding is what a trial of the GPUs' decoder found; None without one.
    """

    devices: Devices
    dataset: Dataset
    plan: RunPlan
    notices: tuple[str, ...] = ()
    pretrained: WeightsFile | None = None
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
    source, lists = default_data(config), Lists(config.train_list, config.val_list, config.image_root)
    # Only node 0 needs the file of weights, and only at the beginning of a run.
    reads_weights = not config.node_rank and config.resume is None
    file = read_file(Path(config.pretrained)) if config.pretrained is not None and reads_weights else None
    outputs = file.outputs if file is not None and config.kind.classes_from_weights else None
    dataset = open_dataset(source, config.classes, outputs=outputs, splits=config.kind.splits, lists=lists)
    found = [*dataset.notes, *label_notes(dataset), *repeat_notes(dataset)]
    if config.pretrained is not None and (note := dataset.classes.pretrained_note()):
        found.append(note)
    for note in found:
        console.notice(note)
    if dataset.builtin and config.data is None:
        console.notice(
            Note(f"no --data, and no {DEFAULT_FOLDER} here: using the built-in set {dataset.name}", NAME_THE_DATA)
        )
    facts, decoding = facts_of(dataset, source, config.classes, outputs, lists), None
    pretrained = None if file is None else _described(file, config, facts.num_classes)
    plan = make_plan(config, devices, facts, environment, pretrained=pretrained)
    if look and plan.pipeline.decoder == MIXED_DECODER:
        images = dataset.splits[config.kind.splits[0]]
        decoding = probe_decoder(plan, devices, images, environment, loads_to_try(config.hw_decoder_load))
        if decoding.obstacle and config.decoder == MIXED_DECODER:
            raise MachineError(
                f"the GPUs' decoder can't be used: {decoding.obstacle}",
                "Decode on the CPU: --decoder cpu, or let the run choose: --decoder auto.",
            )
        plan = make_plan(config, devices, facts, environment, decoding, pretrained)
    for note in plan.notes:
        console.notice(note)
    return Inputs(devices, dataset, plan, (*notices, *found), pretrained, decoding)


def described_weights(config: RunConfig, num_classes: int) -> WeightsFile | None:
    """The description of a run's file of initial weights; None without one. Raises WeightsError."""
    if config.pretrained is None:
        return None
    return _described(read_file(Path(config.pretrained)), config, num_classes)


def _described(file: ReadFile, config: RunConfig, num_classes: int) -> WeightsFile:
    """The description of a file for a run's model. An evaluation is of the file as it is, its last layer included."""
    return file.fit(config.model, num_classes, config.pretrained_head if config.kind.trains else KEEP)[1]


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
        inputs.devices,
        next(iter(inputs.dataset.splits.values())).root,
        results,
        environment=environment,
        ranks_environment=ranks,
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
    if dataset.builtin:
        # A built-in set measures decoding and training; the disk that it happens to lie on should play no part.
        read_into_memory(images.files())
    share = resident_share(images.files(SAMPLES))
    checks = {split: Storage(of_split, patience).inspect() for split, of_split in read.items()}
    bad: list[BadImage] = []
    for split, check in checks.items():
        bad += [
            BadImage(split, index, check.images.paths[index], check.images.labels[index], reason)
            for index, reason in check.faults.items()
        ]
    rule_of(plan).enforce(bad, place=f"Paths are relative to {shown(images.root)}.")
    for note in link_notes(dataset, checks):
        patience.say(note)
    found = profile(images, checks[first].sizes)
    state = data_state(share, found.total_bytes, memory_bytes or found.total_bytes)
    larger = None if memory_bytes is None else state.larger_than_memory
    cache = {"share": state.share, "state": state.state, "bytes": state.bytes, "memory_bytes": memory_bytes}
    sizes = hashlib.sha256()
    for check in checks.values():
        sizes.update(check.sizes.array.tobytes())
    return {
        **asdict(found),
        "sizes_sha256": sizes.hexdigest(),
        "page_cache": {**cache, "larger_than_memory": larger},
    }, bad
