"""Everything a user can set, declared once: command line, TOML file, record and the rules of a run come from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.plan.declaration import Option, options_of, parse_values
from harness.plan.kinds import RunKind, kind_of
from harness.plan.option_checks import check_combinations, parse_device_counts, parse_master
from harness.plan.option_groups.data import DataOptions
from harness.plan.option_groups.loading import LoadingOptions
from harness.plan.option_groups.measuring import MeasuringOptions
from harness.plan.option_groups.operation import OperationOptions
from harness.plan.option_groups.running import RunningOptions
from harness.plan.option_groups.training import TrainingOptions


# The options' order is that of the bases from the last to the first.
@dataclass(frozen=True, kw_only=True)
class RunConfig(OperationOptions, LoadingOptions, DataOptions, TrainingOptions, MeasuringOptions, RunningOptions):
    """What was asked for. None means: decided by the device or the data set, see `harness.plan.decisions`.

    The defaults are PaddleClas's published PP-LCNet recipe. --help shows the first sentence of an option's help;
    docs/options.md has all of it. Raises UsageError for an invalid value or combination.
    """

    def __post_init__(self) -> None:
        for name, declared in run_options().items():
            declared.check(getattr(self, name))
        check_combinations(self)

    @property
    def kind(self) -> RunKind:
        """The kind of run that was asked for; nothing else reads the options that decide it."""
        return kind_of(self.throughput_only, self.eval_only)

    @property
    def is_series(self) -> bool:
        """Whether several runs were asked for."""
        return self.repeats > 1 or self.device_counts is not None

    def master_address(self) -> tuple[str, int]:
        """Host and port of --master. Raises UsageError for anything else."""
        return parse_master(self.master or "")

    def parsed_device_counts(self) -> tuple[int, ...]:
        """The numbers of devices in --device-counts, in increasing order. Raises UsageError for anything else."""
        return parse_device_counts(self.device_counts or "")


def run_options() -> Mapping[str, Option]:
    """The options of a run, by name and in the order they are declared."""
    return options_of(RunConfig)


def parse_config(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values of RunConfig's fields from a TOML table or a record; see `parse_values`. Raises UsageError."""
    return parse_values(RunConfig, values, where)
