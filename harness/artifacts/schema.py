"""Every column of a run's own tables, declared once; writer, reader, report and docs/tables.md use this."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its unit, whether it speaks of one device or of all ranks together, and what it means.

    kind is int, float, bool (written 0 or 1) or str. An unknown value is an empty cell. digits are a float's decimals.
    """

    name: str
    kind: type
    unit: str
    scope: str
    meaning: str
    digits: int = 6


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV file: its name (after the run's) and what one row is."""

    name: str
    row: str
    columns: tuple[Column, ...]

    @property
    def header(self) -> list[str]:
        """Column names in file order."""
        return [column.name for column in self.columns]


GLOBAL = "global"
DEVICE = "per device"
HOST = "rank 0's host"
LAST_RANK = "rank that got its batch last"
RUN = "run"

# Phases, the values of a step's first column.
TRAIN, EVALUATE, CHECKPOINT = "train", "evaluate", "checkpoint"
PIPELINE, COMPUTE, COMPUTE_NO_SYNC = "pipeline", "compute", "compute_no_sync"
# The same of another loader, which is measured beside the run's.
PIPELINE_BESIDE, TRAIN_BESIDE = "pipeline_beside", "train_beside"

# Kinds of series.
REPEATS, SCALES = "repeats", "scaling"

STEPS = Table(
    "steps",
    "one global step of one phase",
    (
        Column(
            "phase",
            str,
            "",
            RUN,
            "train (end to end), evaluate or checkpoint (the state is saved, without images); with --throughput-only"
            " train, pipeline (batches arrive and nothing trains), compute (training on cached batches) and"
            " compute_no_sync (the same without exchange of gradients); with --loader dali,opencv also train_beside and"
            " pipeline_beside, of the second loader",
        ),
        Column("segment", int, "", RUN, "stretch of one phase without a break, from 1, counted over the whole run"),
        Column("epoch", int, "", RUN, "from 1; empty with --throughput-only"),
        Column("step", int, "", RUN, "from 1, counted over the whole run, per phase; empty for a checkpoint"),
        Column("time_unix_seconds", float, "s", GLOBAL, "end of the step"),
        Column("images", int, "images", GLOBAL, "images of all ranks, without padding"),
        Column(
            "step_seconds",
            float,
            "s",
            GLOBAL,
            "from the end of the step before (or the segment's start) to the end on the slowest rank",
            9,
        ),
        Column("fps", float, "images/s", GLOBAL, "images / step_seconds"),
        Column("data_wait_seconds", float, "s", LAST_RANK, "of step_seconds: waiting for the batch", 9),
        Column(
            "storage_wait_seconds",
            float,
            "s",
            GLOBAL,
            "waiting for storage that couldn't be read, on the rank that waited longest; lies in data_wait_seconds",
        ),
        Column("copy_seconds", float, "s", LAST_RANK, "of step_seconds: waiting for its copy to the device", 9),
        Column("compute_seconds", float, "s", LAST_RANK, "from the batch's arrival to the end on the slowest rank", 9),
        Column("forward_seconds", float, "s", LAST_RANK, "of compute_seconds: forward pass and loss", 9),
        Column("backward_seconds", float, "s", LAST_RANK, "of compute_seconds: backward pass and gradient exchange", 9),
        Column("optimizer_seconds", float, "s", LAST_RANK, "of compute_seconds: the rest, with waits for others", 9),
        Column("recording_seconds", float, "s", LAST_RANK, "of step_seconds: writing tables", 9),
        Column("exchange_seconds", float, "s", LAST_RANK, "of step_seconds: the rest, mainly exchange of records", 9),
        Column("slowest_rank", int, "", GLOBAL, "the rank that computed longest"),
        Column(
            "rank_skew_seconds",
            float,
            "s",
            GLOBAL,
            "how much longer it computed than the quickest; includes waiting for one another to exchange gradients",
            9,
        ),
        Column(
            "loss",
            float,
            "",
            GLOBAL,
            "mean over the step's images; in training at most 64 for each on a CPU (Paddle's)",
        ),
        Column("learning_rate", float, "", GLOBAL, "of the step; empty in evaluation", 9),
        Column("gpu_util_percent", float, "%", GLOBAL, "NVML's utilisation.gpu, mean of the devices", 1),
        Column("gpu_util_min_percent", float, "%", DEVICE, "the least busy device's", 1),
        Column("gpu_util_max_percent", float, "%", DEVICE, "the busiest device's", 1),
        Column("cpu_util_percent", float, "%", HOST, "all cores of the host, all processes", 1),
        Column("jpeg_util_percent", float, "%", GLOBAL, "the JPEG engines', mean of the devices", 1),
        Column("sm_util_percent", float, "%", GLOBAL, "busy SMs (NVML's GPM), mean of the devices", 1),
        Column("foreign_cpu_percent", float, "%", HOST, "all cores of the host, processes outside this run", 1),
        Column(
            "overflow",
            bool,
            "",
            GLOBAL,
            "1: a gradient was beyond float16's range, and no weight changed; empty without loss scaling",
        ),
        Column("transition", bool, "", RUN, "1: one of a segment's first steps, in which the phase before still shows"),
        Column(
            "warmup",
            bool,
            "",
            RUN,
            "1: before the window, after each resumption, or in transition; 0: in the window; empty in a run cut short",
        ),
        Column(
            "interference",
            str,
            "",
            RUN,
            "what disturbed the step, joined by |, or none; empty where unknown, and in a run cut short",
        ),
    ),
)

DEVICES = Table(
    "devices",
    "one telemetry sample of one device",
    (
        Column("time_unix_seconds", float, "s", DEVICE, "when it was taken", 3),
        Column("device", str, "", DEVICE, "gpu0, gpu1, ... by rank on this host; cpu is the host itself"),
        Column("name", str, "", DEVICE, "product name"),
        Column("uuid", str, "", DEVICE, "NVML's; empty for the host"),
        Column("util_percent", float, "%", DEVICE, "NVML's utilisation.gpu; for the host, utilisation of all cores", 1),
        Column("memory_used_bytes", int, "bytes", DEVICE, "in use by all processes"),
        Column("memory_total_bytes", int, "bytes", DEVICE, "installed"),
        Column("power_watts", float, "W", DEVICE, "board power", 1),
        Column("temperature_celsius", float, "°C", DEVICE, "GPU core", 1),
        Column("sm_clock_mhz", float, "MHz", DEVICE, "clock of the SMs", 0),
        Column("memory_clock_mhz", float, "MHz", DEVICE, "clock of the memory", 0),
        Column("throttle_reasons", str, "", DEVICE, "NVML clock event reasons joined by |, or none"),
        Column("jpeg_util_percent", float, "%", DEVICE, "of the JPEG engine, which utilisation.gpu does not see", 1),
        Column("sm_util_percent", float, "%", DEVICE, "busy SMs since the row before (GPM; Hopper and newer)", 1),
        Column("dram_util_percent", float, "%", DEVICE, "memory bandwidth in use since the row before (GPM)", 1),
        Column("energy_joules", float, "J", DEVICE, "since the driver was loaded; alone in a row at a burst's edge", 3),
        Column("processes", int, "processes", DEVICE, "that compute on the device, including this run's"),
        Column(
            "foreign_util_percent",
            float,
            "%",
            HOST,
            "utilisation of all cores by processes outside this run since the row before",
            1,
        ),
        Column("steal_percent", float, "%", HOST, "cores' time that other guests had since the row before", 1),
        Column("swap_bytes", int, "bytes", HOST, "swapped in and out, all processes, since the row before"),
        Column(
            "storage_read_bytes",
            int,
            "bytes",
            HOST,
            "read by this run from storage, not from the page cache, since the row before",
        ),
        Column(
            "quota_throttled_seconds",
            float,
            "s",
            HOST,
            "time for which a CPU quota stopped this run since the row before, added up over cores",
        ),
    ),
)

EPOCHS = Table(
    "epochs",
    "one epoch",
    (
        Column("epoch", int, "", RUN, "from 1; 0 with --eval-only, where all columns of training are empty"),
        Column("images", int, "images", GLOBAL, "on which the epoch trained"),
        Column("seconds", float, "s", GLOBAL, "sum of its training steps on the slowest rank; without evaluation", 6),
        Column("fps", float, "images/s", GLOBAL, "images / seconds"),
        Column("train_loss", float, "", GLOBAL, "mean over the epoch's images, as in the steps"),
        Column("val_loss", float, "", GLOBAL, "mean over the validation images"),
        Column("top1", float, "fraction", GLOBAL, "of all validation images, each counted once", 4),
        Column("top5", float, "fraction", GLOBAL, "the same for five answers, or all below 5 classes", 4),
        Column("learning_rate", float, "", GLOBAL, "of the epoch's last step", 9),
        Column("val_images", int, "images", GLOBAL, "validation images counted; top1 and top5 are shares of them"),
        Column("evaluation_seconds", float, "s", GLOBAL, "sum of the evaluation's steps on the slowest rank", 6),
    ),
)

BAD_IMAGES = Table(
    "bad_images",
    "one image that the run left out",
    (
        Column("split", str, "", RUN, "train or val"),
        Column("path", str, "", RUN, "below the data set's folder"),
        Column("label", int, "", RUN, "its class"),
        Column("reason", str, "", RUN, "why it can't be used"),
        Column("rank", int, "", RUN, "that found it; empty if it was found before the first step"),
        Column("epoch", int, "", RUN, "from 1, a pass with --throughput-only; empty if found before the first step"),
    ),
)
