"""Checks of several options together; those of a single option are part of its declaration."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.plan.declaration import AUTO, MAX_INT, Limits, flag
from harness.plan.kinds import EPOCHS, EVALUATION, THROUGHPUT
from harness.plan.metric_formats import parse_formats
from harness.plan.option_groups.measuring import ALL_PHASES
from models.architecture import MIN_IMAGE_SIZE, NEW
from models.sizes import SIZES
from models.words import count_of
from pipelines.settings import BOTH_LOADERS, DALI_CROPS, DALI_LOADER, OPENCV_LOADER, WHOLE_IMAGES

if TYPE_CHECKING:
    from harness.plan.options import RunConfig

# Options that one loader alone reads.
OF_DALI = ("decode_threads", "decoder", "decode_region", "resize")
OF_OPENCV = ("workers",)
# The levels of mixed precision.
O1, O2 = "O1", "O2"
MAX_PORT = 65535
MAX_SERIES_NAME = 90  # the names of its runs are longer
# Training the published model takes 0.7 GiB of memory per image at 1024 pixels, and 16 times that here.
MAX_IMAGE_SIZE = 4096
WHY_THIS_SIZE = (
    f"The network halves its input five times: {MIN_IMAGE_SIZE} pixels leave one. An image of {MAX_IMAGE_SIZE} takes"
    " about 10 GiB of memory to train x1_0 on."
)
DEVICE_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def parse_master(text: str, name: str = "--master") -> tuple[str, int]:
    """Host and port of --master, or of a variable of that name. Raises UsageError for anything else."""
    host, _, port = text.rpartition(":")
    # Paddle's launcher splits the two at a colon, so it supports IPv4 only.
    if not host or ":" in host or not (port.isascii() and port.isdigit()) or not 1 <= int(port) <= MAX_PORT:
        raise UsageError(
            f"{name} {text} is not a HOST:PORT with a port from 1 to {MAX_PORT}",
            "HOST is a name or an IPv4 address of node 0, such as 10.0.0.1:6170.",
        )
    return host, int(port)


def parse_device_counts(text: str) -> tuple[int, ...]:
    """The numbers of devices in --device-counts, in increasing order. Raises UsageError for anything else."""
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"--device-counts {text!r} is not a list of numbers", "For example: --device-counts 1,2,4"
        ) from error
    if len(counts) < 2 or list(counts) != sorted(set(counts)):
        raise UsageError(
            f"--device-counts {text} must be two or more numbers in increasing order",
            "For example: --device-counts 1,2,4",
        )
    for count in counts:
        Limits(at_least=1, at_most=MAX_INT).check("device_counts", count)
    return counts


def _check_loader(config: RunConfig) -> None:
    if config.loader == BOTH_LOADERS and not config.kind.compares_loaders:
        raise UsageError(
            f"--loader {config.loader} measures two loaders in turns, and this run {config.kind.does}",
            f"Give it with --throughput-only, or choose one: --loader {DALI_LOADER}.",
        )
    # Of the options of one loader alone, those that a run without it is given.
    unused = {OPENCV_LOADER: OF_DALI, DALI_LOADER: OF_OPENCV}.get(config.loader, ())
    usual = {item.name: item.default for item in fields(config)}
    if given := [flag(name) for name in unused if getattr(config, name) != usual[name]]:
        raise UsageError(f"{given[0]} has no effect with --loader {config.loader}", "Omit one of the two.")
    if config.loader == DALI_LOADER:
        return
    if config.preprocessing == DALI_CROPS:
        raise UsageError(
            f"--preprocessing {config.preprocessing} is DALI's, and --loader {config.loader} has PaddleClas's alone",
            "Give only one of the two.",
        )
    if config.auto_augment or (config.auto_augment is None and SIZES[config.model].auto_augment):
        raise UsageError(
            f"--loader {config.loader} has no AutoAugment"
            + ("" if config.auto_augment else f", which the recipe of {config.model} uses"),
            "Give --no-auto-augment as well, or use --loader dali.",
        )


def _check_crops(config: RunConfig) -> None:
    if config.preprocessing == WHOLE_IMAGES and config.crop_area_min is not None:
        raise UsageError(
            "--crop-area-min has no effect with --preprocessing whole, which crops nothing",
            "Omit one of the two.",
        )


def _check_learning_rate(config: RunConfig) -> None:
    if config.lr_warmup_epochs is not None and config.lr_warmup_epochs > config.epochs:
        raise UsageError(
            f"--lr-warmup-epochs {config.lr_warmup_epochs} is longer than the run's {count_of(config.epochs, 'epoch')}",
            "Give fewer warm-up epochs, or more --epochs.",
        )


def _check_precision(config: RunConfig) -> None:
    if config.amp_level is not None and config.amp == "off":
        raise UsageError(
            f"--amp-level {config.amp_level} is for mixed precision, and --amp is off",
            "Give --amp as well, or omit it.",
        )
    level = None if config.amp == "off" else config.amp_level or O1
    if config.amp_depthwise and level != O1:
        raise UsageError(
            "--amp-depthwise has no effect without --amp, or at --amp-level O2, which computes every convolution in 16"
            " bits",
            "Give --amp and --amp-level O1 as well, or omit it.",
        )
    if config.master_grad and level != O2:
        raise UsageError(
            "--master-grad has no effect without --amp-level O2: gradients of float32 weights are float32",
            "Give --amp and --amp-level O2 as well, or omit it.",
        )
    if config.master_grad and config.accumulation_steps > 1:
        raise UsageError(
            f"--master-grad can't be combined with --accumulation-steps {config.accumulation_steps}: Paddle's ranks"
            " exchange gradients of 16-bit weights in 16 bits",
            "Give only one of the two.",
        )
    if config.tf32 is not None and level == O2:
        raise UsageError(
            f"--tf32 {config.tf32} has no effect at --amp-level O2, which computes every convolution in 16 bits",
            "Omit it, or use --amp-level O1.",
        )


def _check_weights(config: RunConfig) -> None:
    if config.pretrained_head is not None and config.pretrained is None:
        raise UsageError(
            f"--pretrained-head {config.pretrained_head} is about the weights of --pretrained",
            "Give --pretrained as well, or omit it.",
        )


def _check_series(config: RunConfig) -> None:
    if config.device_counts is not None:
        config.parsed_device_counts()
        if config.gpus is not None or config.repeats > 1 or config.kind is not THROUGHPUT:
            raise UsageError(
                f"--device-counts {config.device_counts} measures throughput once on each number of devices",
                "Give it with --throughput-only, and without --gpus and --repeats.",
            )
    if config.is_series and config.run_name is not None and len(config.run_name) > MAX_SERIES_NAME:
        raise UsageError(
            f"--run-name of {len(config.run_name)} characters leaves no room for the names of a series' runs",
            f"Use at most {MAX_SERIES_NAME} characters.",
        )
    if config.auto_batch and (config.nnodes > 1 or config.is_series):
        several = "--nnodes" if config.nnodes > 1 else "--repeats" if config.repeats > 1 else "--device-counts"
        raise UsageError(
            f"--auto-batch finds the batch size of one run on one node; it can't be used with {several}",
            "Find the batch size with one run first, then give it as --batch-size.",
        )


def _check_nodes(config: RunConfig) -> None:
    if config.nnodes == 1:
        for name in ("master", "node_rank"):
            if getattr(config, name) is not None:
                raise UsageError(
                    f"{flag(name)} {getattr(config, name)} is for a run on several nodes, and --nnodes is 1",
                    "Give the number of nodes with --nnodes as well, or omit it.",
                )
        return
    example = f"For example: --nnodes {config.nnodes} --master 10.0.0.1:6170 --node-rank 0, then --node-rank 1."
    missing = [flag(name) for name in ("master", "node_rank") if getattr(config, name) is None]
    if missing:
        raise UsageError(f"--nnodes {config.nnodes} needs {' and '.join(missing)}", example)
    if config.node_rank is not None and config.node_rank >= config.nnodes:
        raise UsageError(
            f"--node-rank is {config.node_rank}; with --nnodes {config.nnodes} it must be at most {config.nnodes - 1}",
            example,
        )
    if config.is_series:
        series = "--device-counts" if config.device_counts is not None else f"--repeats {config.repeats}"
        raise UsageError(
            f"{series} runs on one node only, but --nnodes is {config.nnodes}", "Start each of its runs by itself."
        )
    config.master_address()


def _check_evaluation(config: RunConfig) -> None:
    if config.pretrained is None:
        raise UsageError("--eval-only needs weights to evaluate", "Name their file with --pretrained.")
    if config.pretrained_head == NEW:
        raise UsageError(
            "--eval-only evaluates the last layer of --pretrained, too: one that starts anew knows no class",
            "Omit --pretrained-head, or omit --eval-only to train.",
        )
    others = {
        "--throughput-only": config.throughput_only,
        "--repeats": config.repeats > 1,
        "--resume": config.resume is not None,
        "--auto-batch": config.auto_batch,
        "--accumulation-steps": config.accumulation_steps > 1,
        "--master-grad": config.master_grad,
        "--profile": config.profile is not None,
    }
    for name, given in others.items():
        if given:
            raise UsageError(
                f"--eval-only does not train, but {name} is an option of training", "Give only one of the two."
            )


def _check_resume(config: RunConfig) -> None:
    if config.resume is None:
        return
    if not RUN_NAME.fullmatch(config.resume):
        raise UsageError(f"--resume {config.resume!r} is not the name of a run", "Give the name that its files have.")
    if not config.kind.resumable or config.is_series:
        raise UsageError(
            "--resume is for a run of epochs; throughput runs and series can't be resumed",
            "Start it again without --resume, under another --run-name.",
        )


def _check_names(config: RunConfig) -> None:
    if config.run_name == AUTO or (config.run_name is not None and not RUN_NAME.fullmatch(config.run_name)):
        raise UsageError(
            f"--run-name {config.run_name!r} can't be the name of a run",
            "Use up to 100 letters, digits, dots, dashes and underscores, beginning with a letter or digit; auto is"
            " reserved.",
        )


def _check_device(config: RunConfig) -> None:
    # It becomes a part of file names and of variables' names.
    if not DEVICE_NAME.fullmatch(config.device):
        raise UsageError(
            f"{config.device!r} is not the name of a kind of device",
            "Known: auto, cpu, gpu, and the types of Paddle's plugins, such as iluvatar_gpu.",
        )


def _check_phases(config: RunConfig) -> None:
    if config.phases != ALL_PHASES and config.loader == BOTH_LOADERS:
        raise UsageError(
            f"--loader {config.loader} compares two loaders in all phases; --phases {config.phases} leaves some out",
            "Give only one of the two.",
        )


def _check_no_phases(config: RunConfig) -> None:
    if config.phases != ALL_PHASES:
        raise UsageError(
            f"--phases {config.phases} is for --throughput-only, and this run {config.kind.does}", "Omit --phases."
        )


def _check_metrics(config: RunConfig) -> None:
    if config.metrics is not None:
        parse_formats(config.metrics)


# The checks of every run, and those of one kind of run.
CHECKS = (
    _check_device,
    _check_loader,
    _check_crops,
    _check_learning_rate,
    _check_precision,
    _check_weights,
    _check_series,
    _check_nodes,
    _check_resume,
    _check_names,
    _check_metrics,
)
CHECKS_OF_KIND = {
    EPOCHS: (_check_no_phases,),
    THROUGHPUT: (_check_phases,),
    EVALUATION: (_check_evaluation, _check_no_phases),
}


def check_combinations(config: RunConfig) -> None:
    """Raise UsageError for options that can't be combined."""
    for check in (*CHECKS_OF_KIND.get(config.kind, ()), *CHECKS):
        check(config)
