"""Errors a person can act on, each with the exit code the command line documents."""

from __future__ import annotations

DATA_EXIT_CODE = 4  # of DataError and WeightsError, in pipelines and models, which don't know this package
INTERRUPTED_EXIT_CODE = 75


class BenchError(Exception):
    """What is wrong (message, with the value and the limit) and the next step (cure)."""

    exit_code = 1

    def __init__(self, message: str, cure: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure


class UsageError(BenchError):
    """The command line or the configuration asks for something that makes no sense."""

    exit_code = 2


class GateError(BenchError):
    """A figure is beyond the limit that the user set for it."""

    exit_code = 1


class MachineError(BenchError):
    """The machine lacks something the run needs: a GPU, a library, room on the disk."""

    exit_code = 3


class TrainingError(BenchError):
    """The training failed: the loss is not finite, or a rank ended."""

    exit_code = 5


class OutOfMemoryError(TrainingError):
    """A batch does not fit into the memory of a device."""


class InterruptedRunError(BenchError):
    """Somebody stopped the run."""

    exit_code = INTERRUPTED_EXIT_CODE


class InvariantError(BenchError):
    """A number contradicts its own definition: an error in the harness, so nothing is recorded."""
