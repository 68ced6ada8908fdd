"""What is run, on which data and devices, and what it is called."""

from __future__ import annotations

from dataclasses import dataclass

from harness.plan.declaration import AUTO, CELL, FILE, FREE, HIDDEN, KEPT, OWN, UNMARKED, option
from harness.plan.option_checks import MAX_IMAGE_SIZE, WHY_THIS_SIZE
from models.architecture import BOTH, HEIGHT, MIN_IMAGE_SIZE
from models.sizes import RECIPE, SIZES


@dataclass(frozen=True, kw_only=True)
class RunningOptions:
    """See `harness.plan.options.RunConfig`."""

    throughput_only: bool = option(
        False, "what to run", "Measure training throughput and what limits it, then stop. No evaluation, no top-1.",
        resume=FREE, compare=HIDDEN, row=CELL,
    )  # fmt: skip
    model: str = option(
        "x1_0", "what to run", "Size of PP-LCNet: x0_25, x0_35, x0_5, x0_75, x1_0, x1_5, x2_0 or x2_5.",
        choices=tuple(SIZES), metavar="SIZE", row=CELL,
    )  # fmt: skip
    data: str | None = option(
        None, "what to run", "Folder in ImageNet's layout, or a built-in set: photos or digits. Default:"
        " dataset/ILSVRC2012 if it exists, else photos with --throughput-only and digits without.",
        metavar="PATH", resume=FREE, nodes=OWN, path=True, row=FILE,
    )  # fmt: skip
    epochs: int = option(
        RECIPE.epochs, "what to run", "Passes over the training images.", metavar="N", at_least=1, resume=FREE
    )
    batch_size: int | None = option(
        None, "what to run", "Batch size per device, in images. Default: 512 on GPUs and 16 on CPUs, smaller for a"
        " small data set in a run of epochs.", metavar="N", at_least=1, resume=KEPT,
    )  # fmt: skip
    image_size: int | str = option(
        RECIPE.image_size, "what to run", "Size of the network's images in pixels: the side of a square, or height x"
        " width, such as 80x160. Each side at least 32, at most 4096.", metavar="PIXELS", at_least=MIN_IMAGE_SIZE,
        at_most=MAX_IMAGE_SIZE, image_size=True, reason=WHY_THIS_SIZE, row=CELL,
    )  # fmt: skip
    strides: str = option(
        BOTH, "what to run", "What the network's stages halve. both: height and width, as published; height: after the"
        " first layer the height alone, as PaddleClas's PULC networks for lines of text do.", choices=(BOTH, HEIGHT),
    )  # fmt: skip
    gpus: int | None = option(
        None, "what to run", "Number of devices per node; each has one rank. Default: all of them, or up to 4 ranks on"
        " a CPU.", metavar="N", at_least=1, resume=FREE, nodes=OWN, compare=HIDDEN, row=CELL,
    )  # fmt: skip
    device: str = option(
        "auto", "what to run", "Kind of device: cpu, gpu, or the type of a Paddle plugin, such as iluvatar_gpu. auto:"
        " GPUs, else a plugin's devices, else the CPU.", metavar="KIND", resume=FREE, nodes=OWN, row=CELL,
    )  # fmt: skip
    resume: str | None = option(
        None, "what to run", "Resume RUN from its last checkpoint. Options that you don't pass keep their previous"
        " values. Without RUN: resume --run-name if it exists, otherwise the most recent unfinished run.",
        metavar="RUN", bare=AUTO, resume=FREE, nodes=OWN, compare=HIDDEN, row=UNMARKED,
    )  # fmt: skip
    run_name: str | None = option(
        None, "what to run", "Name of the run's files. Default: time, model and devices, such as"
        " 20261124-153012-x1_0-cpu2.", metavar="NAME", resume=FREE, nodes=OWN, compare=HIDDEN, row=UNMARKED,
    )  # fmt: skip
    results: str = option(
        "results", "what to run", "Folder for the tables.", metavar="PATH", resume=FREE, nodes=OWN, compare=HIDDEN,
        path=True, row=UNMARKED,
    )  # fmt: skip
    eval_only: bool = option(
        False, "what to run", "Evaluate the weights of --pretrained and report top-1 and top-5. Nothing is trained.",
        resume=FREE, compare=HIDDEN, row=UNMARKED,
    )  # fmt: skip
    seed: int = option(
        0, "what to run", "Seed of the initial weights, the image order and the augmentation.", metavar="N",
        at_least=0, row=UNMARKED,
    )  # fmt: skip
