"""What to know about a plan: where it deviates from the published recipe, and what its figures don't cover."""

from __future__ import annotations

from collections.abc import Iterator

from harness.machine.device_kinds import device_kind
from harness.plan.plan import RunPlan
from models.architecture import NEW
from models.fitting import WeightsFile
from models.notes import Note
from models.sizes import SIZES
from models.words import count_of
from pipelines.settings import DALI_CROPS, WHOLE_IMAGES

NOTED_EXCESS = 0.05  # of the images in an epoch's full batches over those of the data set


def notes_of(plan: RunPlan) -> list[Note]:
    """Where a plan deviates from the published recipe, and what its figures don't cover."""
    notes = _training_notes(plan) if plan.kind.trains else []
    if plan.pipeline.preprocessing == DALI_CROPS:
        notes.append(
            Note(
                "images are cropped and resized as DALI does by default, not as published",
                "--preprocessing paddleclas is as published.",
            )
        )
    if plan.pipeline.preprocessing == WHOLE_IMAGES:
        notes.append(
            Note(
                "images are resized as a whole, not cropped as published, and so become wider or narrower where their"
                " shape is another than that of --image-size",
                "--preprocessing paddleclas is as published.",
            )
        )
    kind = device_kind(plan.device)
    if not (kind.on_host or kind.nvml or plan.operation.telemetry_library):
        notes.append(
            Note(
                f"utilisation, memory and power of {kind.plural} are not measured without --telemetry-library",
                "--telemetry-library takes the path of the vendor's library that speaks NVML's calls.",
            )
        )
    if plan.nodes > 1:
        notes.append(
            Note(
                "utilisation, power and interference are those of node 0; images and times are those of all nodes",
                "Sample the other nodes with tools of your own, if you need theirs.",
            )
        )
    return notes


def notes_of_weights(file: WeightsFile, num_classes: int) -> Iterator[Note]:
    """What of a file of weights the model doesn't begin with."""
    if file.prefix:
        others = f"; {count_of(file.others, 'entry')} of other names are left out" if file.others else ""
        yield Note(
            f"the weights in {file.file} are those whose names begin with {file.prefix!r}{others}",
            "run_bench.py export writes a file of the network's weights alone.",
        )
    if file.head == NEW and not file.classes:
        yield Note(
            f"{file.file} has no last layer: it starts anew, with {count_of(num_classes, 'output')}",
            "Name a file with all layers in --pretrained to keep its last one.",
        )
    elif file.head == NEW:
        note = (
            f"the last layer of {file.file} starts anew: its {count_of(file.classes, 'output')} are replaced by"
            f" {num_classes:,} new ones"
        )
        if file.classes != num_classes:
            note += (
                f"; to keep them, train on lists whose labels count those {file.classes:,} classes, with --classes"
                f" {file.classes}"
            )
        yield Note(note, "--pretrained-head keep asks for weights of as many classes as the data has.")


def _training_notes(plan: RunPlan) -> list[Note]:
    notes = []
    if plan.pipeline.layout == "nhwc" and plan.training.amp == "off" and device_kind(plan.device).cudnn:
        notes.append(
            Note(
                "--layout nhwc is slower in float32: Paddle then transposes at every convolution, in 16 bits it does"
                " not",
                "Omit --layout, or give --amp.",
            )
        )
    if plan.operation.profile is not None:
        notes.append(
            Note(
                f"rank 0 traces {plan.operation.profile} of the measured steps into <run>.traces/rank0.json, which"
                " makes them slower: this run's rates can't be compared with another's",
                "Omit --profile to measure.",
            )
        )
    epoch_steps, data = plan.training.steps_per_epoch, plan.data
    epoch_images = epoch_steps * plan.global_batch
    if plan.kind.in_epochs and epoch_images > (1 + NOTED_EXCESS) * data.train_images:
        notes.append(
            Note(
                f"an epoch of {count_of(epoch_steps, 'full batch')} trains on {count_of(epoch_images, 'image')}, but"
                f" {data.name} has {data.train_images:,}",
                "With a smaller --batch-size an epoch is nearer to the number of images.",
            )
        )
    published, here = SIZES[plan.model].auto_augment, plan.pipeline.auto_augment
    if here != published:
        notes.append(
            Note(
                f"the published recipe of {plan.model} {'uses' if published else 'does not use'} AutoAugment; this run"
                f" {'does' if here else 'does not'}",
                "Omit --auto-augment and --no-auto-augment to train as published.",
            )
        )
    return notes
