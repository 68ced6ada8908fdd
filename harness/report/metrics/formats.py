"""The formats in which a finished run's figures are written for other programs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from harness.artifacts.atomic import disk_errors, write_whole
from harness.artifacts.record import RunFiles
from harness.plan.metric_formats import MLLOG, PROMETHEUS, TENSORBOARD
from harness.report.metrics.mllog import mllog
from harness.report.metrics.prometheus import prometheus
from harness.report.metrics.tensorboard import tensorboard
from harness.report.run_data import RunData

Writer = Callable[[RunData, Path], None]


def _events(run: RunData, target: Path) -> None:
    """TensorBoard's folder, which replaces an earlier one once it is whole."""
    with disk_errors(target):
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            tensorboard(run, made)
            shutil.rmtree(target, ignore_errors=True)
            made.rename(target)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise


def _file(content: Callable[[RunData], bytes]) -> Writer:
    def write(run: RunData, target: Path) -> None:
        write_whole(target, content(run))

    return write


# By name: the end of the file's name, and what writes it.
FORMATS: dict[str, tuple[str, Writer]] = {
    PROMETHEUS: ("prom", _file(lambda run: prometheus(run.record))),
    TENSORBOARD: ("tensorboard", _events),
    MLLOG: ("mllog", _file(mllog)),
}


def write_metrics(run: RunData, files: RunFiles, name: str) -> Path:
    """Write a finished run's figures in a format. Returns where. Raises MachineError if that isn't possible."""
    ending, write = FORMATS[name]
    target = files.folder / f"{files.run}.{ending}"
    write(run, target)
    return target
