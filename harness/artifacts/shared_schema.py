"""Every column of the tables that several runs share, and of those that are not a run's; see `schema`."""

from __future__ import annotations

from harness.artifacts.schema import DEVICE, GLOBAL, HOST, RUN, Column, Table

SUMMARY = Table(
    "summary",
    "one finished run",
    (
        Column("run", str, "", RUN, "name of the run's files"),
        Column("series", str, "", RUN, "of --repeats or --device-counts; empty for a single run"),
        Column("model", str, "", RUN, "size of PP-LCNet"),
        Column("dataset", str, "", RUN, "name of the data set"),
        Column(
            "crop_size", str, "pixels", RUN, "of the network's images: 224 for a square, else height x width: 80x160"
        ),
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
            "the stage whose removal brings most: pipeline, compute, communication, shared where two bring alike, or"
            " uncertain where verdict_doubts leave no answer; empty for a run of epochs",
        ),
        Column(
            "verdict_doubts",
            str,
            "",
            RUN,
            "why verdict, gains and accelerator_util can't be relied on, joined by |, or none: a phase with _disturbed"
            " (a few steps took much of its time) or _too_slow (slower than a phase that has more to do, which can't be"
            " right), such as compute_disturbed; empty for a run of epochs",
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
        Column("compute_fps", float, "images/s", GLOBAL, "of compute-only; empty for a run of epochs"),
        Column(
            "accelerator_util",
            float,
            "fraction",
            GLOBAL,
            "MLPerf Storage's: fps / compute_fps; above 1 it is noise, or verdict_doubts has compute_too_slow",
            4,
        ),
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
        Column("top5", float, "fraction", GLOBAL, "after the last epoch; empty with --throughput-only", 4),
        Column("val_images", int, "images", GLOBAL, "validation images that top1 and top5 are of; empty without them"),
        Column("epochs", int, "epochs", RUN, "finished; 0 with --throughput-only"),
        Column(
            "left_out_train_images",
            int,
            "images",
            GLOBAL,
            "training images that couldn't be used; empty for an evaluation",
        ),
        Column(
            "left_out_val_images",
            int,
            "images",
            GLOBAL,
            "validation images that couldn't be used; empty with --throughput-only",
        ),
        Column("gpu_util_percent", float, "%", GLOBAL, "mean of the window's steps, weighted by their seconds", 1),
        Column("cpu_util_percent", float, "%", HOST, "mean of the window's steps, weighted by their seconds", 1),
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


LOADERS = Table(
    "loaders",
    "one phase of a run that measured two loaders in turns (`--loader dali,opencv`)",
    (
        Column("phase", str, "", RUN, "end to end or pipeline only"),
        Column("loader", str, "", RUN, "the run's own"),
        Column("fps", float, "images/s", GLOBAL, "with it"),
        Column("fps_low", float, "images/s", GLOBAL, "lower end of its 95 % interval"),
        Column("fps_high", float, "images/s", GLOBAL, "upper end"),
        Column("beside_loader", str, "", RUN, "the other one"),
        Column("beside_fps", float, "images/s", GLOBAL, "with it"),
        Column("beside_fps_low", float, "images/s", GLOBAL, "lower end of its 95 % interval"),
        Column("beside_fps_high", float, "images/s", GLOBAL, "upper end"),
        Column("ratio", float, "", GLOBAL, "fps / beside_fps", 4),
        Column("ratio_low", float, "", GLOBAL, "lower end of its 95 % interval, by the rule of `compare`", 4),
        Column("ratio_high", float, "", GLOBAL, "upper end", 4),
    ),
)


TRIALS = Table(
    "trials",
    "one trial of `run_bench.py tune`",
    (
        Column("trial", int, "", RUN, "its number"),
        Column("purpose", str, "", RUN, "headspace (the first), search, or confirmation (winner against default)"),
        Column("run", str, "", RUN, "name of its run's files in the same folder; empty if it failed"),
        Column("loader", str, "", RUN, "dali or opencv; this and the next ten as the libraries reported them back"),
        Column("decode_threads", int, "threads", DEVICE, "of DALI; without effect with the opencv loader"),
        Column("workers", int, "processes", DEVICE, "of the opencv loader; without effect with DALI"),
        Column("prefetch", int, "batches", DEVICE, "prepared in advance"),
        Column("decoder", str, "", RUN, "cpu or mixed"),
        Column("hw_decoder_load", float, "fraction", DEVICE, "of the images, for the GPU's JPEG engine", 4),
        Column("resize", str, "", RUN, "fused or dali"),
        Column("compute_threads", int, "threads", DEVICE, "of Paddle, on CPUs"),
        Column("layout", str, "", RUN, "nchw or nhwc"),
        Column("amp", str, "", RUN, "off, bf16 or fp16"),
        Column("batch_size", int, "images", DEVICE, "per batch"),
        Column("fps", float, "images/s", GLOBAL, "end to end; empty if the trial failed"),
        Column("fps_low", float, "images/s", GLOBAL, "lower end of its 95 % interval; empty below 10 steps"),
        Column("fps_high", float, "images/s", GLOBAL, "upper end"),
        Column("relative_standard_error", float, "fraction", GLOBAL, "of fps, within the trial", 6),
        Column("degrees_of_freedom", float, "", GLOBAL, "that belong to it", 2),
        Column("pipeline_fps", float, "images/s", GLOBAL, "pipeline only"),
        Column("compute_fps", float, "images/s", GLOBAL, "compute only: the most that any loader could bring"),
        Column("data_gain", float, "x", GLOBAL, "compute_fps / fps", 4),
        Column("bottleneck", str, "", RUN, "the trial's verdict"),
        Column("step_seconds_p50", float, "s", GLOBAL, "median step, end to end", 6),
        Column("step_seconds_p99", float, "s", GLOBAL, "99th percentile; empty below 100 steps", 6),
        Column("disturbed", str, "", RUN, "what disturbed it, joined by |, or none; it is then repeated"),
        Column("seconds", float, "s", RUN, "that the trial took, start included", 3),
        Column("failure", str, "", RUN, "why it measured nothing; empty if it did"),
    ),
)


# What a campaign's cell has like a run: what its runs have in common, and figures that are the mean of theirs.
CELLS_COMMON = ("model", "dataset", "crop_size", "device", "device_name", "devices", "batch_size", "amp")
CELLS_MEANS = ("fps_per_device", "top1", "top5", "data_gain", "training_gain", "communication_gain", "cpu_util_percent",
               "gpu_util_percent", "model_flops_util", "images_per_joule")  # fmt: skip
_OF_RUN = {column.name: column for column in SUMMARY.columns}

CELLS = Table(
    "cells",
    "one cell of a campaign (`run_bench.py campaign`), with means of its runs; the first is the published row",
    (
        Column("cell", str, "", RUN, "what tells it from the others"),
        Column(
            "state",
            str,
            "",
            RUN,
            "done, failed, skipped (excluded, or not possible on this machine), unfinished, in flight, pending, stale"
            " (its options have changed since it was run) or published",
        ),
        Column("reason", str, "", RUN, "why it isn't done"),
        Column("runs", int, "runs", RUN, "that are done"),
        *(_OF_RUN[name] for name in CELLS_COMMON),
        Column("fps", float, "images/s", GLOBAL, "geometric mean of the runs"),
        Column("fps_low", float, "images/s", GLOBAL, "lower end of the 95 % interval between runs, or within one"),
        Column("fps_high", float, "images/s", GLOBAL, "upper end"),
        *(_OF_RUN[name] for name in CELLS_MEANS),
        Column("bottleneck", str, "", RUN, "the verdicts, joined by | where they differ"),
        Column("interference", str, "", RUN, "what disturbed any of the runs, joined by |, or none"),
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
            "empty (0 bytes), missing, unreadable, undecodable, huge (too many pixels), misread (DALI would read wrong"
            " pixels), checksum (of the first image in a shard that isn't what was packed), leak (in val and in train)"
            " or two_labels (listed with another label before); as"
            " warnings twice (named before), format (another than the file's name says), damaged (a JPEG that decodes"
            " all the same) and no_end_marker (of a JPEG whose pixels are whole)",
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
