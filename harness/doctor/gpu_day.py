"""The first day on a GPU as one command: a table of rows, each of which shows what only a GPU can show."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.artifacts.atomic import check_writable, write_whole
from harness.artifacts.file_names import GPU_DAY
from harness.doctor import day_devices, day_runs
from harness.doctor.check import FAIL, OK, Context, Finding, skip
from harness.doctor.isolation import NO_ANSWER, run_isolated
from harness.errors import UsageError
from harness.machine.device import PADDLES, Devices, choose_devices, installed_version
from harness.machine.device_kinds import DeviceKind, device_kind
from harness.machine.host import cpu_name
from models.words import count_of
from pipelines.decoder_versions import decoder_versions
from pipelines.settings import MIXED_DECODER

SCHEMA_VERSION = 1
# All rows together; what is left of it limits a row, too.
BUDGET_SECONDS = 350.0
MIN_SECONDS = 5.0
PASSED, FAILED, SKIPPED = "PASS", "FAIL", "SKIP"
RESULTS = {OK: PASSED, FAIL: FAILED}
PAGE = "docs/devices.md"


def _any(_: DeviceKind) -> str:
    return ""


def _accelerator(kind: DeviceKind) -> str:
    return "a run would train on the CPU here, which has nothing to compare" if kind.on_host else ""


def _mixed(kind: DeviceKind) -> str:
    return "" if kind.decoder == MIXED_DECODER else f"{kind.plural} have no decoder of DALI's"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the day.

    closes names what it shows of the table in docs/devices.md. lacks says why a kind of device can't make the row, and
    is empty where it can; devices is the number that the row needs at least. function returns the finding, in a process
    that is killed after limit_seconds.
    """

    id: int
    title: str
    closes: str
    limit_seconds: float
    function: Callable[[Context], Finding]
    lacks: Callable[[DeviceKind], str] = _any
    devices: int = 1


ROWS = (
    Row(0, "driver, packages and Paddle's own check", "installing for GPUs", 60, day_devices.run_check),
    Row(
        1,
        "the GPU's decoder: whole images and regions, three shares of the JPEG engine, two passes",
        "`pipelines/dali_graphs.py`, decoder; decoded pixels",
        110,
        day_devices.decoders,
        _mixed,
    ),
    Row(
        2,
        "a thread ticks while the main one waits for the device",
        "`harness/machine/clock.py`; `harness/training/recorder.py`",
        40,
        day_devices.ticks,
        _accelerator,
    ),
    Row(
        3,
        "throughput on photographs, with telemetry",
        "`harness/machine/nvml.py`; `harness/machine/gpm.py`",
        90,
        day_runs.throughput,
    ),
    Row(4, "the JPEG engine's share", "`pipelines/dali_graphs.py`, decoder", 90, day_runs.jpeg_engine, _mixed),
    Row(
        5,
        "two devices",
        "`harness/training/ranks.py`; `harness/machine/device.py`, `worker_environment`",
        75,
        day_runs.two_devices,
        devices=2,
    ),
    Row(
        6,
        "digits for 2 epochs in every way of training",
        "`harness/training/mixed_precision.py`; `--bn-stats sync`; `--layout nhwc`; `--to-static`",
        150,
        day_runs.variants,
    ),
    Row(7, "SIGTERM, then --resume", "`harness/training/state.py`", 100, day_runs.resume),
    Row(
        8,
        "bad files, judged as on the CPU",
        "`pipelines/dali_graphs.py`, reading",
        60,
        day_runs.bad_files,
        _accelerator,
    ),
    Row(
        9,
        "a stopped and a killed rank",
        "`harness/launch/watchdog.py`; `harness/launch/failures.py`",
        100,
        day_runs.stopped_and_killed,
    ),
    Row(
        10,
        "a batch that does not fit, with --auto-batch",
        "`harness/launch/memory.py`",
        120,
        day_runs.auto_batch,
        _accelerator,
    ),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a row came to: PASS, FAIL or SKIP, the figure, why, and how long it took."""

    row: Row
    result: str
    finding: Finding
    seconds: float


def select_rows(names: Sequence[str], rows: Sequence[Row] = ROWS) -> list[Row]:
    """Returns the rows of these numbers, all without one. Raises UsageError for other names."""
    known = {str(row.id): row for row in rows}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"--gpu-day has no row {unknown[0]!r}", f"Rows: {', '.join(known)}.")
    return [known[name] for name in dict.fromkeys(names)] or list(rows)


def run_day(
    rows: Sequence[Row],
    context: Context,
    environment: Mapping[str, str] = os.environ,
    *,
    budget_seconds: float = BUDGET_SECONDS,
) -> Iterator[Outcome]:
    """Yields what each row came to, in turn; one that fails doesn't end the day, and neither does one that hangs.

    Raises MachineError if the devices that were asked for aren't there.
    """
    devices, _ = choose_devices(context.device, context.gpus, environment)
    began = time.monotonic()
    for row in rows:
        started = time.monotonic()
        left = budget_seconds - (started - began)
        reason = why_not(row, devices, left)
        if reason:
            finding = skip(reason)
        else:
            finding = run_isolated(row.function, context, min(row.limit_seconds, left), environment=environment)
            if left < row.limit_seconds and finding.found.startswith(NO_ANSWER):
                finding = skip(no_time(row))
        yield Outcome(row, RESULTS.get(finding.status, SKIPPED), finding, time.monotonic() - started)


def why_not(row: Row, devices: Devices, left_seconds: float) -> str:
    """Returns why a row can't be made with these devices and this time; empty if it can."""
    lack = row.lacks(device_kind(devices.kind))
    if lack:
        return lack
    if devices.count < row.devices:
        return f"it needs {row.devices} devices, and there is {devices.count}"
    if left_seconds < MIN_SECONDS:
        return no_time(row)
    return ""


def no_time(row: Row) -> str:
    """Returns why a row for which the others left too little time has no result."""
    return f"the other rows left too little time; run it alone: python run_bench.py doctor --gpu-day {row.id}"


def versions(context: Context, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Returns what the outcomes hold for: devices, driver and versions, without the machine's name."""
    devices, _ = choose_devices(context.device, context.gpus, environment)
    paddle = next((f"{name} {version}" for name in PADDLES if (version := installed_version(name))), "none")
    return {
        "devices": f"{devices.count} x {devices.name}",
        "processor": cpu_name(),
        "python": platform.python_version(),
        "paddle": paddle,
        "decoders": decoder_versions(),
        "kernel": platform.release(),
    }


def write_day(folder: Path, outcomes: Sequence[Outcome], about: Mapping[str, str]) -> tuple[Path, Path]:
    """Write gpu-day.md and gpu-day.json to the folder; returns both. Raises MachineError if they can't be written."""
    check_writable(folder)
    page, values = folder / f"{GPU_DAY}.md", folder / f"{GPU_DAY}.json"
    write_whole(page, markdown(outcomes, about))
    write_whole(values, json.dumps(as_values(outcomes, about), indent=2) + "\n")
    return page, values


def as_values(outcomes: Sequence[Outcome], about: Mapping[str, str]) -> dict[str, Any]:
    """Returns the day as values for JSON."""
    rows = [
        {
            "row": one.row.id,
            "title": one.row.title,
            "closes": one.row.closes,
            "result": one.result,
            "seconds": round(one.seconds, 1),
            **{name: text for name, text in asdict(one.finding).items() if name != "status"},
        }
        for one in outcomes
    ]
    return {"schema_version": SCHEMA_VERSION, "versions": dict(about), "rows": rows}


def markdown(outcomes: Sequence[Outcome], about: Mapping[str, str]) -> str:
    """Returns the day as a page."""
    head = [f"# GPU day: {about['devices']}", "", *(f"- {name}: {text}" for name, text in about.items()), ""]
    table = [f"| row | what | result | figure or reason | expected | seconds | line of {PAGE} |", "|" + " --- |" * 7]
    for one in outcomes:
        figure = "; ".join(filter(None, [one.finding.found, one.finding.reason]))
        cells = (str(one.row.id), one.row.title, one.result, figure, one.finding.expected, f"{one.seconds:.0f}",
                 one.row.closes)  # fmt: skip
        table.append("| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |")
    return "\n".join([*head, *table, "", tally(outcomes), ""])


def tally(outcomes: Sequence[Outcome]) -> str:
    """Returns how many rows came to which result, in one line."""
    results = [one.result for one in outcomes]
    counted = ", ".join(f"{results.count(result)} {result}" for result in (PASSED, FAILED, SKIPPED))
    return f"{count_of(len(results), 'row')} in {sum(one.seconds for one in outcomes):.0f} s: {counted}"
