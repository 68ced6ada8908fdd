"""Everything a user can set, declared once: command line, TOML file and record are made from these fields."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, get_args, get_type_hints

from harness.errors import UsageError
from models.sizes import SIZES
from pipelines.image_lists import MAX_CLASSES

# Paddle and DALI seed with 32 bits, and ranks add to it; no other whole number needs more either.
MAX_INT = 2**31 - 1 - 2**16
# Processor clocks tick a hundred times a second, and NVML's samples are no closer.
MIN_INTERVAL = 0.1
# Ranks exchange what they have done about once a second.
MIN_STALL = 5.0
MAX_WAIT = 7 * 86400.0
MAX_PORT = 65535
MAX_SERIES_NAME = 90  # its runs' names are longer
# What becomes of an image that can't be used.
SKIP, FAIL = "skip", "fail"
# Whose running statistics of batch norm are evaluated.
AVERAGE, RANK0, SYNC = "average", "rank0", "sync"
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def option(
    default: Any,
    group: str,
    help: str,  # noqa: A002
    *,
    choices: tuple[str, ...] = (),
    metavar: str = "",
    bare: str | None = None,
) -> Any:
    """A field of RunConfig that is also a command-line option and a TOML key; help states unit, scope and default.

    bare is the value of an option that is given without one.
    """
    metadata = {"group": group, "help": help, "choices": choices, "metavar": metavar, "bare": bare}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What was asked for. None means: decided by the device or the data set, see `harness.plan.plan`.

    The defaults are PaddleClas's published PP-LCNet recipe. Raises UsageError for a value that makes no sense.
    """

    throughput_only: bool = option(False, "run", "measure training throughput and stop: no evaluation, no top-1")
    model: str = option("x1_0", "run", "size of PP-LCNet", choices=tuple(SIZES))
    gpus: int | None = option(
        None, "run", "devices of each node, one rank on each; default: every GPU, or up to 4 CPU ranks", metavar="N"
    )
    device: str = option(
        "auto", "run", "what the devices are; auto: GPUs where there are any", choices=("auto", "gpu", "cpu")
    )
    epochs: int = option(360, "run", "passes over the training images", metavar="N")
    warmup: int | None = option(
        None, "run", "training steps before the measured window; default: found in the step times", metavar="STEPS"
    )
    target_ci: float = option(
        0.02, "run", "of a throughput run: it ends once the throughput's 95 % interval reaches no further to each side,"
        " as a share of it", metavar="SHARE",
    )  # fmt: skip
    max_seconds: float = option(
        130.0, "run", "measured time of a throughput run, all its phases together, after which it ends in any case",
        metavar="SECONDS",
    )  # fmt: skip
    repeats: int = option(1, "run", "runs in turn, each in fresh processes, for the spread between runs", metavar="K")
    device_counts: str | None = option(
        None, "run", "device counts to measure in turn, such as 1,2,4; default: --gpus alone", metavar="N,N,..."
    )
    stall_timeout: float = option(
        600.0, "run", "without progress after which a rank ends, and with it the run, at least 5", metavar="SECONDS"
    )
    resume: str | None = option(
        None, "run", "go on with this run from its last checkpoint, the options not given as they were; without a name:"
        " with --run-name if it has begun, else the latest unfinished one", metavar="RUN", bare="auto",
    )  # fmt: skip
    eval_only: bool = option(
        False, "run", "top-1 and top-5 of --pretrained's weights on the validation images, and no training"
    )
    seed: int = option(0, "run", "of the weights, the order of the images and their augmentation", metavar="N")

    data: str | None = option(
        None,
        "data",
        "ImageNet-layout folder, or a built-in set (photos, digits); default: dataset/ILSVRC2012 if it exists,"
        " else photos with --throughput-only and digits without",
        metavar="PATH",
    )
    classes: int | None = option(
        None, "data", "number of classes; default: the data set's own, 1000 for lists", metavar="N"
    )
    image_size: int = option(224, "data", "side of the square crop, in pixels", metavar="PIXELS")
    crop_area_min: float | None = option(
        None, "data", "smallest training crop as a share of the image; default: the data set's", metavar="SHARE"
    )
    preprocessing: str = option(
        "paddleclas", "data", "how images are cropped and resized: PaddleClas's uniform aspect ratio and plain bilinear"
        " resizing, or DALI's log-uniform aspect ratio and antialiasing", choices=("paddleclas", "dali"),
    )  # fmt: skip
    auto_augment: bool | None = option(
        None, "data", "AutoAugment's ImageNet policy on training crops; default: as published, on x2_5 alone"
    )
    bad_images: str = option(
        "skip", "data", "what becomes of an image that can't be used: left out and named, or the end of the run",
        choices=("skip", "fail"),
    )  # fmt: skip
    max_bad_images: int = option(100, "data", "to leave out; more end the run", metavar="N")
    flip_probability: float | None = option(
        None, "data", "of a mirrored training crop; default: the data set's", metavar="P"
    )

    batch_size: int | None = option(
        None, "training", "images per device and batch; default: 512 on GPUs, 16 on CPUs", metavar="N"
    )
    accumulation_steps: int = option(
        1, "training", "batches of each device whose gradients are added up to one step", metavar="N"
    )
    auto_batch: bool = option(
        False, "training", "halve a batch that does not fit into a device's memory, until it fits"
    )
    learning_rate: float | None = option(
        None, "training", "peak learning rate; default: 0.1 per 256 images of the global batch", metavar="RATE"
    )
    lr_warmup_epochs: int | None = option(
        None, "training", "epochs over which the learning rate rises from 0; default: 5, or all of a shorter run",
        metavar="N",
    )  # fmt: skip
    momentum: float = option(0.9, "training", "of SGD", metavar="M")
    weight_decay: float | None = option(
        None, "training", "L2 coefficient; default: the size's published one (3e-5, 4e-5 from x1_5)", metavar="W"
    )
    pretrained: str | None = option(
        None, "training", "weights to begin with: PaddleClas's .pdparams, or .safetensors", metavar="FILE"
    )
    bn_stats: str = option(
        AVERAGE, "training", "whose running statistics are evaluated: the mean of all ranks', rank 0's, or those of"
        " all ranks' images together, which they then train with, too (GPUs only)",
        choices=(AVERAGE, RANK0, SYNC),
    )  # fmt: skip
    amp: str = option(
        "off", "training", "mixed precision (GPUs only): off trains in float32", choices=("off", "bf16", "fp16")
    )
    amp_level: str | None = option(
        None, "training", "O1: the operators on Paddle's list, which lacks depthwise convolutions; O2: all, and the"
        " weights but batch norm's; default: O1",
        choices=("O1", "O2"),
    )  # fmt: skip
    layout: str = option(
        "nchw", "training", "of images and activations: channels first or last", choices=("nchw", "nhwc")
    )
    to_static: bool = option(False, "training", "train the network as a static graph")
    label_smoothing: float = option(0.1, "training", "share of the target spread over all classes", metavar="SHARE")
    compute_threads: int | None = option(
        None, "training", "CPU threads per rank that train; default: OMP_NUM_THREADS, else the cores over the ranks",
        metavar="N",
    )  # fmt: skip

    decode_threads: int | None = option(
        None, "loading", "DALI threads per rank; default: the cores over the ranks, at most 8", metavar="N"
    )
    prefetch: int = option(2, "loading", "batches DALI keeps ready per rank", metavar="N")
    hw_decoder_load: float = option(
        0.65, "loading", "share of images for the GPU's JPEG engine, where it has one", metavar="SHARE"
    )

    width_hint: int = option(
        0,
        "loading",
        "width of the widest image, in pixels, for which a GPU's decoder allocates at once",
        metavar="PIXELS",
    )
    height_hint: int = option(0, "loading", "height of the highest image, likewise", metavar="PIXELS")

    nnodes: int = option(1, "nodes", "machines that train together, each with the same command line", metavar="N")
    master: str | None = option(
        None, "nodes", "where node 0 can be reached, with a free port, such as 10.0.0.1:6170", metavar="HOST:PORT"
    )
    node_rank: int | None = option(None, "nodes", "this node's number, from 0; node 0 writes the tables", metavar="R")
    rendezvous_timeout: float = option(300.0, "nodes", "in which all nodes have to be there", metavar="SECONDS")

    checkpoint_minutes: float = option(
        15.0, "recording", "between two checkpoints, besides those at every epoch's end", metavar="MINUTES"
    )
    results: str = option("results", "recording", "folder for the tables", metavar="PATH")
    run_name: str | None = option(
        None, "recording", "of the files; default: time, model and devices, e.g. 20261124-153012-x1_0-cpu2",
        metavar="NAME",
    )  # fmt: skip
    telemetry_interval: float = option(
        0.5, "recording", "seconds between two readings of devices and host, at least 0.1", metavar="SECONDS"
    )

    def __post_init__(self) -> None:
        for item in option_fields():
            choices = item.metadata["choices"]
            value = getattr(self, item.name)
            if choices and value is not None and value not in choices:
                raise UsageError(f"unknown {item.name} {value!r}", f"Known: {', '.join(choices)}.")
        for item in option_fields():
            if option_type(item.name) is int:
                self._check(item.name, at_most=MAX_INT)
        for name in ("gpus", "epochs", "image_size", "classes", "batch_size", "compute_threads", "decode_threads"):
            self._check(name, at_least=1)
        for name in ("prefetch", "repeats", "nnodes", "accumulation_steps"):
            self._check(name, at_least=1)
        self._check("classes", at_most=MAX_CLASSES)
        for name in ("seed", "warmup", "lr_warmup_epochs", "weight_decay", "width_hint", "height_hint"):
            self._check(name, at_least=0)
        self._check("node_rank", at_least=0)
        self._check("stall_timeout", at_least=MIN_STALL, at_most=MAX_WAIT)
        self._check("rendezvous_timeout", above=0, at_most=MAX_WAIT)
        self._check("max_bad_images", at_least=0)
        for name in ("max_seconds", "target_ci", "learning_rate", "crop_area_min", "checkpoint_minutes"):
            self._check(name, above=0)
        for name in ("crop_area_min", "flip_probability", "label_smoothing", "hw_decoder_load"):
            self._check(name, at_least=0, at_most=1)
        self._check("momentum", at_least=0, below=1)
        self._check("telemetry_interval", at_least=MIN_INTERVAL)
        if self.lr_warmup_epochs is not None and self.lr_warmup_epochs > self.epochs:
            raise UsageError(
                f"--lr-warmup-epochs {self.lr_warmup_epochs} is longer than the run's {self.epochs} epochs",
                "Give fewer warm-up epochs, or more --epochs.",
            )
        if self.device_counts is not None:
            counts = self.parsed_device_counts()
            if self.gpus is not None or self.repeats > 1 or not self.throughput_only:
                raise UsageError(
                    f"--device-counts {self.device_counts} measures throughput once on each number of devices",
                    "Give it with --throughput-only, and without --gpus and --repeats.",
                )
            for count in counts:
                if not 1 <= count <= MAX_INT:
                    raise UsageError(f"--device-counts names {count} devices; it must be at least 1")
        self._check_nodes()
        if self.amp_level is not None and self.amp == "off":
            raise UsageError(
                f"--amp-level {self.amp_level} is of mixed precision, and --amp is off", "Give --amp, too."
            )
        if self.eval_only:
            self._check_evaluation()
        if self.resume is not None:
            if not RUN_NAME.fullmatch(self.resume):
                raise UsageError(f"--resume {self.resume!r} names no run", "Give the name of its files.")
            if self.throughput_only or self.repeats > 1 or self.device_counts is not None:
                raise UsageError("--resume is for a run of epochs; a throughput run can't be gone on with")
        if self.auto_batch and (self.nnodes > 1 or self.repeats > 1 or self.device_counts is not None):
            several = "--nnodes" if self.nnodes > 1 else "--repeats" if self.repeats > 1 else "--device-counts"
            raise UsageError(
                f"--auto-batch finds the batch of one run on one node; it can't be used with {several}",
                "Find the batch with one run first, then give it as --batch-size.",
            )
        if (
            self.run_name is not None
            and (self.repeats > 1 or self.device_counts)
            and len(self.run_name) > MAX_SERIES_NAME
        ):
            raise UsageError(
                f"--run-name of {len(self.run_name)} characters leaves no room for the names of a series' runs",
                f"Use up to {MAX_SERIES_NAME}.",
            )
        if self.run_name == "auto" or (self.run_name is not None and not RUN_NAME.fullmatch(self.run_name)):
            raise UsageError(
                f"--run-name {self.run_name!r} can't name files",
                "Use up to 100 letters, digits, dots, dashes and underscores, a letter or digit first, and not auto.",
            )

    def _check_evaluation(self) -> None:
        if self.pretrained is None:
            raise UsageError("--eval-only needs weights to evaluate", "Name their file with --pretrained.")
        others = {
            "--throughput-only": self.throughput_only,
            "--repeats": self.repeats > 1,
            "--resume": self.resume is not None,
            "--auto-batch": self.auto_batch,
            "--accumulation-steps": self.accumulation_steps > 1,
        }
        for name, given in others.items():
            if given:
                raise UsageError(f"--eval-only does not train, and {name} is about training", "Give one of the two.")

    @property
    def trains_epochs(self) -> bool:
        """Whether the run is one of epochs, which has checkpoints and can be gone on with."""
        return not (self.throughput_only or self.eval_only)

    @property
    def amp_mode(self) -> str:
        """Mixed precision with its level in one word: off, bf16-O1 and so on."""
        return "off" if self.amp == "off" else f"{self.amp}-{self.amp_level or 'O1'}"

    @property
    def compute_dtype(self) -> str:
        """The number format in which most of the network computes."""
        return {"off": "float32", "bf16": "bfloat16", "fp16": "float16"}[self.amp]

    def _check_nodes(self) -> None:
        if self.nnodes == 1:
            for name in ("master", "node_rank"):
                if getattr(self, name) is not None:
                    raise UsageError(
                        f"{flag(name)} {getattr(self, name)} is for a run on several nodes, and --nnodes is 1",
                        "Give --nnodes, too.",
                    )
            return
        example = f"Such as --nnodes {self.nnodes} --master 10.0.0.1:6170 --node-rank 0, then --node-rank 1."
        missing = [flag(name) for name in ("master", "node_rank") if getattr(self, name) is None]
        if missing:
            raise UsageError(f"--nnodes {self.nnodes} needs {' and '.join(missing)}", example)
        if self.node_rank is not None and self.node_rank >= self.nnodes:
            raise UsageError(
                f"--node-rank is {self.node_rank}; with --nnodes {self.nnodes} it must be at most {self.nnodes - 1}",
                example,
            )
        if self.repeats > 1 or self.device_counts is not None:
            series = "--device-counts" if self.device_counts is not None else f"--repeats {self.repeats}"
            raise UsageError(f"{series} runs on one node, --nnodes is {self.nnodes}", "Start each run by itself.")
        self.master_address()

    def master_address(self) -> tuple[str, int]:
        """Host and port of --master. Raises UsageError."""
        host, _, port = (self.master or "").rpartition(":")
        # Paddle's launcher parts the two at a colon, so that it knows IPv4 only.
        if not host or ":" in host or not (port.isascii() and port.isdigit()) or not 1 <= int(port) <= MAX_PORT:
            raise UsageError(
                f"--master {self.master} is no HOST:PORT with a port from 1 to {MAX_PORT}",
                "HOST is a name or an IPv4 address of node 0, such as 10.0.0.1:6170.",
            )
        return host, int(port)

    def parsed_device_counts(self) -> tuple[int, ...]:
        """The numbers of devices that --device-counts names, in rising order. Raises UsageError."""
        try:
            counts = tuple(int(part) for part in (self.device_counts or "").split(","))
        except ValueError as error:
            raise UsageError(
                f"--device-counts {self.device_counts!r} is no list of numbers", "Such as --device-counts 1,2,4."
            ) from error
        if len(counts) < 2 or list(counts) != sorted(set(counts)):
            raise UsageError(
                f"--device-counts {self.device_counts} must name two numbers or more, rising", "Such as 1,2,4."
            )
        return counts

    def _check(
        self,
        name: str,
        *,
        at_least: float = -math.inf,
        above: float = -math.inf,
        at_most: float = math.inf,
        below: float = math.inf,
    ) -> None:
        value = getattr(self, name)
        if value is None:
            return
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{flag(name)} is {value}; it must be finite")
        if value < at_least or value <= above or value > at_most or value >= below:
            limits = {"at least": at_least, "above": above, "at most": at_most, "below": below}
            said = " and ".join(f"{words} {limit}" for words, limit in limits.items() if math.isfinite(limit))
            raise UsageError(f"{flag(name)} is {value}; it must be {said}")


def flag(name: str) -> str:
    """The command-line spelling of a field: batch_size -> --batch-size."""
    return "--" + name.replace("_", "-")


def option_fields() -> tuple[Field[Any], ...]:
    """RunConfig's fields, in the order they are declared."""
    return fields(RunConfig)


def option_type(name: str) -> type:
    """The type of a field's value, without None."""
    hint = get_type_hints(RunConfig)[name]
    found: type = next(t for t in (get_args(hint) or (hint,)) if t is not type(None))
    return found


def parse_config(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Field values from a TOML table or a record, checked for names and types; where names the file in errors.

    Keys may be spelled with dashes. Raises UsageError for an unknown key or a value of another type.
    """
    known = [item.name for item in option_fields()]
    parsed = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."
            raise UsageError(f"{where}: unknown key {key!r}", hint)
        wanted = option_type(name)
        if wanted is float and type(value) is int and abs(value) <= MAX_INT:
            value = float(value)
        if type(value) is not wanted:
            raise UsageError(
                f"{where}: {key} is {value!r}, of type {type(value).__name__}; it must be of type {wanted.__name__}"
            )
        parsed[name] = value
    return parsed
