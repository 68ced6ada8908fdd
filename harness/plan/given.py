"""The options that a command line gives, before a run's record or node 0 completes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.plan.declaration import SAME
from harness.plan.options import RunConfig, parse_config, run_options

# What must be right together whatever record the others are joined with: the kind of run, and the names.
BY_THEMSELVES = (
    "resume", "run_name", "results", "device", "throughput_only", "eval_only", "pretrained", "repeats", "device_counts"
)  # fmt: skip


def check_given(given: Mapping[str, Any]) -> None:
    """Raise UsageError for given options that no record can complete to a run.

    With --resume an option may need another one that only the record of the run has.
    """
    for name, value in given.items():
        run_options()[name].check(value)
    RunConfig(**(given if given.get("resume") is None else only(given, BY_THEMSELVES)))


def only(given: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Returns the given options of these names."""
    return {name: given[name] for name in names if name in given}


def shared_options(config: RunConfig) -> dict[str, Any]:
    """Returns the options that all nodes must agree on, as far as they are decided."""
    return {
        name: value
        for name, option in run_options().items()
        if option.nodes == SAME and (value := getattr(config, name)) is not None
    }


def completed(given: Mapping[str, Any], shared: Mapping[str, Any]) -> RunConfig:
    """Returns a node's configuration: its given options, completed by those that node 0 shares.

    A given one stays, so that a difference is found when the nodes compare their runs. Of what node 0 shares, only
    options that all nodes share are taken. Raises UsageError for values that are no options, or don't fit together.
    """
    wanted = {name: value for name, value in given.items() if value is not None}
    own = {name for name, option in run_options().items() if option.nodes != SAME}
    taken = {name: value for name, value in parse_config(shared, "node 0's options").items() if name not in own}
    return RunConfig(**{**taken, **wanted, "resume": None})
