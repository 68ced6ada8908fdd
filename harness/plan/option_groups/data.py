"""Which images there are, what they are labelled with, and how they are augmented."""

from __future__ import annotations

from dataclasses import dataclass

from harness.plan.declaration import FILE, FREE, HIDDEN, OWN, UNMARKED, option
from harness.plan.left_out import MAX_BAD_IMAGES, MAX_BAD_SHARE
from pipelines.image_lists import MAX_CLASSES
from pipelines.settings import DALI_CROPS, PADDLECLAS_CROPS, WHOLE_IMAGES

# What to do with an image that can't be used.
SKIP, FAIL = "skip", "fail"


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """See `harness.plan.options.RunConfig`."""

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
        PADDLECLAS_CROPS, "data", "How images are cropped and resized. paddleclas: uniform aspect ratio and plain"
        " bilinear resizing, as published; dali: log-uniform aspect ratio and antialiasing; whole: nothing is cropped,"
        " in training and in evaluation, and all of an image is resized as with paddleclas, as in PULC's recipes.",
        choices=(PADDLECLAS_CROPS, DALI_CROPS, WHOLE_IMAGES),
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
