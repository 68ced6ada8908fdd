"""`run_bench.py latency`: how long PP-LCNet takes for an image on this machine, beside what is published."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from harness.analysis.latency.claim import claim_of
from harness.analysis.latency.job import write_job
from harness.analysis.latency.kernels import KernelProfile
from harness.analysis.latency.medians import MIN_VALUES
from harness.analysis.latency.stored import LatencyRecord, turn_values, write_latency
from harness.analysis.latency.table import NONE, rows_of
from harness.artifacts.atomic import write_whole
from harness.artifacts.record import NAME_TIME, RunFiles
from harness.artifacts.run_claim import claimed
from harness.commands.latency.asked import Asked, Options, asked
from harness.errors import MachineError
from harness.latency.disturbance import Disturbances
from harness.latency.energy import Meter, NvmlMeter, rapl_meter
from harness.latency.engines import ENGINES
from harness.latency.folder import Folder
from harness.latency.measure import Measured, Rounds
from harness.latency.processes import EngineFailed, EngineProcess, export
from harness.latency.profiling import profile_kernels
from harness.launch import signals
from harness.launch.private_folder import private_folder
from harness.machine.device import installed_version
from harness.machine.device_kinds import device_kind
from harness.machine.environment import describe
from harness.machine.host import cpu_name
from harness.machine.nvml import Nvml
from harness.report.console import Console
from harness.report.extras import tried
from harness.report.latency import show_job, show_measured, show_round
from harness.report.page.latency import latency_page
from harness.report.text import command_line
from models.notes import Note
from models.weights import encode_weights
from models.words import count_of

NAME_OPTION = "--name"


def latency(options: Options, name: str | None = None, environment: Mapping[str, str] = os.environ) -> None:
    """Time the networks that the options ask for, print the figures, and write table, record and page.

    name is that of the files in options.results. Raises UsageError, MachineError or WeightsError if nothing can be
    measured; MachineError at the end if an engine has failed.
    """
    wanted, console, begun = asked(options, environment), Console(), time.time()
    usual = f"{time.strftime(NAME_TIME)}-latency-{wanted.job.device}{wanted.job.threads}"
    with ExitStack() as stack:
        files = stack.enter_context(claimed(Path(options.results), name, usual, option=NAME_OPTION))
        folder = Folder(stack.enter_context(private_folder("latency")))
        meter = _meter(wanted, stack)
        for notice in wanted.notices:
            console.notice(notice)
        show_job(console, wanted.job, wanted.origin, _device_name(wanted))
        own_environment = _engines_environment(wanted, environment)
        _export(wanted, folder, own_environment)
        measured = _measure(wanted, folder, own_environment, meter, console)
        profiles = _profiles(wanted, folder, own_environment, measured, console)
        record = _record(files, wanted, measured, profiles, meter, begun, own_environment)
        write_latency(files, record)
    _conclude(console, files, record)


def _device_name(wanted: Asked) -> str:
    return cpu_name() if device_kind(wanted.job.device).on_host else wanted.devices.name


def _engines_environment(wanted: Asked, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the processes in which engines run."""
    kind = device_kind(wanted.job.device)
    kept = {key: value for key, value in environment.items() if key not in kind.hidden}
    return {**kept, **kind.flags, "OMP_NUM_THREADS": str(wanted.job.threads)}


def _meter(wanted: Asked, stack: ExitStack) -> Meter:
    if device_kind(wanted.job.device).on_host:
        return rapl_meter()
    return NvmlMeter(stack.enter_context(Nvml()), wanted.devices.gpus[0])


def _export(wanted: Asked, folder: Folder, environment: Mapping[str, str]) -> None:
    if wanted.weights is not None:
        folder.weights.write_bytes(encode_weights(folder.weights, wanted.weights.weights, {}))
    write_job(folder.job, wanted.job)
    export(folder.path, environment)


def _measure(wanted: Asked, folder: Folder, environment: Mapping[str, str], meter: Meter, console: Console) -> Measured:
    job = wanted.job
    with ExitStack() as stack:
        timers = {
            engine: stack.enter_context(EngineProcess(engine, folder.path, environment)) for engine in job.engines
        }
        rounds = Rounds(job, timers, Disturbances(job.cores), meter)
        rounds.load()
        for number in range(job.rounds):
            signals.check()
            rounds.make(number)
            show_round(console, job, rounds.measured.turns, number)
        return rounds.measured


def _profiles(
    wanted: Asked, folder: Folder, environment: Mapping[str, str], measured: Measured, console: Console
) -> list[KernelProfile]:
    """Which kernels run; that they can't be counted takes nothing from what was measured."""
    if not measured.turns:
        return []
    try:
        return profile_kernels(wanted.job, folder.path, environment)
    except EngineFailed as failed:
        console.notice(
            Note(
                f"which kernels ran isn't known: {failed.reason}",
                "The latencies stand without it. ONEDNN_VERBOSE=1 has oneDNN print them in any program.",
            )
        )
        return []


def _record(
    files: RunFiles,
    wanted: Asked,
    measured: Measured,
    profiles: list[KernelProfile],
    meter: Meter,
    begun: float,
    engines_environment: Mapping[str, str],
) -> LatencyRecord:
    job = wanted.job
    modules = sorted({module for engine in job.engines for module in ENGINES[engine].modules})
    described = describe(wanted.devices, None, files.folder, ranks_environment=engines_environment)
    rows = rows_of(job, measured.turns, measured.failures)
    claims = (claim_of(engine, measured.of(engine), job) for engine in job.engines)
    return LatencyRecord(
        name=files.run,
        job=job,
        device_name=_device_name(wanted),
        weights=wanted.origin,
        meter=meter.name,
        begun_unix_seconds=begun,
        environment={**described, "engines": {module: installed_version(module) for module in modules}},
        rows=tuple(rows),
        turns=turn_values(measured.turns),
        claims=tuple(claim for claim in claims if claim is not None),
        profiles=tuple(profiles),
        warnings=tuple(_warnings(wanted, rows)),
    )


def _warnings(wanted: Asked, rows: list[dict[str, object]]) -> list[Note]:
    job, notes = wanted.job, []
    if job.rounds < MIN_VALUES:
        notes.append(
            Note(
                f"no intervals: {count_of(job.rounds, 'round')}, and {MIN_VALUES} are needed",
                f"Measure with --rounds {MIN_VALUES} or more.",
            )
        )
    if not job.cores:
        notes.append(
            Note(
                "this operating system can't keep a process on its cores: the scheduler may move it while it is timed",
                "Measure on Linux, or with nothing else on the machine.",
            )
        )
    disturbed = [f"{row['model']} with {row['engine']}" for row in rows if row.get("disturbed", NONE) != NONE]
    if disturbed:
        reasons = sorted({reason for row in rows for reason in str(row.get("disturbed", NONE)).split("|")} - {NONE})
        notes.append(
            Note(
                f"disturbed ({', '.join(reasons)}): {', '.join(disturbed)}; measure again",
                "Measure again with nothing else on the machine, and with more --seconds if the rows are unsteady.",
            )
        )
    return notes


def _conclude(console: Console, files: RunFiles, record: LatencyRecord) -> None:
    show_measured(console, record, files)
    again = command_line("report", record.name, "--results", str(files.folder))
    tried(console, "the page", again, lambda: write_whole(files.page, latency_page(record)))
    failed = {row["engine"]: row["failure"] for row in record.rows if row["failure"]}
    if failed:
        raise MachineError(
            "; ".join(f"{engine} failed: {reason}" for engine, reason in failed.items()),
            "The other figures stand. Leave it out of --engine, or see what is installed: pip list",
        )
