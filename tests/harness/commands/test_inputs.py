"""What a run will use, inspected before it starts: the machine's variables, and weights that fit or don't."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console as RichConsole

from harness.commands.inputs import Inputs, find_inputs, inspect_inputs
from harness.machine.device import Devices
from harness.plan.kinds import THROUGHPUT
from harness.plan.options import RunConfig
from harness.report.console import Console
from models.architecture import KEEP, NEW, parameter_shapes
from models.errors import WeightsError
from models.sizes import SIZES
from models.weights import encode_weights
from pipelines.dataset import open_dataset
from tests.support.data_sets import write_colours, write_noise
from tests.support.plans import a_plan


def test_the_record_has_the_variables_that_the_ranks_start_with(tmp_path: Path) -> None:
    """Case E10: not those of the shell."""
    config = RunConfig(data="digits", device="cpu", gpus=1, throughput_only=True, compute_threads=3)
    environment = {"OMP_NUM_THREADS": "64", "FLAGS_use_mkldnn": "1", "FLAGS_selected_gpus": "0"}
    found = inspect_inputs(find_inputs(config, Console(), environment), tmp_path, environment)
    assert found.environment["thread_environment"] == {
        "FLAGS_use_mkldnn": "1",
        "KMP_BLOCKTIME": "1",
        "OMP_NUM_THREADS": "3",
    }


@pytest.mark.parametrize(
    ("device", "given", "recorded"),
    [
        ("gpu", {"NCCL_ALGO": "Ring"},
         {"FLAGS_cudnn_exhaustive_search": "True", "FLAGS_cudnn_batchnorm_spatial_persistent": "True",
          "NVIDIA_TF32_OVERRIDE": "0", "NCCL_ALGO": "Ring"}),
        ("gpu", {"FLAGS_cudnn_exhaustive_search": "False", "NVIDIA_TF32_OVERRIDE": "1", "NCCL_SOCKET_IFNAME": "eth0"},
         {"FLAGS_cudnn_exhaustive_search": "False", "FLAGS_cudnn_batchnorm_spatial_persistent": "True",
          "NVIDIA_TF32_OVERRIDE": "0"}),
        ("iluvatar_gpu", {"OMP_NUM_THREADS": "64", "TOKEN": "secret"},
         {"FLAGS_use_stride_kernel": "0", "FLAGS_call_stack_level": "2", "NVIDIA_TF32_OVERRIDE": "0"}),
    ],
)  # fmt: skip
def test_flags_that_are_set_for_ranks_on_accelerators_are_recorded(
    tmp_path: Path, device: str, given: dict[str, str], recorded: dict[str, str]
) -> None:
    """Case E10."""
    data = open_dataset(write_colours(tmp_path / "colours"), None)
    plan = a_plan(device=device, kind=THROUGHPUT, compute_threads=5, tf32="off")
    found = inspect_inputs(Inputs(Devices(device, 1, device), data, plan), tmp_path, given)
    assert found.environment["thread_environment"] == {"OMP_NUM_THREADS": "5", **recorded}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 4 classes."""
    return write_noise(tmp_path_factory.mktemp("data"), 8, 4)


def weights(folder: Path, classes: int, prefix: str = "") -> str:
    path = folder / "some.safetensors"
    shapes = parameter_shapes(SIZES["x0_25"].scale, classes)
    path.write_bytes(encode_weights(path, {prefix + name: np.ones(one, "float32") for name, one in shapes.items()}, {}))
    return str(path)


def found(config: RunConfig) -> tuple[str | None, tuple[str, ...]]:
    """What happens to the last layer, and the plan's notes."""
    inputs = find_inputs(config, Console(RichConsole(file=io.StringIO())), {})
    head = None if inputs.pretrained is None else inputs.pretrained.head
    assert inputs.plan.training.pretrained_head == head
    return head, inputs.plan.notes


def on(data: Path, pretrained: str, **others: object) -> RunConfig:
    asked = RunConfig(
        data=str(data), device="cpu", gpus=1, model="x0_25", image_size=32, batch_size=4, epochs=2,
        pretrained=pretrained,
    )  # fmt: skip
    return replace(asked, **others)  # type: ignore[arg-type]


@pytest.mark.parametrize("prefix", ["", "Student."])
@pytest.mark.parametrize("classes", [1000, 3])
def test_weights_of_other_classes_get_a_new_last_layer(data: Path, tmp_path: Path, classes: int, prefix: str) -> None:
    """Case C1: with a note that says what is lost and how to keep it; the note's cure is followed."""
    config = on(data, weights(tmp_path, classes, prefix))
    head, notes = found(config)
    assert head == NEW
    named = f"the weights in some.safetensors are those whose names begin with '{prefix}'"
    assert [note for note in notes if "weights" in note] == ([named] if prefix else [])
    (note,) = (note for note in notes if "last layer" in note)
    assert note == (
        f"the last layer of some.safetensors starts anew: its {classes:,} outputs are replaced by 4 new ones; to keep"
        f" them, train on lists whose labels count those {classes:,} classes, with --classes {classes}"
    )
    lists = tmp_path / "lists"
    lists.mkdir()
    for split in ("train", "val"):
        (lists / split).symlink_to(data / split)
        paths = sorted(path.relative_to(data) for path in (data / split).rglob("*.jpg"))
        (lists / f"{split}_list.txt").write_text("".join(f"{path} {classes - 1}\n" for path in paths))
    head, notes = found(replace(config, data=str(lists), classes=classes))
    assert (head, [note for note in notes if "last layer" in note]) == (KEEP, [])
    assert found(replace(config, throughput_only=True))[0] == NEW


def test_weights_of_the_same_classes_are_kept_unless_a_new_layer_is_asked_for(data: Path, tmp_path: Path) -> None:
    """Case C1."""
    config = on(data, weights(tmp_path, 4))
    head, notes = found(config)
    assert (head, [note for note in notes if "last layer" in note]) == (KEEP, [])
    head, notes = found(replace(config, pretrained_head=NEW))
    assert (head, notes[0]) == (
        NEW, "the last layer of some.safetensors starts anew: its 4 outputs are replaced by 4 new ones"
    )  # fmt: skip
    assert found(replace(config, pretrained_head=KEEP))[0] == KEEP


def test_what_must_be_kept_and_does_not_fit_is_refused(data: Path, tmp_path: Path) -> None:
    """Case C1: the option that the cure names trains."""
    config = on(data, weights(tmp_path, 1000), pretrained_head=KEEP)
    with pytest.raises(WeightsError, match="has 1,000 outputs, but this data has 4 classes") as caught:
        found(config)
    assert "--pretrained-head new" in caught.value.cure
    assert found(replace(config, pretrained_head=NEW))[0] == NEW


def test_a_model_that_the_cure_names_fits(data: Path, tmp_path: Path) -> None:
    config = on(data, weights(tmp_path, 4), model="x1_0", eval_only=True)
    with pytest.raises(WeightsError, match="the weights don't fit x1_0") as caught:
        found(config)
    size = caught.value.cure.partition("--model ")[2].removesuffix(".")
    assert found(replace(config, model=size))[0] == KEEP
