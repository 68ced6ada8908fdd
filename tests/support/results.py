"""What a finished run leaves of its training, to be held against another run's bit for bit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd

from harness.artifacts.checkpoint import newest_checkpoint, read_checkpoint
from harness.artifacts.record import RunFiles
from harness.artifacts.schema import CHECKPOINT, EPOCHS, STEPS
from harness.artifacts.tables import read_table

# Of a step or an epoch, what the training decides; the rest are times, and what was seen meanwhile.
STEP_COLUMNS = ["phase", "epoch", "step", "images", "loss", "learning_rate"]
EPOCH_COLUMNS = ["epoch", "images", "train_loss", "val_loss", "top1", "top5", "learning_rate", "val_images"]


@dataclass(frozen=True, slots=True)
class Result:
    """Rows of steps and epochs, and the last checkpoint's arrays."""

    steps: pd.DataFrame
    epochs: pd.DataFrame
    arrays: dict[str, bytes]

    def differs(self, other: Result) -> list[str]:
        """What isn't equal, bit for bit."""
        found = [name for name in ("steps", "epochs") if not getattr(self, name).equals(getattr(other, name))]
        return found + (["weights"] if self.arrays != other.arrays else [])

    def of_training(self) -> Result:
        """The same without the state of DALI's graph, which is another one for images in shards or in memory."""
        return replace(self, arrays={name: one for name, one in self.arrays.items() if not name.endswith("/dali")})


def result_of(files: RunFiles) -> Result:
    """What a finished run left."""
    steps = read_table(files.table(STEPS.name), STEPS)
    steps = steps[steps["phase"] != CHECKPOINT][STEP_COLUMNS].reset_index(drop=True)
    newest = newest_checkpoint(files.checkpoints)
    assert newest is not None
    arrays = read_checkpoint(files.checkpoints, newest[0]).arrays
    return Result(
        steps,
        read_table(files.table(EPOCHS.name), EPOCHS)[EPOCH_COLUMNS],
        {name: values.tobytes() for name, values in arrays.items()},
    )
