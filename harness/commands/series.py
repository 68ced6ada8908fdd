"""Several runs one after another, each in fresh processes: the spread between runs, and what more devices bring."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from harness.analysis.comparing.compare import between_runs
from harness.artifacts.atomic import write_whole
from harness.artifacts.liveness import own_process
from harness.artifacts.record import NAME_TIME, SCHEMA_VERSION, RunFiles, RunRecord
from harness.artifacts.run_claim import claimed
from harness.artifacts.schema import COMPUTE_NO_SYNC, REPEATS, SCALES
from harness.artifacts.shared_schema import SCALING
from harness.artifacts.tables import TableWriter
from harness.errors import InterruptedRunError, UsageError
from harness.launch import signals
from harness.plan.options import RunConfig
from harness.report.console import Console
from harness.report.series import show_repeats, show_scaling
from models.errors import ActionableError

# More devices can't make each of them faster; above this, the base was probably measured too slow.
SUPERLINEAR = 1.03


def series_members(config: RunConfig) -> list[RunConfig]:
    """The configurations of the runs that a configuration asks for, without their names; a single run's is its own."""
    if config.device_counts is not None:
        return [replace(config, device_counts=None, gpus=count) for count in config.parsed_device_counts()]
    return [replace(config, repeats=1)] * config.repeats


def run_series(
    config: RunConfig,
    members: Sequence[RunConfig],
    measure: Callable[[RunConfig, str], RunRecord],
    console: Console,
) -> None:
    """Measure the members one after another, then write and print their common figures.

    measure carries out one of them, given the series' name. `<series>.json` names the runs from the start and gets its
    figures after the last one; `<series>.scaling.csv` gets a row after each run.
    """
    kind = REPEATS if config.device_counts is None else SCALES
    usual = f"{time.strftime(NAME_TIME)}-{config.model}-{kind}"
    with claimed(Path(config.results), config.run_name, usual) as files:
        letter = "r" if kind == REPEATS else "n"
        labels = [member.gpus if kind == SCALES else number for number, member in enumerate(members, 1)]
        names = [f"{files.run}.{letter}{label}" for label in labels]
        taken = _files_of(files.folder, names)
        if taken:
            raise UsageError(f"{taken[0]} exists already", "Give another --run-name, or remove its files.")
        _write(files, kind, "running", names, {})
        _measure_all(files, kind, dict(zip(names, members, strict=True)), measure, console)


def _measure_all(
    files: RunFiles,
    kind: str,
    members: Mapping[str, RunConfig],
    measure: Callable[[RunConfig, str], RunRecord],
    console: Console,
) -> None:
    """Measure the members, by name, of a series, and write and print its figures."""
    records: list[RunRecord] = []
    rows: list[dict[str, Any]] = []
    try:
        with ExitStack() as stack:
            table = stack.enter_context(TableWriter(files.table(SCALING.name), SCALING)) if kind == SCALES else None
            for name, member in members.items():
                # A run may still finish when it is asked to end.
                signals.check()
                records.append(measure(replace(member, run_name=name), files.run))
                if table is not None:
                    rows.append(scaling_row(records[-1], records[0]))
                    table.write(rows[-1])
        if kind == REPEATS:
            spread = asdict(between_runs([record.summary["fps"] for record in records]))
            _write(files, kind, "finished", list(members), spread)
            console.emit("series", series=files.run, kind=kind, runs=list(members), figures=spread)
            show_repeats(console, files.run, [record.summary for record in records], spread)
        else:
            _write(files, kind, "finished", list(members), {"scaling": rows})
            console.emit("series", series=files.run, kind=kind, runs=list(members), figures=rows)
            show_scaling(console, files.run, rows)
    except BaseException as error:
        if not records and not _files_of(files.folder, members):
            # No run has begun, so that nothing is known under the name: it is free again.
            with suppress(OSError):
                files.table(SCALING.name).unlink(missing_ok=True)
                files.record.unlink()
            raise
        stopped = isinstance(error, (KeyboardInterrupt, InterruptedRunError))
        status = "interrupted" if stopped else "failed"
        with suppress(ActionableError):  # a full disk must not replace the error that ended the series
            _write(files, kind, status, list(members)[: len(records)], {})
        raise


def _files_of(folder: Path, runs: Iterable[str]) -> list[Path]:
    return [path for run in runs for path in RunFiles(folder, run).existing()]


def scaling_row(record: RunRecord, base: RunRecord) -> dict[str, Any]:
    """A row of the scaling table; both are finished throughput runs, base the one with the fewest devices."""
    summary, alone = record.summary, record.phases.get(COMPUTE_NO_SYNC)
    efficiency = summary["fps_per_device"] / base.summary["fps_per_device"]
    same = ("run", "fps", "fps_low", "fps_high", "bottleneck", "exposed_communication_share")
    return {
        "devices": record.plan.ranks,
        "efficiency": efficiency,
        "superlinear": efficiency > SUPERLINEAR,
        "slowest_rank": None if alone is None else alone["slowest_rank"],
        "rank_skew_share": None if alone is None else alone["rank_skew_share"],
        **{name: summary[name] for name in same},
    }


def _write(files: RunFiles, kind: str, status: str, runs: Sequence[str], figures: dict[str, Any]) -> None:
    content = {"schema_version": SCHEMA_VERSION, "kind": kind, "run": files.run, "status": status, "runs": list(runs)}
    process = {"process": own_process()}
    write_whole(files.record, json.dumps({**content, **process, **figures}, indent=2) + "\n")
