"""Prints notices, the plan, and the tables that a run ends with on the terminal."""

from __future__ import annotations

import json
import time
from typing import Any

from rich import box
from rich.console import Console as RichConsole
from rich.table import Table as RichTable

from harness.artifacts.bad_image import left_out_of
from harness.artifacts.record import RunFiles, RunRecord
from harness.artifacts.reference_table import method_marks, reference_table_file, refused_top1
from harness.artifacts.schema import BAD_IMAGES, EPOCHS, TRAIN
from harness.artifacts.tables import read_table
from harness.machine.device_kinds import device_kind
from harness.machine.placement.shares import NONE
from harness.plan import kinds
from harness.plan.left_out import LeftOut
from harness.plan.plan import DataFacts, PlacementPlan, RunPlan, settings_of
from harness.report.beside_reference import REFERENCE_DATASET, beside_reference, hardware, standing
from harness.report.findings import (
    WINDOW_ENDS,
    accelerator_text,
    interference_text,
    ledger_text,
    loader_text,
    outliers_text,
    phases_table,
    steady_text,
    step_times_text,
    verdict_facts,
    with_interval,
)
from harness.report.text import EVENTS, QUIET, TEXT, plain_text
from models.architecture import HEIGHT
from models.image_size import ImageSize
from models.notes import Note
from models.sizes import RECIPE, SIZES
from models.words import count_of
from pipelines.layout import VAL_SPLIT
from pipelines.settings import (
    CPU_DECODER,
    DALI_RESIZE,
    FUSED_RESIZE,
    OPENCV_LOADER,
    WHOLE_IMAGES,
    PipelineSettings,
)

SHOWN_DIGITS = 16
# The rows of a plan that don't apply to a kind of run.
LEFT_OUT = {kinds.EVALUATION: ("crops", "learning rate", "weight decay", "warm-up")}


class Console:
    """Prints to standard output. Names are printed as they are, never read as markup.

    output is TEXT; QUIET for notes alone; or EVENTS for a JSON value in each line, and nothing else.
    """

    def __init__(self, rich: RichConsole | None = None, output: str = TEXT) -> None:
        # What isn't a note or an event is discarded where it isn't wanted.
        self.rich = rich or RichConsole(highlight=False, quiet=output != TEXT)
        self.shows_progress, self.as_events = output != QUIET, output == EVENTS
        self.last_notice = ""
        self._plain = self.rich if output == TEXT else RichConsole(highlight=False)
        self._noticed: set[str] = set()

    def emit(self, event: str, **values: Any) -> None:
        """Print an event as one line of JSON; without events nothing."""
        if self.as_events:
            line = json.dumps({"event": event, "unix_seconds": round(time.time(), 3), **values}, default=str)
            print(line, flush=True)

    def notice(self, text: str) -> None:
        """Print something the user should know, such as a decision made for them, once."""
        if text in self._noticed:
            return
        self._noticed.add(text)
        self.last_notice = text
        self.emit("note", text=text, cure=text.cure if isinstance(text, Note) else "")
        if not self.as_events:
            self._plain.print(plain_text(f"note: {text}"))

    def line(self, text: str) -> None:
        """Print a sentence, without breaking it into lines."""
        self.rich.print(plain_text(text), soft_wrap=True)

    def plan(self, plan: RunPlan, remark: str) -> None:
        """Print every figure of a plan."""
        self.emit("plan", plan=remark, settings=settings_of(plan))
        self.rich.print(_facts(f"plan ({remark})", plan_facts(plan)))

    def left_out(self, left_out: LeftOut, files: RunFiles) -> None:
        """Print how many images of each split are left out from the start, if there are any."""
        if left_out.total:
            self.notice(
                Note(
                    f"left out: {', '.join(left_out.parts)}; see {files.table(BAD_IMAGES.name).name}",
                    "Mend or remove the images that the table names; --on-bad-image error would end the run instead.",
                )
            )

    def conclusion(self, record: RunRecord, files: RunFiles) -> None:
        """Print the run's figures, then its row beside the reference's, and whether its top-1 may stand there."""
        self._finished(record, files)
        self.rich.print(_facts(f"run {record.run}", summary_facts(record)))
        if record.verdict is not None:
            self.rich.print(phases_table(record))
            self.rich.print(_facts("verdict", verdict_facts(record)))
        if record.loaders:
            self.rich.print(_facts("loaders", [(row["phase"], loader_text(row)) for row in record.loaders]))
        self.rich.print(beside_reference(record))
        for line in (*standing(record), hardware(record)):
            self.rich.print(plain_text(line))
        written = [f"{record.run}.*", "summary.csv"]
        if not refused_top1(record):
            written.append(reference_table_file(record.plan))
        self.rich.print(plain_text(f"Written to {files.folder}/: {', '.join(written)}"))

    def evaluation(self, record: RunRecord, files: RunFiles) -> None:
        """Print the accuracy of weights from a file, beside the one published for their model size."""
        self._finished(record, files)
        for warning in record.warnings:
            self.notice(warning)
        self.rich.print(_facts(f"evaluation {record.run}", evaluation_facts(record, files)))
        self.rich.print(plain_text(f"Written to {files.folder}/: {record.run}.*, summary.csv"))

    def _finished(self, record: RunRecord, files: RunFiles) -> None:
        verdict = record.verdict or {}
        self.emit(
            "finished",
            run=record.run,
            record=str(files.record),
            summary=record.summary,
            evidence=verdict.get("evidence", ()),
            remedies=verdict.get("remedies", ()),
        )


# What resizes images, in words.
RESIZERS = {FUSED_RESIZE: "the fused operator", DALI_RESIZE: "DALI's operators"}
# The length of a run of each kind, in words.
LENGTHS = {
    kinds.EPOCHS: lambda plan: (
        f"{count_of(plan.training.epochs, 'epoch')}, {count_of(plan.total_steps, 'step')};"
        f" {count_of(plan.training.steps_per_epoch, 'step')} per epoch"
    ),
    kinds.THROUGHPUT: lambda plan: (
        "until --target-ci is reached or --max-seconds have passed; a pass over the images takes"
        f" {plan.data.train_images / plan.global_batch:,.1f} steps"
    ),
    kinds.EVALUATION: lambda plan: f"one evaluation, {plan.pipeline.size.in_full}",
}


def plan_facts(plan: RunPlan) -> list[tuple[str, str]]:
    """Returns a plan as labels and values."""
    data, pipeline, training, window = plan.data, plan.pipeline, plan.training, plan.window
    rows = [
        (
            "model",
            f"PPLCNet_{plan.model}, {count_of(data.num_classes, 'class')}"
            + (", whose stages halve the height alone" if training.strides == HEIGHT else ""),
        ),
        (
            "devices",
            f"{plan.ranks} x {plan.device_name}, one rank per device"
            + (f", {plan.ranks_per_node} on each of {plan.nodes} nodes" if plan.nodes > 1 else ""),
        ),
        ("data", f"{data.name}: {_images(data)}{f' in {data.shards}' if data.shards else ''}"),
        *_shuffle(pipeline),
        ("classes", data.classes or f"{data.num_classes:,}"),
        (
            "crops",
            f"{pipeline.size.in_full}, {_crops(plan)}, flipped with probability {data.augmentation.flip_probability:g}"
            + (", AutoAugment" if pipeline.auto_augment else ""),
        ),
        ("loader", _loader(pipeline) + (f"; in turns with {_loader(plan.beside)}" if plan.beside is not None else "")),
        ("decoding", "" if pipeline.loader == OPENCV_LOADER else _decoding(pipeline)),
        (
            "batch",
            f"{count_of(pipeline.batch_size, 'image')} per device"
            + (f", {training.accumulation_steps} batches per step" if training.accumulation_steps > 1 else "")
            + f", {count_of(plan.global_batch, 'image')} per step",
        ),
        ("length", LENGTHS[plan.kind](plan)),
        (
            "learning rate",
            f"{training.learning_rate:g} after {count_of(training.lr_warmup_epochs, 'epoch')} of linear warm-up, then"
            " cosine decay to 0",
        ),
        ("weight decay", f"{training.weight_decay:g}, none on batch norm"),
        ("precision", "float32" if training.amp == "off" else f"mixed, {training.precision}"),
        (
            "warm-up",
            count_of(window.warmup_steps, "step")
            if window.warmup_given
            else f"at least {count_of(window.warmup_steps, 'step')}; its end is found in the step times",
        ),
        ("threads per rank", f"{training.compute_threads} for training"),
        ("affinity", _affinity(plan.placement)),
    ]
    return [(label, value) for label, value in rows if value and label not in LEFT_OUT.get(plan.kind, ())]


def _crops(plan: RunPlan) -> str:
    """What of an image training uses."""
    if plan.pipeline.preprocessing == WHOLE_IMAGES:
        return "of whole images"
    return f"area {plan.data.augmentation.crop_area_min:g} to {plan.data.augmentation.crop_area_max:g}"


def _loader(pipeline: PipelineSettings) -> str:
    """What makes the batches, with what per rank."""
    if pipeline.loader == OPENCV_LOADER:
        return f"OpenCV in {count_of(pipeline.workers, 'worker')}"
    return f"DALI with {count_of(pipeline.decode_threads, 'thread')}, resized by {RESIZERS[pipeline.resize]}"


def _affinity(placement: PlacementPlan) -> str:
    """Which cores the ranks run on; empty where the operating system chooses."""
    if placement.affinity == NONE:
        return ""
    lists = placement.rank_cores
    if len(set(lists)) == 1:
        return f"every rank: {_cores(lists[0])}"
    return ", ".join(f"rank {rank}: {_cores(cores)}" for rank, cores in enumerate(lists))


def _cores(listed: str) -> str:
    return f"core {listed}" if listed.isdigit() else f"cores {listed}"


def _shuffle(pipeline: PipelineSettings) -> list[tuple[str, str]]:
    """What is said of an order that isn't that of all images shuffled together."""
    window = pipeline.shuffle_window
    return [("order", f"shards shuffled, then their images in windows of {window:,}")] if window else []


def _images(data: DataFacts) -> str:
    """The images of the splits that the run reads."""
    counts = {"training": data.train_images, "validation": data.val_images}
    read = [(count, split) for split, count in counts.items() if count]
    if not read:
        return "no images"
    *first, (count, split) = read
    return " and ".join([*(f"{one:,} {name}" for one, name in first), count_of(count, f"{split} image")])


def _decoding(pipeline: PipelineSettings) -> str:
    """Where images are decoded, and how much of them."""
    how = "the needed region of each image" if pipeline.decode_region else "whole images"
    if pipeline.decoder == CPU_DECODER:
        return f"on the CPU, {how}"
    return f"on host and GPU, {how}; {pipeline.hw_decoder_load:.0%} of them by the JPEG engine, if there is one"


def evaluation_facts(record: RunRecord, files: RunFiles) -> list[tuple[str, str]]:
    """Returns an evaluation as labels and values."""
    plan, size = record.plan, SIZES[record.plan.model]
    (row,) = read_table(files.table(EPOCHS.name), EPOCHS).to_dict("records")
    weights = record.pretrained or {}
    published = f"{size.top1:.4f} and {size.top5:.4f} for PPLCNet_{plan.model} on {REFERENCE_DATASET}"
    if not plan.data.imagenet:
        published += f"; not comparable: this run evaluated on {plan.data.name}"
    elif refused := refused_top1(record):
        published += f"; not comparable: {refused}"
    pixels, usual = plan.pipeline.size, ImageSize.of(RECIPE.image_size)
    others = [*([pixels.in_full] if pixels != usual else []), *method_marks(record)]
    if others:
        published += f"; published at {usual.in_full} in float32, this run: {', '.join(others)}"
    return [
        ("weights", f"{weights.get('file')}, SHA-256 {str(weights.get('sha256'))[:SHOWN_DIGITS]}..."),
        ("top-1", f"{row['top1']:.4f} {_of_images(record)}"),
        ("top-5", f"{row['top5']:.4f}"),
        ("published", published),
        ("loss", f"{row['val_loss']:.4f}"),
        ("took", f"{row['evaluation_seconds']:.1f} s, {row['val_images'] / row['evaluation_seconds']:.1f} images/s"),
    ]


def summary_facts(record: RunRecord) -> list[tuple[str, str]]:
    """Returns a finished run as labels and values, each with its scope."""
    plan, summary, kind = record.plan, record.summary, device_kind(record.plan.device)
    overflowed = summary.get("overflow_steps")
    rows = [
        ("throughput", f"{with_interval(record.phases[TRAIN])} in total on {plan.ranks} x {plan.device_name}"),
        ("per device", f"{summary['fps_per_device']:.1f} images/s"),
        (
            "window",
            f"{count_of(summary['window_steps'], 'step')}, {count_of(summary['images'], 'image')},"
            f" {summary['window_seconds']:.1f} s, after {count_of(summary['warmup_steps'], 'warm-up step')};"
            f" {WINDOW_ENDS[summary['window_end']]}",
        ),
        ("steady state", steady_text(record)),
        ("step", step_times_text(summary)),
        ("time", ledger_text(record.ledger)),
        ("outliers", outliers_text(record)),
        (
            "overflow",
            f"{count_of(overflowed, 'step')} overflowed, which skips the weight update and takes less time"
            if overflowed
            else "",
        ),
        ("disturbed", interference_text(record)),
        (f"{kind.title} utilisation", "" if kind.on_host else _percent(summary["gpu_util_percent"])),
        ("CPU utilisation", f"{_percent(summary['cpu_util_percent'])}, whole host"),
        ("accelerator", accelerator_text(summary)),
        ("top-1", _accuracy(record, "top1")),
        ("top-5", _accuracy(record, "top5")),
        ("left out", ", ".join(left_out_of(record).parts)),
        ("data", _profile(record)),
    ]
    return [(label, value) for label, value in rows if value]


def _facts(title: str, rows: list[tuple[str, str]]) -> RichTable:
    table = RichTable(title=plain_text(title), box=box.SIMPLE, show_header=False, title_justify="left")
    for label, value in rows:
        table.add_row(plain_text(label), plain_text(value))
    return table


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f} %"


def _accuracy(record: RunRecord, name: str) -> str:
    value, epochs = record.summary[name], count_of(record.summary["epochs"], "epoch")
    return "not measured" if value is None else f"{value:.4f} {_of_images(record)}, after {epochs}"


def _of_images(record: RunRecord) -> str:
    """Returns how many images an accuracy is of, and how many were left out."""
    left_out = left_out_of(record).counts[VAL_SPLIT]
    return f"of {count_of(record.summary['val_images'], 'image')}" + (f" ({left_out:,} left out)" if left_out else "")


def _profile(record: RunRecord) -> str:
    profile = record.profile
    bits = profile["bits_per_pixel"]
    density = f", {bits:.2f} bits per pixel" if bits is not None else ""
    files = count_of(profile["images"], "file")
    return f"{record.plan.data.name}: {files} of {profile['mean_bytes'] / 1024:.1f} KiB{density}"
