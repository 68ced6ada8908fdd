"""The three kinds of run, and what follows from the kind: what it reads, whether it trains, whether it can resume."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.layout import TRAIN_SPLIT, VAL_SPLIT


@dataclass(frozen=True, slots=True)
class RunKind:
    """What a run does.

    does is its description in messages ("run 'a' measures throughput"). splits are the lists of images that it reads;
    its data profile describes the first one. trains: it updates weights. in_epochs: it trains on every image once an
    epoch, so that a batch is at most a rank's shard. resumable: it saves checkpoints. default_data is the built-in
    set that it uses without --data and without ImageNet. memory_cure is what to use besides a smaller batch when a
    batch does not fit into a device's memory. compares_loaders: it can measure two loaders in turns.
    classes_from_weights: the file of --pretrained decides how many classes there are.
    """

    name: str
    does: str
    splits: tuple[str, ...]
    trains: bool
    in_epochs: bool
    resumable: bool
    default_data: str
    memory_cure: str
    compares_loaders: bool = False
    classes_from_weights: bool = False


HALVE = "--auto-batch, which halves it until it fits."
EPOCHS = RunKind("epochs", "trains for epochs", (TRAIN_SPLIT, VAL_SPLIT), True, True, True, "digits", HALVE)
THROUGHPUT = RunKind(
    "throughput", "measures throughput", (TRAIN_SPLIT,), True, False, False, "photos", HALVE, compares_loaders=True
)
EVALUATION = RunKind(
    "evaluation",
    "only evaluates",
    (VAL_SPLIT,),
    False,
    False,
    False,
    "digits",
    "a smaller --image-size.",
    classes_from_weights=True,
)

KINDS = {kind.name: kind for kind in (EPOCHS, THROUGHPUT, EVALUATION)}


def kind_of(throughput_only: bool, eval_only: bool) -> RunKind:
    """The kind that the two options ask for."""
    return EVALUATION if eval_only else THROUGHPUT if throughput_only else EPOCHS
