"""A finished run as lines of the MLPerf log format (`:::MLLOG`), which other programs read.

The lines have the format alone: they are not a result under MLPerf's rules. Source: mlcommons/logging, mllog.py and
constants.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from harness.artifacts.schema import TRAIN
from harness.report.run_data import RunData

START, END, POINT = "INTERVAL_START", "INTERVAL_END", "POINT_IN_TIME"


def mllog(run: RunData) -> bytes:
    """Returns the lines of a run: its settings, its epochs with their accuracy, and its throughput."""
    return "".join(f":::MLLOG {json.dumps(event)}\n" for event in _events(run)).encode()


def _events(run: RunData) -> Iterator[dict[str, Any]]:
    record, plan, begin = run.record, run.record.plan, run.begin
    settings = {
        "submission_benchmark": f"pplcnet_{plan.model}",
        "global_batch_size": plan.global_batch,
        "gradient_accumulation_steps": plan.training.accumulation_steps,
        "opt_base_learning_rate": plan.training.learning_rate,
        "opt_learning_rate_warmup_epochs": plan.training.lr_warmup_epochs,
        "opt_weight_decay": plan.training.weight_decay,
        "train_samples": plan.data.train_images,
        "eval_samples": plan.data.val_images,
        "seed": record.config.seed,
    }
    for key, value in settings.items():
        yield _event(begin, POINT, key, value)
    yield _event(begin, START, "run_start")
    steps = run.steps[run.steps["phase"] == TRAIN]
    ends = {} if plan.training.epochs is None else steps.groupby("epoch")["time_unix_seconds"].max().to_dict()
    for row in run.epochs.to_dict("records"):
        epoch = int(row["epoch"])
        at = float(ends.get(row["epoch"], begin))
        yield _event(at, END, "epoch_stop", epoch_num=epoch)
        if row["top1"] == row["top1"]:
            yield _event(
                at + (_known(row["evaluation_seconds"]) or 0.0), POINT, "eval_accuracy", row["top1"], epoch_num=epoch
            )
    last = float(run.steps["time_unix_seconds"].iloc[-1]) if len(run.steps) else begin
    if record.summary.get("fps") is not None:
        yield _event(last, POINT, "tracked_stats", {"throughput": record.summary["fps"]})
    yield _event(last, END, "run_stop", status="success" if record.status == "finished" else "aborted")


def _known(value: float) -> float | None:
    return value if value == value else None


def _event(unix_seconds: float, kind: str, key: str, value: Any = None, **metadata: Any) -> dict[str, Any]:
    return {
        "namespace": "", "time_ms": int(1000 * unix_seconds), "event_type": kind, "key": key, "value": value,
        "metadata": metadata,
    }  # fmt: skip
