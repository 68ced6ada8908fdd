"""How weights are updated."""

from __future__ import annotations

from dataclasses import dataclass

from harness.machine.device_kinds import OFF, ON
from harness.plan.declaration import FREE, HIDDEN, KEPT, NOTED, OWN, UNMARKED, option
from models.architecture import KEEP, NEW
from models.sizes import RECIPE

# Which running statistics of batch norm are used for evaluation.
AVERAGE, RANK0, SYNC = "average", "rank0", "sync"


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """See `harness.plan.options.RunConfig`."""

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
        " refuse a file with another number of outputs than the run has classes; new: initialise the layer as without"
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
