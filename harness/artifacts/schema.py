"""Every column of every table, declared once; writer, reader, report and docs/tables.md are made from this."""

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
            " compute_no_sync (the same without exchange of gradients)",
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
        Column("loss", float, "", GLOBAL, "mean over the step's images"),
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
        Column("energy_joules", float, "J", DEVICE, "used since the driver was loaded", 3),
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
        Column("train_loss", float, "", GLOBAL, "mean over the epoch's images"),
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
        Column("epoch", int, "", RUN, "of that rank's images, from 1; empty if it was found before the first step"),
    ),
)

SUMMARY = Table(
    "summary",
    "one finished run",
    (
        Column("run", str, "", RUN, "name of the run's files"),
        Column("series", str, "", RUN, "of --repeats or --device-counts; empty for a run of its own"),
        Column("model", str, "", RUN, "size of PP-LCNet"),
        Column("dataset", str, "", RUN, "name of the data set"),
        Column("crop_size", int, "pixels", RUN, "side of the square crop"),
        Column("device", str, "", RUN, "cpu or gpu"),
        Column("device_name", str, "", RUN, "product name of the (first) device"),
        Column("devices", int, "devices", RUN, "ranks, one on each device"),
        Column("batch_size", int, "images", DEVICE, "per batch"),
        Column("amp", str, "", RUN, "mixed precision and its level, or off"),
        Column("fps", float, "images/s", GLOBAL, "images / window_seconds"),
        Column("fps_low", float, "images/s", GLOBAL, "lower end of its 95 % interval; empty below 10 steps"),
        Column("fps_high", float, "images/s", GLOBAL, "upper end"),
        Column("fps_per_device", float, "images/s", DEVICE, "fps / devices"),
        Column(
            "steady",
            bool,
            "",
            RUN,
            "1: a steady state was found; 0: none; empty: too few steps to tell, or too much noise",
        ),
        Column("window_end", str, "", RUN, "what ended the window: target_ci, max_seconds or epochs"),
        Column("interference", str, "", RUN, "what disturbed 5 % of the window or more, joined by |, or none"),
        Column(
            "bottleneck",
            str,
            "",
            RUN,
            "the stage whose removal brings most: pipeline, compute, communication, or shared where two bring alike;"
            " empty for a run of epochs",
        ),
        Column(
            "data_gain",
            float,
            "x",
            GLOBAL,
            "times as fast if data cost no time, at most: compute_fps / fps; empty for a run of epochs",
            4,
        ),
        Column("data_gain_low", float, "x", GLOBAL, "lower end of its 95 % interval; empty below 10 steps", 4),
        Column("data_gain_high", float, "x", GLOBAL, "upper end", 4),
        Column(
            "training_gain",
            float,
            "x",
            GLOBAL,
            "times as fast if training cost no time, at most: pipeline_fps / fps; empty for a run of epochs",
            4,
        ),
        Column("training_gain_low", float, "x", GLOBAL, "lower end of its 95 % interval; empty below 10 steps", 4),
        Column("training_gain_high", float, "x", GLOBAL, "upper end", 4),
        Column(
            "communication_gain",
            float,
            "x",
            GLOBAL,
            "times as fast if exchanging gradients cost no time, at most; empty with one rank and for a run of epochs",
            4,
        ),
        Column("communication_gain_low", float, "x", GLOBAL, "lower end of its 95 % interval; empty below 10 steps", 4),
        Column("communication_gain_high", float, "x", GLOBAL, "upper end", 4),
        Column("pipeline_fps", float, "images/s", GLOBAL, "of pipeline-only; empty for a run of epochs"),
        Column("compute_fps", float, "images/s", GLOBAL, "of compute-only, likewise"),
        Column("accelerator_util", float, "fraction", GLOBAL, "MLPerf Storage's: fps / compute_fps", 4),
        Column(
            "exposed_communication_share",
            float,
            "fraction",
            GLOBAL,
            "of compute-only's time, what exchanging gradients adds; empty with one rank",
            4,
        ),
        Column("images", int, "images", GLOBAL, "in the window: training's measured steps"),
        Column("window_seconds", float, "s", GLOBAL, "sum of the window's step_seconds", 9),
        Column("window_steps", int, "steps", GLOBAL, "in the window"),
        Column("warmup_steps", int, "steps", GLOBAL, "training steps before the window, or while phases change"),
        Column("step_seconds_p50", float, "s", GLOBAL, "median of the window's steps", 6),
        Column("step_seconds_p95", float, "s", GLOBAL, "95th percentile; empty below 20 steps", 6),
        Column("step_seconds_p99", float, "s", GLOBAL, "99th percentile; empty below 100 steps", 6),
        Column("outlier_steps", int, "steps", GLOBAL, "of the window: far longer than its median step"),
        Column("overflow_steps", int, "steps", GLOBAL, "in which a gradient overflowed; empty without loss scaling"),
        Column("interference_steps", int, "steps", GLOBAL, "of the window: disturbed for half of their time or more"),
        Column(
            "data_wait_share",
            float,
            "fraction",
            GLOBAL,
            "of window_seconds: the steps' data_wait_seconds, each of the rank that got its batch last",
            4,
        ),
        Column("top1", float, "fraction", GLOBAL, "after the last epoch; empty with --throughput-only", 4),
        Column("top5", float, "fraction", GLOBAL, "likewise", 4),
        Column("epochs", int, "epochs", RUN, "finished; 0 with --throughput-only"),
        Column("bad_images", int, "images", GLOBAL, "that couldn't be used and were left out"),
        Column("gpu_util_percent", float, "%", GLOBAL, "mean of the window's steps, weighted by their seconds", 1),
        Column("cpu_util_percent", float, "%", HOST, "likewise", 1),
        Column(
            "model_flops_util",
            float,
            "fraction",
            DEVICE,
            "of the device's published peak in the run's precision (FP32 without --amp): 6 x multiply-accumulates of an"
            " image x fps_per_device; empty where the peak isn't known",
            4,
        ),
        Column("images_per_joule", float, "images/J", GLOBAL, "of the GPUs' own energy counters", 4),
    ),
)


SCALING = Table(
    "scaling",
    "one number of devices",
    (
        Column("devices", int, "devices", RUN, "ranks, one on each device"),
        Column("run", str, "", RUN, "name of the run's files"),
        Column("fps", float, "images/s", GLOBAL, "end to end"),
        Column("fps_low", float, "images/s", GLOBAL, "lower end of its 95 % interval"),
        Column("fps_high", float, "images/s", GLOBAL, "upper end"),
        Column(
            "efficiency", float, "fraction", GLOBAL, "fps per device over that of the smallest number of devices", 4
        ),
        Column("superlinear", bool, "", RUN, "1: efficiency above 1.03, which adding devices can't explain; else 0"),
        Column("bottleneck", str, "", RUN, "the run's verdict"),
        Column(
            "exposed_communication_share",
            float,
            "fraction",
            GLOBAL,
            "share of compute-only's time that exchanging gradients adds; empty with one device",
            4,
        ),
        Column("slowest_rank", int, "", GLOBAL, "the rank that was slowest most often; empty with one device"),
        Column(
            "rank_skew_share",
            float,
            "fraction",
            GLOBAL,
            "how much longer it computed than the quickest, over the mean step, without exchange of gradients; steps in"
            " which another rank was slowest count against it",
            4,
        ),
    ),
)


BAD_FILES = Table(
    "bad-files",
    "one thing that is wrong with one image of a list (`run_bench.py verify`)",
    (
        Column("split", str, "", RUN, "train or val"),
        Column("path", str, "", RUN, "below the data set's folder, as the list writes it"),
        Column("label", int, "", RUN, "as in the list"),
        Column(
            "kind",
            str,
            "",
            RUN,
            "empty (0 bytes), missing, unreadable, undecodable, huge (too many pixels) or leak (in val and in train);"
            " as warnings twice (named before) and format (another than the file's name says)",
        ),
        Column("reason", str, "", RUN, "what is wrong, in words"),
    ),
)


def reference_table(device: str, count: int) -> Table:
    """The reference's own header for a device and a number of them; source: DeepSparkHub, PP-LCNet, BI-V100."""
    return Table(
        f"table-{device}x{count}",
        "one finished run",
        (
            Column("Method", str, "", RUN, "PPLCNet_<size>"),
            Column("Crop Size", str, "pixels", RUN, "width x height"),
            Column(f"FPS ({device} x {count})", float, "images/s", GLOBAL, "of all devices together", 1),
            Column("TOP1 Accuracy", float, "fraction", GLOBAL, "after the last epoch; empty if there was none", 4),
        ),
    )
