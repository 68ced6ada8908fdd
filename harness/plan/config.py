"""Everything a user can set, declared once: command line, TOML file, record and the rules of a run come from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError
from harness.plan.config_checks import check_combinations
from harness.plan.kinds import RunKind, kind_of
from harness.plan.options import (
    AUTO,
    FREE,
    HIDDEN,
    KEPT,
    MAX_INT,
    NOTED,
    OWN,
    Limits,
    Option,
    option,
    options_of,
    parse_values,
)
from models.sizes import SIZES
from pipelines.image_lists import MAX_CLASSES

# Processor clocks tick a hundred times a second, and NVML's samples are no closer.
MIN_TELEMETRY_INTERVAL = 0.1
# Ranks exchange what they have done about once a second.
MIN_STALL_TIMEOUT = 5.0
MAX_TIMEOUT = 7 * 86400.0
MAX_PORT = 65535
# What becomes of an image that can't be used.
SKIP, FAIL = "skip", "fail"
# Whose running statistics of batch norm are evaluated.
AVERAGE, RANK0, SYNC = "average", "rank0", "sync"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What was asked for. None means: decided by the device or the data set, see `harness.plan.plan`.

    The defaults are PaddleClas's published PP-LCNet recipe. The first sentence of an option's help is what --help
    shows; docs/options.md has all of it. Raises UsageError for a value or a combination that makes no sense.
    """

    throughput_only: bool = option(
        False, "what to run", "Measure training throughput and what limits it, then stop. No evaluation, no top-1.",
        resume=FREE, compare=HIDDEN)  # fmt: skip
    model: str = option(
        "x1_0", "what to run", "Size of PP-LCNet: x0_25, x0_35, x0_5, x0_75, x1_0, x1_5, x2_0 or x2_5.",
        choices=tuple(SIZES), metavar="SIZE",
    )  # fmt: skip
    data: str | None = option(
        None, "what to run", "Folder in ImageNet's layout, or a built-in set: photos or digits. Default:"
        " dataset/ILSVRC2012 if it exists, else photos with --throughput-only and digits without.",
        metavar="PATH", resume=FREE, nodes=OWN,
    )  # fmt: skip
    epochs: int = option(360, "what to run", "Passes over the training images.", metavar="N", at_least=1, resume=NOTED)
    batch_size: int | None = option(
        None, "what to run", "Images per device and batch. Default: 512 on GPUs and 16 on CPUs, fewer for a small data"
        " set.", metavar="N", at_least=1, resume=KEPT,
    )  # fmt: skip
    image_size: int = option(224, "what to run", "Side of the square crop, in pixels.", metavar="PIXELS", at_least=1)
    gpus: int | None = option(
        None, "what to run", "Number of devices of each node, with one rank on each. Default: every GPU, or up to 4 CPU"
        " ranks.", metavar="N", at_least=1, resume=NOTED, nodes=OWN, compare=HIDDEN,
    )  # fmt: skip
    device: str = option(
        "auto", "what to run", "What the devices are. auto: GPUs where there are any.",
        choices=("auto", "gpu", "cpu"), resume=FREE, nodes=OWN,
    )  # fmt: skip
    resume: str | None = option(
        None, "what to run", "Resume RUN from its last checkpoint. Options that you don't pass keep their previous"
        " values. Without RUN: resume --run-name if it exists, otherwise the most recent unfinished run.",
        metavar="RUN", bare=AUTO, resume=FREE, nodes=OWN, compare=HIDDEN,
    )  # fmt: skip
    run_name: str | None = option(
        None, "what to run", "Name of the run's files. Default: time, model and devices, such as"
        " 20261124-153012-x1_0-cpu2.", metavar="NAME", resume=FREE, nodes=OWN, compare=HIDDEN,
    )  # fmt: skip
    results: str = option(
        "results", "what to run", "Folder for the tables.", metavar="PATH", resume=FREE, nodes=OWN, compare=HIDDEN
    )
    eval_only: bool = option(
        False,
        "what to run",
        "Report top-1 and top-5 of --pretrained's weights. Nothing is trained.",
        resume=FREE,
        compare=HIDDEN,
    )
    seed: int = option(
        0, "what to run", "Seed of the weights, the order of the images and their augmentation.", metavar="N",
        at_least=0,
    )  # fmt: skip

    warmup: int | None = option(
        None, "measuring", "Training steps before the measured window. Default: found in the step times.",
        metavar="STEPS", at_least=0, resume=FREE, compare=HIDDEN)  # fmt: skip
    target_ci: float = option(
        0.02, "measuring", "Stop a throughput run at this precision. It ends once the half-width of the 95 % confidence"
        " interval is at most this fraction of the throughput (0.02 = +/-2 %).",
        metavar="FRACTION", above=0, resume=FREE,
    )  # fmt: skip
    max_seconds: float = option(
        130.0, "measuring", "Stop a throughput run after this many seconds. They are measured time, of all its phases"
        " together.", metavar="SECONDS", above=0, resume=FREE,
    )  # fmt: skip
    repeats: int = option(
        1, "measuring", "Measure the run this many times, for the spread between runs. Each run has fresh processes.",
        metavar="K", at_least=1, resume=FREE, compare=HIDDEN)  # fmt: skip
    device_counts: str | None = option(
        None, "measuring", "Measure each of these numbers of devices, such as 1,2,4. Default: --gpus alone.",
        metavar="N,N,...", resume=FREE, compare=HIDDEN)  # fmt: skip
    telemetry_interval: float = option(
        0.5, "measuring", "Seconds between two readings of devices and host. At least 0.1.", metavar="SECONDS",
        at_least=MIN_TELEMETRY_INTERVAL, resume=FREE, nodes=OWN,
    )  # fmt: skip

    learning_rate: float | None = option(
        None, "training", "Peak learning rate. Default: 0.1 per 256 images of the global batch.", metavar="RATE",
        above=0,
    )  # fmt: skip
    lr_warmup_epochs: int | None = option(
        None, "training", "Epochs over which the learning rate rises from 0. Default: 5, or all of a shorter run.",
        metavar="N", at_least=0, resume=KEPT,
    )  # fmt: skip
    momentum: float = option(0.9, "training", "Momentum of SGD.", metavar="M", at_least=0, below=1)
    weight_decay: float | None = option(
        None, "training", "L2 coefficient. Default: the published one of the size (3e-5, and 4e-5 from x1_5).",
        metavar="W", at_least=0,
    )  # fmt: skip
    label_smoothing: float = option(
        0.1, "training", "Share of the target that is spread over all classes.", metavar="SHARE", at_least=0, at_most=1
    )
    accumulation_steps: int = option(
        1, "training", "Batches of each device whose gradients add up to one step.", metavar="N", at_least=1
    )
    auto_batch: bool = option(
        False, "training", "Halve a batch that does not fit into a device's memory, until it fits.", resume=FREE,
        compare=HIDDEN,
    )  # fmt: skip
    pretrained: str | None = option(
        None, "training", "Weights to begin with. PaddleClas's .pdparams, or .safetensors.", metavar="FILE"
    )
    bn_stats: str = option(
        AVERAGE, "training", "Batch-norm statistics that are evaluated. They are the average of all ranks', rank 0's,"
        " or those of synchronised batch norm, which is then used in training, too (GPUs only).",
        choices=(AVERAGE, RANK0, SYNC),
    )  # fmt: skip
    amp: str = option(
        "off", "training", "Mixed precision (GPUs only). off trains in float32.", choices=("off", "bf16", "fp16")
    )
    amp_level: str | None = option(
        None, "training", "Level of mixed precision. O1: the operators on Paddle's list, which lacks depthwise"
        " convolutions; O2: all operators, and all weights but batch norm's. Default: O1.", choices=("O1", "O2"),
    )  # fmt: skip
    layout: str = option(
        "nchw", "training", "Layout of images and activations: channels first or last.", choices=("nchw", "nhwc")
    )
    to_static: bool = option(False, "training", "Train the network as a static graph.")
    compute_threads: int | None = option(
        None, "training", "CPU threads per rank that train. Default: OMP_NUM_THREADS, else the cores over the ranks.",
        metavar="N", at_least=1, resume=NOTED, nodes=OWN,
    )  # fmt: skip

    classes: int | None = option(
        None, "data", "Number of classes. Default: the data set's own, and 1000 for lists.", metavar="N", at_least=1,
        at_most=MAX_CLASSES, resume=FREE, compare=HIDDEN,
    )  # fmt: skip
    crop_area_min: float | None = option(
        None, "data", "Smallest training crop as a share of the image. Default: the data set's.", metavar="SHARE",
        above=0, at_most=1, resume=FREE, compare=HIDDEN,
    )  # fmt: skip
    flip_probability: float | None = option(
        None, "data", "Probability that a training crop is mirrored. Default: the data set's.", metavar="P",
        at_least=0, at_most=1, resume=FREE, compare=HIDDEN,
    )  # fmt: skip
    preprocessing: str = option(
        "paddleclas", "data", "How images are cropped and resized. paddleclas: uniform aspect ratio and plain bilinear"
        " resizing, as published; dali: log-uniform aspect ratio and antialiasing.", choices=("paddleclas", "dali"),
    )  # fmt: skip
    auto_augment: bool | None = option(
        None, "data", "Apply AutoAugment's ImageNet policy to training crops. Default: as published, for x2_5 alone."
    )
    bad_images: str = option(
        SKIP, "data", "What to do with an image that can't be used. skip: leave it out and name it; fail: end the run.",
        choices=(SKIP, FAIL), resume=FREE,
    )  # fmt: skip
    max_bad_images: int = option(
        100, "data", "End the run when more images than this can't be used.", metavar="N", at_least=0, resume=FREE
    )

    decode_threads: int | None = option(
        None, "loading", "DALI threads per rank. Default: the cores over the ranks, at most 8.", metavar="N",
        at_least=1, resume=FREE, nodes=OWN,
    )  # fmt: skip
    prefetch: int = option(
        2, "loading", "Batches that DALI keeps ready per rank.", metavar="N", at_least=1, resume=FREE
    )
    hw_decoder_load: float = option(
        0.65, "loading", "Share of images for the GPU's JPEG engine, where it has one.", metavar="SHARE", at_least=0,
        at_most=1, nodes=OWN,
    )  # fmt: skip
    width_hint: int = option(
        0, "loading", "Width of the widest image, in pixels. A GPU's decoder allocates memory for it at once.",
        metavar="PIXELS", at_least=0, resume=FREE, nodes=OWN,
    )  # fmt: skip
    height_hint: int = option(
        0, "loading", "Height of the highest image, in pixels. See --width-hint.", metavar="PIXELS", at_least=0,
        resume=FREE, nodes=OWN,
    )  # fmt: skip

    nnodes: int = option(
        1, "several nodes", "Machines that train together. Start the same command on each.", metavar="N", at_least=1,
        resume=FREE, compare=HIDDEN)  # fmt: skip
    master: str | None = option(
        None, "several nodes", "Address of node 0 with a free port, such as 10.0.0.1:6170.", metavar="HOST:PORT",
        resume=FREE, nodes=OWN, compare=HIDDEN,
    )  # fmt: skip
    node_rank: int | None = option(
        None, "several nodes", "Number of this node, from 0. Node 0 writes the tables.", metavar="R", at_least=0,
        resume=FREE, nodes=OWN, compare=HIDDEN,
    )  # fmt: skip
    rendezvous_timeout: float = option(
        300.0, "several nodes", "Abort the run if not all nodes are there after this many seconds.", metavar="SECONDS",
        above=0, at_most=MAX_TIMEOUT, resume=FREE, nodes=OWN, compare=HIDDEN,
    )  # fmt: skip

    checkpoint_minutes: float = option(
        15.0, "long runs", "Minutes between two checkpoints. There is one after every epoch besides.",
        metavar="MINUTES", above=0, resume=FREE, nodes=OWN,
    )  # fmt: skip
    stall_timeout: float = option(
        600.0, "long runs", "Abort the run if any rank makes no progress for this many seconds. At least 5.",
        metavar="SECONDS", at_least=MIN_STALL_TIMEOUT, at_most=MAX_TIMEOUT, resume=FREE, nodes=OWN, compare=HIDDEN,
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name, declared in run_options().items():
            declared.check(getattr(self, name))
        check_combinations(self)

    @property
    def kind(self) -> RunKind:
        """What kind of run was asked for; the only reader of the options that decide it."""
        return kind_of(self.throughput_only, self.eval_only)

    @property
    def is_series(self) -> bool:
        """Whether several runs were asked for."""
        return self.repeats > 1 or self.device_counts is not None

    def master_address(self) -> tuple[str, int]:
        """Host and port of --master. Raises UsageError."""
        host, _, port = (self.master or "").rpartition(":")
        # Paddle's launcher parts the two at a colon, so that it knows IPv4 only.
        if not host or ":" in host or not (port.isascii() and port.isdigit()) or not 1 <= int(port) <= MAX_PORT:
            raise UsageError(
                f"--master {self.master} is not a HOST:PORT with a port from 1 to {MAX_PORT}",
                "HOST is a name or an IPv4 address of node 0, such as 10.0.0.1:6170.",
            )
        return host, int(port)

    def parsed_device_counts(self) -> tuple[int, ...]:
        """The numbers of devices that --device-counts names, in rising order. Raises UsageError."""
        try:
            counts = tuple(int(part) for part in (self.device_counts or "").split(","))
        except ValueError as error:
            raise UsageError(
                f"--device-counts {self.device_counts!r} is not a list of numbers", "Such as --device-counts 1,2,4."
            ) from error
        if len(counts) < 2 or list(counts) != sorted(set(counts)):
            raise UsageError(
                f"--device-counts {self.device_counts} must name two numbers or more, rising", "Such as 1,2,4."
            )
        for count in counts:
            Limits(at_least=1, at_most=MAX_INT).check("device_counts", count)
        return counts


def run_options() -> Mapping[str, Option]:
    """The options of a run, by name and in the order they are declared."""
    return options_of(RunConfig)


def parse_config(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values of RunConfig's fields from a TOML table or a record; see `parse_values`. Raises UsageError."""
    return parse_values(RunConfig, values, where)
