"""How images become batches on the device."""

from __future__ import annotations

from dataclasses import dataclass

from harness.machine.device_kinds import OFF, ON
from harness.machine.placement.shares import NONE, PIN
from harness.plan.declaration import AUTO, FREE, KEPT, NOTED, OWN, UNMARKED, option
from pipelines.settings import (
    BOTH_LOADERS,
    CPU_DECODER,
    DALI_LOADER,
    DALI_RESIZE,
    FUSED_RESIZE,
    MIXED_DECODER,
    OPENCV_LOADER,
)

# Where the files of images are kept for the time of a run.
RAM = "ram"


@dataclass(frozen=True, kw_only=True)
class LoadingOptions:
    """See `harness.plan.options.RunConfig`."""

    loader: str = option(
        DALI_LOADER, "loading", "What makes batches. dali: a DALI pipeline; opencv: PaddleClas's loader, OpenCV in the"
        " worker processes of paddle.io.DataLoader, as behind the reference row. With --throughput-only, dali,opencv"
        " measures both in turns.", choices=(DALI_LOADER, OPENCV_LOADER, BOTH_LOADERS),
    )  # fmt: skip
    workers: int = option(
        4, "loading", "Worker processes of the opencv loader, per rank.", metavar="N", at_least=1, resume=FREE,
        nodes=OWN, row=UNMARKED,
    )  # fmt: skip
    decode_threads: int | None = option(
        None, "loading", "DALI threads per rank. Default: the cores per rank, at most 8.", metavar="N",
        at_least=1, resume=FREE, nodes=OWN, row=UNMARKED,
    )  # fmt: skip
    affinity: str = option(
        AUTO, "loading", "Which cores a rank and its threads and worker processes run on. pin: its share of the cores"
        " that this process may use: whole physical ones, of one NUMA node where possible, for a GPU of the GPU's node;"
        " none: those that the operating system chooses; auto: as none, as no gain was measured.",
        choices=(AUTO, PIN, NONE), resume=FREE, nodes=OWN, row=UNMARKED,
    )  # fmt: skip
    prefetch: int = option(
        2, "loading", "Batches that the loader prepares in advance, per rank. The opencv loader: per worker process.",
        metavar="N", at_least=1, resume=FREE, row=UNMARKED,
    )  # fmt: skip
    cache: str = option(
        NONE, "loading", "Where the images' files are kept during a run. ram: in memory, once for all ranks of a node;"
        " they are read before the run, so that no step waits for a disk. none: where they are; the operating system"
        " keeps in memory what it has room for.", choices=(NONE, RAM), nodes=OWN, row=UNMARKED,
    )  # fmt: skip
    shuffle_window: int | None = option(
        None, "loading", "Shuffle the shards of the data, and then the images in windows of this number, so that shards"
        " are read almost in sequence. Default: all images are shuffled, as those of a folder.",
        metavar="IMAGES", at_least=2,
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
    resize: str = option(
        AUTO, "loading", "What resizes and normalises decoded images. fused: one operator of our own on CPUs, in"
        " OpenCV's arithmetic; dali: DALI's operators; auto: fused where it can be used.",
        choices=(AUTO, FUSED_RESIZE, DALI_RESIZE), resume=NOTED, row=UNMARKED,
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
