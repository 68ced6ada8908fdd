"""The runs that a command line asks for: one, several one after another, or only the plan."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.artifacts.atomic import check_writable
from harness.artifacts.file_names import LOCK, SUMMARY_FILE, check_run_name
from harness.artifacts.liveness import started_unix_seconds
from harness.artifacts.lock import has_locks, no_locks
from harness.artifacts.record import RunRecord
from harness.commands.inputs import NAME_THE_DATA, find_inputs
from harness.commands.one_run import Run
from harness.commands.resume import node_options, requested_config
from harness.commands.run_options import Manner
from harness.commands.series import run_series, series_members
from harness.launch.meeting import ALONE, Meeting, open_meeting
from harness.launch.private_folder import private_folder
from harness.machine.device import check_paddle, choose_devices
from harness.machine.telemetry import check_telemetry_library
from harness.plan.decisions import default_data, make_plan
from harness.plan.given import completed, shared_options
from harness.plan.nodes import find_node
from harness.plan.options import RunConfig
from harness.plan.plan import DEFAULT_FOLDER, declared_facts
from harness.plan.schedulers.place import Place
from harness.report.console import Console
from harness.report.extras import check_extras
from models.errors import ActionableError
from models.notes import Note
from pipelines.builtin import BUILTIN


def run_given(given: Mapping[str, Any], manner: Manner, place: Place | None = None) -> None:
    """Carry out the runs that a command line's options ask for, or print the plan. Raises ActionableError.

    place is what `--nnodes auto` found, None without it.
    """
    console = Console(output=manner.output)
    try:
        _run_given(given, manner.dry_run, console, place)
    except ActionableError as error:
        console.emit("error", message=error.message, cure=error.cure, exit_code=error.exit_code)
        raise


def _run_given(given: Mapping[str, Any], dry_run: bool, console: Console, place: Place | None) -> None:
    if place is not None:
        console.line(str(place) + (f"; node 0 is {given['master']}" if "master" in given else ""))
    # A dry run meets no other node.
    asked = RunConfig() if dry_run else node_options(given)
    node = find_node(asked, place, console.notice)
    with open_meeting(node, asked.rendezvous_timeout, console.notice) as meeting:
        config = _agreed_config(given, meeting, dry_run=dry_run)
        if config is None:
            console.line("nothing to resume: the run is finished")
            meeting.finish()
        else:
            run(config, dry_run=dry_run, meeting=meeting, console=console)


def _agreed_config(given: Mapping[str, Any], meeting: Meeting, *, dry_run: bool) -> RunConfig | None:
    """The configuration of this node's part, completed by a run's record or by node 0. None for a finished run."""
    if meeting.node.records:
        config = requested_config(given, dry_run=dry_run)
        if config is not None:
            meeting.propose(shared_options(config))
        return config
    shared = meeting.options()
    return None if shared is None else completed(given, shared)


def run(
    config: RunConfig,
    *,
    dry_run: bool,
    meeting: Meeting,
    console: Console,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Carry out the runs that a configuration asks for, or print the plan. Raises ActionableError."""
    if config.run_name is not None and config.resume is None:
        check_run_name(config.run_name)
    if dry_run:
        _print_plan(config, console, environment)
        return
    if not config.node_rank:
        # Before anything that takes time; each run checks the other files that it will write to.
        folder = Path(config.results)
        if os.path.lexists(folder):
            check_writable(folder, (folder / LOCK, folder / SUMMARY_FILE))
        if not has_locks(folder):
            console.notice(no_locks("two runs of one name", config.results))
    members = series_members(config)
    if config.device_counts is not None:
        # Missing devices must be reported before the first run, and the runs must differ in nothing else.
        largest = find_inputs(members[-1], console, environment).plan
        members = [
            replace(
                member,
                batch_size=largest.pipeline.batch_size,
                compute_threads=largest.training.compute_threads,
                decode_threads=largest.pipeline.decode_threads,
                decoder=largest.pipeline.decoder,
                hw_decoder_load=largest.pipeline.hw_decoder_load,
            )
            for member in members
        ]
    if len(members) == 1:
        measure(members[0], console, environment, meeting=meeting)
    else:
        run_series(config, members, lambda member, name: measure(member, console, environment, series=name), console)


def measure(
    config: RunConfig,
    console: Console,
    environment: Mapping[str, str] = os.environ,
    *,
    series: str | None = None,
    meeting: Meeting = ALONE,
    begun: float | None = None,
    page: bool = True,
) -> RunRecord:
    """Carry out one run, alone or in a series of that name, and return its finished record. Raises ActionableError.

    begun is the time of day at which it was asked for: by default now in a series, else the start of this process.
    page: it ends with a page to look at.
    """
    if begun is None:
        begun = started_unix_seconds() if series is None else time.time()
    for notice in check_paddle():
        console.notice(notice)
    inputs = find_inputs(config, console, environment)
    check_telemetry_library(config.telemetry_library)
    check_extras(config)
    if meeting.node.records:
        return Run(config, inputs, meeting, Path(config.results), environment, console, begun, page).carry_out(series)
    # Node 0 records for all. The record here only passes the plan to this node's ranks.
    with private_folder("node") as folder:
        return Run(config, inputs, meeting, folder, environment, console, begun, page).carry_out(series)


def _print_plan(config: RunConfig, console: Console, environment: Mapping[str, str]) -> None:
    """Print what a run would do; for a series, the run with the most devices."""
    config = series_members(config)[-1]
    source = default_data(config)
    if source in BUILTIN:
        # A run makes the set, a dry run makes nothing.
        devices, notices = choose_devices(config.device, config.gpus, environment, look=False)
        plan = make_plan(config, devices, declared_facts(source, config.kind, config.classes), environment)
        unasked = []
        if config.data is None:
            unasked.append(Note(f"no --data, and no {DEFAULT_FOLDER} here: {source} would be used", NAME_THE_DATA))
        for notice in (*notices, *unasked, *plan.notes):
            console.notice(notice)
        console.plan(plan, f"the built-in set {source}")
        return
    plan = find_inputs(config, console, environment, look=False).plan
    console.plan(plan, f"counted in {plan.data.source}")
