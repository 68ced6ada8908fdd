"""`run_bench.py export`: writes the weights of a run, or of another file, to a file that other programs can read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.artifacts.atomic import disk_errors, replaced
from harness.artifacts.checkpoint import MODEL, STATISTICS, Checkpoint, newest_checkpoint, of_rank, read_checkpoint
from harness.artifacts.record import RunFiles, RunRecord, read_record
from harness.artifacts.run_lookup import find_run
from harness.errors import UsageError
from harness.plan.option_groups.training import RANK0
from harness.report.text import printable
from models.architecture import parameter_shapes
from models.fitting import closest_size, fit, of_one_model, recognise
from models.sizes import SIZES
from models.weights import PDPARAMS, SAFETENSORS, Weights, check_target, encode_weights, read_weights
from models.words import count_of


@dataclass(frozen=True, slots=True)
class Exported:
    """Weights, their metadata, and a phrase on where they come from."""

    weights: Weights
    metadata: Mapping[str, str]
    origin: str


def export(what: str, file: str, results: str, overwrite: bool = False, prefix: str | None = None) -> None:
    """Write the weights of a run's newest checkpoint, or of another file, to the file, and print what was written.

    prefix is that of the model's names in another file that holds several models; None if it holds one.
    Raises UsageError if there is no such run, it has no checkpoint, or the file exists and overwrite isn't set;
    MachineError if the checkpoint can't be read or the file can't be written; WeightsError if either file is invalid.
    """
    target = Path(file)
    check_target(target)
    if os.path.lexists(target) and not overwrite:
        raise _exists_already(target)
    if prefix is not None and not _is_file(what, Path(results)):
        raise UsageError(f"--prefix {prefix!r} is for a file of weights, and {what!r} is a run", "Omit it.")
    exported = weights_of(what, Path(results), prefix)
    _write(target, encode_weights(target, exported.weights, exported.metadata), overwrite)
    print(printable(f"{file}: {describe(exported)}"))


def weights_of(what: str, results: Path, prefix: str | None = None) -> Exported:
    """Returns the weights of a run in the folder of results, or of a file of weights.

    Raises UsageError if there is no such run, or it has no checkpoint; MachineError if that can't be read; WeightsError
    for a file that isn't valid.
    """
    return _of_file(Path(what), prefix) if _is_file(what, results) else of_run(RunFiles(results, what))


def _write(target: Path, content: bytes, overwrite: bool) -> None:
    with disk_errors(repr(str(target)), elsewhere="a file in another folder"):
        try:
            with replaced(target, overwrite=overwrite) as stream:
                stream.write(content)
        except FileExistsError as error:  # another process has just made it
            raise _exists_already(target) from error


def _exists_already(target: Path) -> UsageError:
    return UsageError(f"{str(target)!r} exists already", "Name another file, or pass --overwrite.")


def describe(exported: Exported) -> str:
    """Returns a description of the weights: model, classes, parameters, and where they come from."""
    model, classes = exported.metadata["model"], int(exported.metadata["num_classes"])
    # As published: without batch norm's running statistics, which aren't trained.
    parameters = sum(
        values.size for name, values in exported.weights.items() if not name.endswith(("_mean", "_variance"))
    )
    return f"{model}, {count_of(classes, 'class')}, {count_of(parameters, 'parameter')}, {exported.origin}"


def of_run(files: RunFiles) -> Exported:
    """Returns the weights of a run's newest complete checkpoint. Raises UsageError if there is none."""
    record = read_record(find_run(files.run, files.folder))
    found = newest_checkpoint(files.checkpoints)
    if found is None:
        if not record.plan.kind.resumable:
            raise UsageError(
                f"run {files.run!r} {record.plan.kind.does}, and saves no weights", "Export a run of epochs."
            )
        raise UsageError(
            f"run {files.run!r} has no complete checkpoint in {str(files.checkpoints)!r}",
            "The first checkpoint is saved at the end of the first epoch, or after --checkpoint-minutes.",
        )
    checkpoint = read_checkpoint(files.checkpoints, found[0])
    metadata, origin = _history(record, checkpoint.values)
    return Exported(_weights(record, checkpoint), metadata, origin)


def _weights(record: RunRecord, checkpoint: Checkpoint) -> Weights:
    """Returns the model that the ranks would evaluate: the weights, which all ranks share, and averaged statistics."""
    size, num_classes = record.plan.model, record.plan.data.num_classes
    arrays, found = checkpoint.arrays, {}
    whose = range(1 if record.plan.training.bn_stats == RANK0 else checkpoint.values["ranks"])
    for name in parameter_shapes(SIZES[size].scale, num_classes):
        own = [of_rank(rank) + STATISTICS + name for rank in whose]
        if MODEL + name in arrays:
            found[name] = arrays[MODEL + name]
        elif all(key in arrays for key in own):
            found[name] = np.stack([arrays[key] for key in own]).mean(axis=0, dtype=np.float64).astype(np.float32)
    return fit(found, size, num_classes)


def _history(record: RunRecord, values: Mapping[str, Any]) -> tuple[dict[str, str], str]:
    """Returns the history of a checkpoint's weights, as metadata and in words.

    epoch is the number of completed epochs. The top-1 may be that of an earlier epoch.
    """
    progress, optimizer_steps, last = values["progress"], values["optimizer_steps"], values["progress"]["last"]
    epoch, steps = progress["epoch"] - 1, progress["steps"]
    if steps >= record.plan.training.steps_per_epoch:
        epoch, steps = epoch + 1, 0
    origin = f"run {record.run} after epoch {epoch}" if not steps else f"run {record.run} in epoch {epoch + 1}"
    origin += f" (step {optimizer_steps:,})"
    metadata = {
        "model": record.plan.model,
        "num_classes": str(record.plan.data.num_classes),
        "strides": record.plan.training.strides,
        "run": record.run,
        "epoch": str(epoch),
        "optimizer_steps": str(optimizer_steps),
        "dataset": record.plan.data.name,
    }
    if last:
        metadata |= {"top1": str(last["top1"]), "top1_epoch": str(last["epoch"])}
        origin += f", top-1 {last['top1']:.4f} after epoch {last['epoch']}"
    return metadata, origin


def _of_file(path: Path, prefix: str | None) -> Exported:
    """Returns the weights of a file, or of the model under a prefix. Raises WeightsError unless they fit a model."""
    found, prefix = of_one_model(read_weights(path)[0], path, prefix)
    size, num_classes = recognise(found) or closest_size(found)
    origin = f"converted from {path}" + (f", its names that begin with {prefix!r}" if prefix else "")
    return Exported(fit(found, size, num_classes), {"model": size, "num_classes": str(num_classes)}, origin)


def _is_file(what: str, folder: Path) -> bool:
    """Returns whether `what` names a file rather than a run."""
    if "/" in what or what.endswith((PDPARAMS, SAFETENSORS)):
        return True
    # pathlib would raise for a name that is too long.
    return os.path.isfile(what) and not os.path.exists(folder / f"{what}.json")  # noqa: PTH110, PTH113
