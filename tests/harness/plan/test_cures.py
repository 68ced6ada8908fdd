"""Cures that name an option, followed: each leads to a plan, or to another refusal that doesn't lead back.

Those about weights are followed in tests/harness/commands/test_inputs.py and test_export.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from harness.cli import parse
from harness.errors import MachineError, UsageError
from harness.machine.device import Devices
from harness.plan.decisions import make_plan
from harness.plan.options import RunConfig
from harness.plan.plan import DataFacts
from models.errors import ActionableError
from pipelines.augmentation import Augmentation

CPUS, GPUS = Devices("cpu", 2, "CPU"), Devices("gpu", 2, "H100")
DATA = DataFacts("data", "small", 40, 10, 5, Augmentation(), False, False)


def refused(line: str, devices: Devices, data: DataFacts = DATA) -> ActionableError | None:
    """What refuses the run with these options; None if it has a plan."""
    try:
        make_plan(RunConfig(**parse(line.split())[0]), devices, data, {})
    except (UsageError, MachineError) as error:
        return error
    return None


@pytest.mark.parametrize(
    ("line", "named", "followed"),
    [
        ("--epochs 6 --lr-warmup-epochs 7", "--epochs", "--epochs 7 --lr-warmup-epochs 7"),
        ("--amp-level O2", "--amp", "--amp-level O2 --amp bf16"),
        ("--amp-level O2", "omit it", ""),
        ("--amp-depthwise", "--amp and --amp-level O1", "--amp-depthwise --amp fp16 --amp-level O1"),
        ("--master-grad", "--amp and --amp-level O2", "--master-grad --amp fp16 --amp-level O2"),
        ("--tf32 on --amp bf16 --amp-level O2", "--amp-level O1", "--tf32 on --amp bf16 --amp-level O1"),
        ("--pretrained-head new", "--pretrained", "--pretrained-head new --pretrained a.pdparams"),
        ("--eval-only", "--pretrained", "--eval-only --pretrained a.pdparams"),
        ("--eval-only --pretrained a --pretrained-head new", "--eval-only", "--pretrained a --pretrained-head new"),
        ("--device-counts 1,2", "--throughput-only", "--device-counts 1,2 --throughput-only"),
        ("--device-counts 2,1 --throughput-only", "--device-counts 1,2,4", "--device-counts 1,2,4 --throughput-only"),
        ("--auto-batch --repeats 2 --throughput-only", "--batch-size", "--batch-size 9 --repeats 2 --throughput-only"),
        ("--node-rank 0", "--nnodes", "--node-rank 0 --nnodes 2 --master 10.0.0.1:6170"),
        ("--master 10.0.0.1:6170", "omit it", ""),
        ("--resume it --throughput-only", "--run-name", "--run-name it2 --throughput-only"),
    ],
)
def test_options_that_a_cure_names_make_a_plan(line: str, named: str, followed: str) -> None:
    first = refused(line, GPUS)
    assert first is not None
    assert named in first.cure
    assert refused(followed, GPUS) is None


@pytest.mark.parametrize(
    "line",
    ["--amp bf16", "--amp fp16 --amp-level O2 --master-grad", "--tf32 off", "--bn-stats sync", "--decoder mixed"],
)
def test_what_a_cpu_lacks_can_be_omitted(line: str) -> None:
    """Every cure says to omit something; whoever does so, one option after another, gets a plan."""
    words = line.split()
    for _ in range(4):
        error = refused(" ".join(words), CPUS)
        if error is None:
            return
        assert re.search(r"\b[Oo]mit it\b", error.cure), error.cure
        name = re.match(r"--[a-z-0-9]+", error.message)
        assert name is not None
        at = words.index(name[0])
        following = at + 1 < len(words) and not words[at + 1].startswith("--")
        del words[at : at + 1 + following]
    raise AssertionError(words)


@pytest.mark.parametrize(
    ("given", "facts"),
    [
        ({"batch-size": 30}, {}),
        ({"batch-size": 21, "accumulation-steps": 1}, {}),
        ({"batch-size": 7, "accumulation-steps": 3}, {}),
        ({"accumulation-steps": 21}, {}),
        ({"accumulation-steps": 21, "batch-size": 8}, {}),
        ({"batch-size": 20, "epochs": 2, "warmup": 2}, {}),
        ({"batch-size": 20, "epochs": 1, "warmup": 1}, {}),
        ({"batch-size": 2}, {"train_images": 2}),
    ],
)
def test_a_number_that_a_cure_names_is_taken(given: Mapping[str, int], facts: Mapping[str, Any]) -> None:
    """ "Use --batch-size 20 or less": with 20 there is a plan, at most one refusal of another option later."""
    data, options = DataFacts(**{**{name: getattr(DATA, name) for name in DATA.__slots__}, **facts}), dict(given)
    for _ in range(3):
        error = refused(" ".join(f"--{name} {value}" for name, value in options.items()), CPUS, data)
        if error is None:
            return
        use = re.search(r"Use --([a-z-]+) (\d+) or less", error.cure)
        assert use is not None, error.cure
        options[use[1]] = int(use[2])
    raise AssertionError(options)


def test_epochs_that_a_cure_names_make_room_for_a_trace() -> None:
    error = refused("--epochs 1 --batch-size 10 --profile 3", CPUS)
    assert error is not None
    assert "--epochs" in error.cure
    assert refused("--epochs 3 --batch-size 10 --profile 3", CPUS) is None


def test_fewer_devices_than_images_make_a_plan() -> None:
    one = DataFacts(**{**{name: getattr(DATA, name) for name in DATA.__slots__}, "train_images": 1})
    error = refused("", CPUS, one)
    assert error is not None
    assert error.cure == "Use fewer --gpus."
    assert refused("", Devices("cpu", 1, "CPU"), one) is None
