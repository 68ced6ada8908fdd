"""Where a run departs from the published training, in words: the marks behind the method's name in a table.

An option whose row is MARK is marked when its value is not its default. The options in WORDS need other words, or what
is published of them depends on the size, the data or the batch; their functions return "" for what is published.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from harness.plan.declaration import MARK, Option
from harness.plan.kinds import EPOCHS, EVALUATION, THROUGHPUT, RunKind
from harness.plan.option_groups.training import RANK0, SYNC
from harness.plan.options import RunConfig, run_options
from harness.plan.plan import RunPlan, decided_values
from models.architecture import HEIGHT, NEW
from models.sizes import RECIPE, SIZES
from models.words import count_of
from pipelines.augmentation import Augmentation
from pipelines.settings import DALI_CROPS, OPENCV_LOADER, PADDLECLAS_CROPS, WHOLE_IMAGES

# Options that only a top-1 after training depends on, and those that an evaluation depends on.
OF_EPOCHS = ("epochs", "lr_warmup_epochs")
OF_EVALUATION = ("amp", "amp_level", "amp_depthwise", "tf32", "preprocessing", "loader", "strides")


def recipe_learning_rate(step_images: int) -> float:
    """The published peak learning rate for a number of images per step."""
    return RECIPE.learning_rate_per_image * step_images


def recipe_lr_warmup(epochs: int) -> int:
    """The published epochs of the learning rate's warm-up; PaddleClas shortens that of a run that is shorter."""
    return min(RECIPE.lr_warmup_epochs, epochs)


def marks(config: RunConfig, plan: RunPlan) -> tuple[str, ...]:
    """How a run departs from the published recipe, as far as the reference's header has no column for it."""
    decided = decided_values(config, plan)
    asked = (option for option in run_options().values() if option.row == MARK and APPLIES[plan.kind](option.name))
    words = (WORDS[option.name](plan) if option.name in WORDS else _plain(option, decided) for option in asked)
    return tuple(word for word in words if word)


def _plain(option: Option, decided: Mapping[str, Any]) -> str:
    value, name = decided[option.name], option.name.replace("_", " ")
    if value == option.default:
        return ""
    return name if value is True else f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


def _learning_rate(plan: RunPlan) -> str:
    rate = plan.training.learning_rate
    by_rule = math.isclose(rate, recipe_learning_rate(plan.global_batch), rel_tol=1e-6)
    return "" if by_rule else f"learning rate {rate:g}"


def _lr_warmup(plan: RunPlan) -> str:
    epochs = plan.training.lr_warmup_epochs
    if epochs == recipe_lr_warmup(plan.training.epochs):
        return ""
    return f"{count_of(epochs, 'epoch')} of learning rate warm-up"


def _weight_decay(plan: RunPlan) -> str:
    decay = plan.training.weight_decay
    return "" if math.isclose(decay, SIZES[plan.model].weight_decay) else f"weight decay {decay:g}"


def _crops(plan: RunPlan) -> str:
    """Every field of the augmentation but the flips, which have their own option."""
    own, published = plan.data.augmentation, Augmentation()
    if plan.pipeline.preprocessing == WHOLE_IMAGES:
        return ""
    changed = {item.name for item in fields(own) if getattr(own, item.name) != getattr(published, item.name)}
    parts = []
    if changed & {"crop_area_min", "crop_area_max"}:
        parts.append(f"{own.crop_area_min:g} to {own.crop_area_max:g} of the area")
    if changed & {"aspect_min", "aspect_max"}:
        parts.append(f"aspect {own.aspect_min:.3g} to {own.aspect_max:.3g}")
    return f"crops of {' and '.join(parts)}" if parts else ""


def _flips(plan: RunPlan) -> str:
    probability = plan.data.augmentation.flip_probability
    if probability == Augmentation().flip_probability:
        return ""
    return f"flip probability {probability:g}"


def _auto_augment(plan: RunPlan) -> str:
    here, published = plan.pipeline.auto_augment, SIZES[plan.model].auto_augment
    return "" if here == published else "AutoAugment" if here else "no AutoAugment"


def _of_training(name: str, words: str) -> Callable[[RunPlan], str]:
    """Words for an option of training whose value is not empty; {} stands for the value."""
    return lambda plan: words.format(value) if (value := getattr(plan.training, name)) else ""


BATCH_NORM = {RANK0: "batch norm of rank 0", SYNC: "synchronised batch norm"}
PREPROCESSING = {PADDLECLAS_CROPS: "", DALI_CROPS: "dali preprocessing", WHOLE_IMAGES: "whole images"}
WORDS: dict[str, Callable[[RunPlan], str]] = {
    "epochs": lambda plan: "" if plan.training.epochs == RECIPE.epochs else count_of(plan.training.epochs, "epoch"),
    "batch_size": lambda plan: (
        "" if plan.global_batch == RECIPE.step_images else f"{count_of(plan.global_batch, 'image')} per step"
    ),
    "accumulation_steps": lambda plan: (
        f"{batches} batches per step" if (batches := plan.training.accumulation_steps) > 1 else ""
    ),
    "profile": lambda plan: (
        "" if plan.operation.profile is None else f"{count_of(plan.operation.profile, 'step')} traced"
    ),
    "learning_rate": _learning_rate,
    "lr_warmup_epochs": _lr_warmup,
    "weight_decay": _weight_decay,
    "pretrained": lambda plan: "pretrained" if plan.training.pretrained is not None else "",
    "pretrained_head": lambda plan: "new head" if plan.training.pretrained_head == NEW else "",
    "bn_stats": lambda plan: BATCH_NORM.get(plan.training.bn_stats, ""),
    "amp": lambda plan: f"AMP {plan.training.precision}" if plan.training.amp != "off" else "",
    "amp_level": lambda _: "",  # part of the mark of --amp
    "amp_depthwise": _of_training("amp_depthwise", "depthwise in 16 bits"),
    "master_grad": _of_training("master_grad", "master gradients"),
    "tf32": _of_training("tf32", "TF32 {}"),
    "classes": lambda plan: "" if plan.data.num_classes == RECIPE.classes else f"{plan.data.num_classes:,} classes",
    "crop_area_min": _crops,
    "flip_probability": _flips,
    "preprocessing": lambda plan: PREPROCESSING[plan.pipeline.preprocessing],
    "auto_augment": _auto_augment,
    "shuffle_window": lambda plan: (
        f"shuffled in windows of {window:,}" if (window := plan.pipeline.shuffle_window) else ""
    ),
    "strides": lambda plan: "height alone halved" if plan.training.strides == HEIGHT else "",
    "loader": lambda plan: "OpenCV loader" if plan.pipeline.loader == OPENCV_LOADER else "",
}
# Whether a kind of run depends on an option, by the option's name.
APPLIES: dict[RunKind, Callable[[str], bool]] = {
    EPOCHS: lambda _: True,
    THROUGHPUT: lambda name: name not in OF_EPOCHS,
    EVALUATION: lambda name: name in OF_EVALUATION,
}
