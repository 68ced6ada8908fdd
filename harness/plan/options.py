"""Everything a user can set, declared once: command line, TOML file, record and the rules of a run come from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.machine.device_kinds import OFF, ON
from harness.plan.declaration import (
    AUTO,
    CELL,
    FILE,
    FREE,
    HIDDEN,
    KEPT,
    NOTED,
    OWN,
    UNMARKED,
    Option,
    option,
    options_of,
    parse_values,
)
from harness.plan.kinds import RunKind, kind_of
from harness.plan.left_out import MAX_BAD_IMAGES, MAX_BAD_SHARE
from harness.plan.option_checks import (
    MAX_IMAGE_SIZE,
    WHY_THIS_SIZE,
    check_combinations,
    parse_device_counts,
    parse_master,
)
from models.architecture import KEEP, MIN_IMAGE_SIZE, NEW
from models.sizes import RECIPE, SIZES
from pipelines.image_lists import MAX_CLASSES
from pipelines.settings import CPU_DECODER, MIXED_DECODER

# Processor time is counted in hundredths of a second, and NVML samples no more often.
MIN_TELEMETRY_INTERVAL = 0.1
# Ranks exchange their records about once a second.
MIN_STALL_TIMEOUT = 5.0
MAX_TIMEOUT = 7 * 86400.0
# What to do with an image that can't be used.
SKIP, FAIL = "skip", "fail"
# Which running statistics of batch norm are used for evaluation.
AVERAGE, RANK0, SYNC = "average", "rank0", "sync"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What was asked for. None means: decided by the device or the data set, see `harness.plan.decisions`.

    The defaults are PaddleClas's published PP-LCNet recipe. --help shows the first sentence of an option's help;
    docs/options.md has all of it. Raises UsageError for an invalid value or combination.
    """

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
    image_size: int = option(
        RECIPE.image_size, "what to run", "Side of the square crop, in pixels. At least 32, at most 4096.",
        metavar="PIXELS", at_least=MIN_IMAGE_SIZE, at_most=MAX_IMAGE_SIZE, reason=WHY_THIS_SIZE, row=CELL,
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

    warmup: int | None = option(
        None, "measuring", "Training steps before the measured window. Default: found in the step times.",
        metavar="STEPS", at_least=0, resume=FREE, compare=HIDDEN, row=UNMARKED,
    )  # fmt: skip
    target_ci: float = option(
        0.02, "measuring", "Stop a throughput run when its 95 % interval is this narrow. The half-width of the"
        " confidence interval is then at most this fraction of the throughput (0.02 = +/-2 %).",
        metavar="FRACTION", above=0, resume=FREE, row=UNMARKED,
    )  # fmt: skip
    max_seconds: float = option(
        130.0, "measuring", "Stop a throughput run after this many measured seconds. All its phases count.",
        metavar="SECONDS", above=0, resume=FREE, row=UNMARKED,
    )  # fmt: skip
    repeats: int = option(
        1, "measuring", "Run this many times to measure the spread between runs. Each run has fresh processes.",
        metavar="K", at_least=1, resume=FREE, compare=HIDDEN, row=UNMARKED,
    )  # fmt: skip
    device_counts: str | None = option(
        None, "measuring", "Measure with each of these numbers of devices, such as 1,2,4. Default: --gpus only.",
        metavar="N,N,...", resume=FREE, compare=HIDDEN, row=UNMARKED,
    )  # fmt: skip
    telemetry_interval: float = option(
        0.5, "measuring", "Seconds between two telemetry samples. At least 0.1.", metavar="SECONDS",
        at_least=MIN_TELEMETRY_INTERVAL, resume=FREE, nodes=OWN, row=UNMARKED,
    )  # fmt: skip
    profile: int | None = option(
        None, "measuring", "Trace this many training steps of rank 0 after the warm-up, into <run>.traces/rank0.json."
        " Tracing slows these steps down.", metavar="STEPS", at_least=1, resume=FREE,
    )  # fmt: skip
    telemetry_library: str | None = option(
        None, "measuring", "Library that reports on the devices, for accelerators whose vendor's library speaks NVML's"
        " calls, such as Iluvatar's libixml.so. Default: NVML's own for GPUs, none for other devices.",
        metavar="PATH", resume=FREE, nodes=OWN, compare=HIDDEN, path=True, row=UNMARKED,
    )  # fmt: skip

    learning_rate: float | None = option(
        None, "training", "Peak learning rate. Default: 0.1 per 256 images of the global batch.", metavar="RATE",
        above=0,
    )  # fmt: skip
    lr_warmup_epochs: int | None = option(
        None, "training", "Epochs over which the learning rate rises from 0. Default: 5, or all epochs if fewer.",
        metavar="N", at_least=0, resume=KEPT,
    )  # fmt: skip
    momentum: float = option(RECIPE.momentum, "training", "Momentum of SGD.", metavar="M", at_least=0, below=1)
    weight_decay: float | None = option(
        None, "training", "L2 coefficient. Default: the size's published one (3e-5, from x1_5 up 4e-5).",
        metavar="W", at_least=0,
    )  # fmt: skip
    label_smoothing: float = option(
        RECIPE.label_smoothing, "training", "Share of the target that is spread over all classes.", metavar="SHARE",
        at_least=0, at_most=1,
    )  # fmt: skip
    accumulation_steps: int = option(
        1, "training", "Batches per device whose gradients are combined into one step.", metavar="N", at_least=1
    )
    auto_batch: bool = option(
        False, "training", "Halve the batch size until a batch fits into a device's memory.", resume=FREE,
        compare=HIDDEN, row=UNMARKED,
    )  # fmt: skip
    pretrained: str | None = option(
        None, "training", "File of initial weights: PaddleClas's .pdparams, or .safetensors.", metavar="FILE",
        path=True,
    )  # fmt: skip
    pretrained_head: str | None = option(
        None, "training", "What to do with the last layer of --pretrained, which has an output for each class. keep:"
        " refuse a file with another number of outputs than the run has classes; new: start the layer anew, as without"
        " the file. An evaluation always keeps it. Default: keep if the two numbers are equal, else new.",
        choices=(KEEP, NEW), metavar="auto|keep|new", resume=KEPT, nodes=OWN,
    )  # fmt: skip
    bn_stats: str = option(
        AVERAGE, "training", "Batch-norm statistics used for evaluation. average: of all ranks; rank0: those of rank 0;"
        " sync: synchronised batch norm, which is then also used in training (GPUs only).",
        choices=(AVERAGE, RANK0, SYNC),
    )  # fmt: skip
    amp: str = option(
        "off", "training", "Mixed precision, on GPUs only. off: train in float32.", choices=("off", "bf16", "fp16")
    )
    amp_level: str | None = option(
        None, "training", "Level of mixed precision. O1: the operators on Paddle's list, which lacks depthwise"
        " convolutions; O2: all operators, and all weights but batch norm's. Default: O1.", choices=("O1", "O2"),
    )  # fmt: skip
    amp_depthwise: bool = option(False, "training", "Compute depthwise convolutions in 16 bits at --amp-level O1, too.")
    master_grad: bool = option(
        False, "training", "Update weights by float32 gradients at --amp-level O2. Otherwise by gradients of 16 bits."
    )
    tf32: str | None = option(
        None, "training", "Whether float32 convolutions and matrix products may be computed in TF32, on GPUs only. off"
        " forbids it to cuDNN and cuBLAS. Default: Paddle's, which allows it.", choices=(ON, OFF),
    )  # fmt: skip
    layout: str = option(
        "nchw", "training", "Memory layout of images and activations: channels first or last.",
        choices=("nchw", "nhwc"), row=UNMARKED,
    )  # fmt: skip
    to_static: bool = option(False, "training", "Train the network as a static graph.", row=UNMARKED)
    compute_threads: int | None = option(
        None, "training", "CPU threads per rank for training. Default: OMP_NUM_THREADS, else the cores per rank.",
        metavar="N", at_least=1, resume=NOTED, nodes=OWN, row=UNMARKED,
    )  # fmt: skip

    classes: int | None = option(
        None, "data", "Number of classes. Default: that in dataset.toml, else the number of class folders, or the"
        " largest label in the lists plus 1; in an evaluation the number of the weights' outputs.", metavar="N",
        at_least=1, at_most=MAX_CLASSES, resume=FREE, compare=HIDDEN,
    )  # fmt: skip
    train_list: str | None = option(
        None, "data", "List of the training images. Default: train_list.txt in the folder of --data, if it exists.",
        metavar="FILE", resume=FREE, nodes=OWN, path=True, row=FILE,
    )  # fmt: skip
    val_list: str | None = option(
        None, "data", "List of the validation images. Default: val_list.txt in the folder of --data, if it exists.",
        metavar="FILE", resume=FREE, nodes=OWN, path=True, row=FILE,
    )  # fmt: skip
    image_root: str | None = option(
        None, "data", "Folder that the paths in the lists are relative to. Default: that of --data.",
        metavar="PATH", resume=FREE, nodes=OWN, path=True, row=FILE,
    )  # fmt: skip
    crop_area_min: float | None = option(
        None, "data", "Smallest training crop as a share of the image. Default: the data set's.", metavar="SHARE",
        above=0, at_most=1, resume=FREE, compare=HIDDEN,
    )  # fmt: skip
    flip_probability: float | None = option(
        None, "data", "Probability of mirroring a training crop. Default: the data set's.", metavar="P",
        at_least=0, at_most=1, resume=FREE, compare=HIDDEN,
    )  # fmt: skip
    preprocessing: str = option(
        "paddleclas", "data", "How images are cropped and resized. paddleclas: uniform aspect ratio and plain bilinear"
        " resizing, as published; dali: log-uniform aspect ratio and antialiasing.", choices=("paddleclas", "dali"),
    )  # fmt: skip
    auto_augment: bool | None = option(
        None, "data", "Apply AutoAugment's ImageNet policy to training crops. Default: as published, only for x2_5."
    )
    bad_images: str = option(
        SKIP, "data", "What to do with an image that can't be used. skip: leave it out and report it; fail: end"
        " the run.", choices=(SKIP, FAIL), resume=FREE, row=UNMARKED,
    )  # fmt: skip
    max_bad_images: int = option(
        MAX_BAD_IMAGES, "data", "End the run when more than this many images can't be used. Of all splits together.",
        metavar="N", at_least=0, resume=FREE, row=UNMARKED,
    )  # fmt: skip
    max_bad_share: float = option(
        MAX_BAD_SHARE, "data", "End the run when more than this share of a split's images can't be used. 0.01 is one of"
        " a hundred; --max-bad-images is a limit, too.", metavar="SHARE", at_least=0, at_most=1, resume=FREE,
        row=UNMARKED,
    )  # fmt: skip

    decode_threads: int | None = option(
        None, "loading", "DALI threads per rank. Default: the cores per rank, at most 8.", metavar="N",
        at_least=1, resume=FREE, nodes=OWN, row=UNMARKED,
    )  # fmt: skip
    prefetch: int = option(
        2, "loading", "Batches that DALI prepares in advance, per rank.", metavar="N", at_least=1, resume=FREE,
        row=UNMARKED,
    )  # fmt: skip
    decoder: str = option(
        AUTO, "loading", "Where images are decoded. mixed: on the host and the GPU; cpu: on the host; auto: mixed on"
        " GPUs if a trial before the run finds that their decoder works, else cpu.",
        choices=(AUTO, MIXED_DECODER, CPU_DECODER), resume=NOTED, row=UNMARKED,
    )  # fmt: skip
    decode_region: str = option(
        AUTO, "loading", "Decode only the region of an image that a crop needs. The pixels are the same. auto: on with"
        " the host's decoder, off with the GPU's, which is reported to fail on regions.", choices=(AUTO, ON, OFF),
        resume=NOTED, row=UNMARKED,
    )  # fmt: skip
    hw_decoder_load: float | None = option(
        None, "loading", "Share of images decoded by the GPU's JPEG engine, if it has one. Default: the fastest of"
        " 0, 0.65 and 1 in a trial before the run.", metavar="SHARE", at_least=0, at_most=1, resume=KEPT, nodes=OWN,
        row=UNMARKED,
    )  # fmt: skip
    width_hint: int | None = option(
        None, "loading", "Width of the widest image, in pixels. A GPU's decoder then allocates memory only once."
        " Default: from the headers of 512 images.", metavar="PIXELS", at_least=0, resume=FREE, nodes=OWN, row=UNMARKED,
    )  # fmt: skip
    height_hint: int | None = option(
        None, "loading", "Height of the tallest image, in pixels. See --width-hint.", metavar="PIXELS", at_least=0,
        resume=FREE, nodes=OWN, row=UNMARKED,
    )  # fmt: skip

    nnodes: int = option(
        1, "several nodes", "Number of machines that train together. Start the same command on each.", metavar="N",
        at_least=1, resume=FREE, compare=HIDDEN, row=CELL,
    )  # fmt: skip
    master: str | None = option(
        None, "several nodes", "Address of node 0 and a free port on it, such as 10.0.0.1:6170.", metavar="HOST:PORT",
        resume=FREE, nodes=OWN, compare=HIDDEN, row=UNMARKED,
    )  # fmt: skip
    node_rank: int | None = option(
        None, "several nodes", "Number of this node, from 0. Node 0 writes the tables.", metavar="R", at_least=0,
        resume=FREE, nodes=OWN, compare=HIDDEN, row=UNMARKED,
    )  # fmt: skip
    rendezvous_timeout: float = option(
        300.0, "several nodes", "Abort the run if not all nodes have joined after this many seconds.",
        metavar="SECONDS", above=0, at_most=MAX_TIMEOUT, resume=FREE, nodes=OWN, compare=HIDDEN, row=UNMARKED,
    )  # fmt: skip

    checkpoint_minutes: float = option(
        15.0, "long runs", "Minutes between two checkpoints. Each epoch also ends with one.",
        metavar="MINUTES", above=0, resume=FREE, nodes=OWN, row=UNMARKED,
    )  # fmt: skip
    stall_timeout: float = option(
        600.0, "long runs", "Abort the run if any rank makes no progress for this many seconds. At least 5. Until"
        " the first step it is at least 600, as loading libraries and listing images takes long on slow disks.",
        metavar="SECONDS", at_least=MIN_STALL_TIMEOUT, at_most=MAX_TIMEOUT, resume=FREE, nodes=OWN, compare=HIDDEN,
        row=UNMARKED,
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name, declared in run_options().items():
            declared.check(getattr(self, name))
        check_combinations(self)

    @property
    def kind(self) -> RunKind:
        """The kind of run that was asked for; nothing else reads the options that decide it."""
        return kind_of(self.throughput_only, self.eval_only)

    @property
    def is_series(self) -> bool:
        """Whether several runs were asked for."""
        return self.repeats > 1 or self.device_counts is not None

    def master_address(self) -> tuple[str, int]:
        """Host and port of --master. Raises UsageError for anything else."""
        return parse_master(self.master or "")

    def parsed_device_counts(self) -> tuple[int, ...]:
        """The numbers of devices in --device-counts, in increasing order. Raises UsageError for anything else."""
        return parse_device_counts(self.device_counts or "")


def run_options() -> Mapping[str, Option]:
    """The options of a run, by name and in the order they are declared."""
    return options_of(RunConfig)


def parse_config(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values of RunConfig's fields from a TOML table or a record; see `parse_values`. Raises UsageError."""
    return parse_values(RunConfig, values, where)
