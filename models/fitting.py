"""Which model the weights in a file are those of: under which prefix, of which size, and with how many outputs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from models.architecture import HEAD, HEAD_CHANNELS, KEEP, NEW, parameter_shapes
from models.errors import WeightsError
from models.pickled import RefusedError, shown, shown_shape
from models.sizes import SIZES
from models.weights import PDPARAMS, WANTED, Arrays, Weights, read_weights, to_single
from models.words import count_of

MAX_DIFFERENCES = 5  # in a message

# The names of every size's entries but the last layer's, and one of them by whose end a prefix is found.
_BODY = tuple(name for name in parameter_shapes(1.0, 1) if name not in HEAD)
_FIRST = _BODY[0]


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A file of weights as a record describes it: its name, and the SHA-256 of the bytes that were read.

    prefix is what stands before the names of the model's entries, as after distillation and parallel training; others
    is the number of entries that belong to another model. classes is the number of outputs of the file's last layer, 0
    if it has none; head is KEEP or NEW.
    """

    file: str
    sha256: str
    prefix: str = ""
    others: int = 0
    classes: int = 0
    head: str = KEEP


@dataclass(frozen=True, slots=True)
class ReadFile:
    """What one read of a file of weights brought: the entries of its model by their own names, and the rest as
    `WeightsFile` has it. outputs are those of its last layer: 0 if it has none, None if it isn't this network's.
    """

    name: str
    sha256: str
    weights: Weights
    prefix: str
    others: int
    outputs: int | None

    def fit(self, size: str, num_classes: int, head: str | None = None) -> tuple[Weights, WeightsFile]:
        """The weights for a model of this size, in its order, and their description.

        head is what to do with the file's last layer: KEEP, NEW, or None to keep it if it has num_classes outputs. A
        new one is not among the weights. Raises WeightsError unless the weights fit the model.
        """
        if head is None:
            # A last layer in another shape than this network's is refused rather than replaced.
            head = KEEP if self.outputs is None or self.outputs == num_classes else NEW
        weights = fit(self.weights, size, num_classes, head)
        return weights, WeightsFile(self.name, self.sha256, self.prefix, self.others, self.outputs or 0, head)


def read_file(path: Path) -> ReadFile:
    """Read a file of weights, once. Raises WeightsError for one that can't be read, or that holds several models."""
    found, sha256 = read_weights(path)
    own, prefix = of_one_model(found, path)
    return ReadFile(path.name, sha256, own, prefix, len(found) - len(own), _outputs(own))


def of_one_model(found: Weights, path: Path, prefix: str | None = None) -> tuple[Weights, str]:
    """The entries of the model that a file holds, by their names without the prefix, and the prefix.

    A prefix ends with a dot, and all the model's names have it; what has another one is left out. prefix is the one to
    take; None where there is only one. Raises WeightsError where there are several, or not the one asked for.
    """
    there = _prefixes(found)
    if prefix and not prefix.endswith("."):
        prefix += "."
    if prefix is None and len(there) > 1:
        first = there[0]
        target = (first.strip(".").replace(".", "-").lower() or "model") + PDPARAMS
        words = ("run_bench.py", "export", str(path), target, "--prefix", first)
        raise WeightsError(
            f"{str(path)!r} holds {len(there)} models, with names that begin with {_listed(there)}",
            f"Write the one that you mean to a file of its own, such as: python {shlex.join(words)}",
        )
    if prefix is None:
        prefix = there[0] if there else ""
    elif prefix not in there:
        raise WeightsError(
            f"{str(path)!r} holds no whole model with names that begin with {prefix!r}",
            f"It holds one for each of: {_listed(there)}." if there else WANTED,
        )
    # Without a prefix every other name is reported, except those that belong to a whole model of their own.
    others = tuple(one for one in there if one.startswith(prefix) and one != prefix)
    own = {
        name.removeprefix(prefix): values
        for name, values in found.items()
        if name.startswith(prefix) and not (others and name.startswith(others))
    }
    return own, prefix


def compare_shapes(found: Arrays, wanted: Mapping[str, tuple[int, ...]]) -> list[str]:
    """A line for each entry that differs: those missing, those of another shape, and those that are not wanted."""
    missing = [f"{name} is missing" for name in wanted if name not in found]
    other = [
        f"{name}: {shown_shape(found[name].shape)} in the file, {shown_shape(shape)} wanted"
        for name, shape in wanted.items()
        if name in found and found[name].shape != shape
    ]
    return [*missing, *other, *(f"{shown(name)} is not part of the model" for name in found if name not in wanted)]


def recognise(found: Arrays) -> tuple[str, int] | None:
    """Size and number of classes of the model that has exactly these names and shapes; None if no model has."""
    num_classes = _outputs(found)
    if not num_classes:
        return None
    return next(((size, num_classes) for size in SIZES if not _differences(found, size, num_classes)), None)


def closest_size(found: Arrays) -> tuple[str, int]:
    """Size and number of classes of the model from which these names and shapes differ least."""
    num_classes = _outputs(found) or 1
    return min(((size, num_classes) for size in SIZES), key=lambda model: len(_differences(found, *model)))


def fit(found: Arrays, size: str, num_classes: int, head: str = KEEP) -> Weights:
    """The weights of a model of this size, in its order; without its last layer if head is NEW.

    size is a key of SIZES. Raises WeightsError, which names the differences, when they are those of another model.
    """
    lines = _differences(found, size, num_classes, head)
    if lines:
        raise _misfit(found, size, num_classes, lines)
    try:
        return {name: to_single(name, found[name]) for name in _wanted(size, num_classes, head)}
    except RefusedError as error:
        raise WeightsError(f"the model {error}", "Take weights of an earlier step.") from error


def _misfit(found: Arrays, size: str, num_classes: int, lines: list[str]) -> WeightsError:
    """The error that names the differences, and what the weights would fit."""
    fits = recognise(found)
    if fits is not None and fits[0] == size:
        return WeightsError(
            f"the last layer of the weights has {count_of(fits[1], 'output')}, but this data has"
            f" {count_of(num_classes, 'class')}",
            f"Give weights that were trained on this data's classes. A training can start that layer anew:"
            f" --pretrained-head new.\nIf lists give the labels, and they count those {fits[1]:,} classes: --classes"
            f" {fits[1]}.",
        )
    cure = WANTED if fits is None else f"They are those of {fits[0]}: --model {fits[0]}."
    more = [f"and {len(lines) - MAX_DIFFERENCES} more"] if len(lines) > MAX_DIFFERENCES else []
    wanted = len(parameter_shapes(SIZES[size].scale, num_classes))
    return WeightsError(
        f"the weights don't fit {size} with {count_of(num_classes, 'class')}: {count_of(len(lines), 'difference')} from"
        f" its {wanted} entries" + "".join(f"\n  {line}" for line in [*lines[:MAX_DIFFERENCES], *more]),
        cure,
    )


def _prefixes(found: Iterable[str]) -> list[str]:
    """The prefixes under which all of a model's names are, the last layer's excepted; "" among them."""
    names = set(found)
    there = [name.removesuffix(_FIRST) for name in names if name.endswith(_FIRST)]
    whole = [one for one in there if one == "" or one.endswith(".")]
    return sorted(one for one in whole if all(one + name in names for name in _BODY))


def _listed(prefixes: Iterable[str]) -> str:
    return " and ".join("the model's own names" if not one else shown(one) for one in prefixes)


def _outputs(found: Arrays) -> int | None:
    """The number of outputs of the last layer: 0 if there is none, None if it isn't this network's."""
    weight, bias = (found.get(name) for name in HEAD)
    if weight is None and bias is None:
        return 0
    if weight is None or bias is None or bias.ndim != 1 or weight.shape != (HEAD_CHANNELS, bias.size):
        return None
    return bias.size


def _wanted(size: str, num_classes: int, head: str) -> dict[str, tuple[int, ...]]:
    shapes = parameter_shapes(SIZES[size].scale, num_classes)
    return {name: shape for name, shape in shapes.items() if head == KEEP or name not in HEAD}


def _differences(found: Arrays, size: str, num_classes: int, head: str = KEEP) -> list[str]:
    counted_entries = {name: values for name, values in found.items() if head == KEEP or name not in HEAD}
    return compare_shapes(counted_entries, _wanted(size, num_classes, head))
