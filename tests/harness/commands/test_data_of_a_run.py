"""What a run finds about its data and its classes before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from harness.commands.inputs import Inputs, find_inputs, inspect_inputs
from harness.plan.options import RunConfig
from harness.report.console import Console, plan_facts
from models.architecture import parameter_shapes
from models.errors import ActionableError
from models.sizes import SIZES


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"1")


def weights(folder: Path, outputs: int) -> str:
    shapes = parameter_shapes(SIZES["x0_25"].scale, outputs)
    path = folder / f"{outputs}.safetensors"
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, path)
    return str(path)


def found(data: Path | str, **options: Any) -> Inputs:
    config = RunConfig(data=str(data), device="cpu", gpus=1, model="x0_25", **options)
    return find_inputs(config, Console(), {})


def test_an_evaluation_has_the_weights_classes_and_reads_no_training_images(tmp_path: Path) -> None:
    """Cases A3 and C3: Imagenette's validation images alone, with weights of 1000 outputs."""
    fill(tmp_path, "val/n01440764/1.jpg", "val/n03888257/1.jpg")
    inputs = found(tmp_path, eval_only=True, pretrained=weights(tmp_path, 1000))
    data = inputs.plan.data
    assert inputs.dataset.splits["val"].labels == (0, 701)
    assert (data.train_images, data.val_images, data.num_classes, data.outputs) == (0, 2, 1000, 1000)
    facts = dict(plan_facts(inputs.plan))
    assert facts["data"] == f"{tmp_path.name}: 2 validation images"
    assert facts["classes"] == "1,000, from the weights' outputs; labels from folder names, as ImageNet's classes"
    assert "998 of the model's 1,000 classes have no folder" in " ".join(inputs.notices)
    with pytest.raises(ActionableError, match=r"2 class folders.*100 outputs"):
        found(tmp_path, eval_only=True, pretrained=weights(tmp_path, 100))


def test_a_throughput_run_reads_no_validation_images(tmp_path: Path) -> None:
    """Case C2: a flat val/ without labels beside class folders."""
    fill(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/ILSVRC2012_val_00000001.JPEG")
    inputs = found(tmp_path, throughput_only=True)
    assert dict(plan_facts(inputs.plan))["data"] == f"{tmp_path.name}: 2 training images"
    with pytest.raises(ActionableError, match="no labels"):
        found(tmp_path)


def test_a_run_reports_what_is_odd_about_its_lists(tmp_path: Path) -> None:
    """Cases A1, A5 and A7: as notices, which the record keeps as warnings."""
    (tmp_path / "train_list.txt").write_text("a.jpg 0\nb.jpg 0\nb.jpg 0\n")
    (tmp_path / "val_list.txt").write_text("a.jpg 2\n")
    notices = "\n".join(found(tmp_path).notices)
    for part in ("largest label in the lists is 2", "no image: 1, 2", "also in the training list", "a repetition"):
        assert part in notices
    fill(tmp_path / "f", *(f"{split}/{n}/1.jpg" for split in ("train", "val") for n in range(12)))
    assert found(tmp_path / "f").notices == ()
    (note,) = found(tmp_path / "f", pretrained=weights(tmp_path, 12)).notices
    assert "folder '10' is class 2, here it is 10" in note


@pytest.mark.parametrize("option", ["train_list", "val_list", "image_root"])
def test_lists_elsewhere_need_no_data(option: str, tmp_path: Path) -> None:
    """Case C6: the folder of the images, or of the list, is the data set's."""
    for split in ("train", "val"):
        (tmp_path / f"{split}_list.txt").write_text(f"{split}.jpg 0\n")
    given = tmp_path if option == "image_root" else tmp_path / f"{option}.txt"
    asked: dict[str, Any] = {option: str(given)}
    inputs = find_inputs(RunConfig(device="cpu", gpus=1, **asked), Console(), {})
    assert inputs.plan.data.source == str(tmp_path)
    assert inputs.dataset.train.root == tmp_path


def test_a_run_reports_files_of_several_names(tmp_path: Path) -> None:
    """Attacks 23 and 25: known once the files were inspected."""
    fill(tmp_path / "data", "train/ant/1.jpg", "train/bee/2.jpg")
    (tmp_path / "data" / "val").symlink_to("train")
    said: list[str] = []
    inspect_inputs(found(tmp_path / "data"), tmp_path, {}, said.append)
    (note,) = said
    assert note.startswith("2 validation images are also in the training list")


def test_a_run_leaves_out_what_would_have_wrong_pixels(tmp_path: Path) -> None:
    """Attacks 45 and 46: with the reason."""
    fill(tmp_path / "data", *(f"train/a/{index}.jpg" for index in range(200)))
    (tmp_path / "data/train/a/1.ppm").write_bytes(b"P6 1 1 100\n123")
    inputs = found(tmp_path / "data", throughput_only=True)
    (bad,) = inspect_inputs(inputs, tmp_path, {}).bad_images
    assert (bad["path"], bad["reason"]) == (
        "train/a/1.ppm", "a PNM with a maximum of 100, so that DALI would read wrong pixels",
    )  # fmt: skip
