"""Errors that a person can act on, each with the exit code the command line documents."""

from models.errors import ActionableError

INTERRUPTED_EXIT_CODE = 75


class UsageError(ActionableError):
    """The command line or the configuration asks for something that makes no sense."""

    exit_code = 2


class GateError(ActionableError):
    """A figure is beyond the limit that the user set for it."""

    exit_code = 1


class MachineError(ActionableError):
    """The machine lacks something the run needs: a GPU, a library, room on the disk."""

    exit_code = 3


class TrainingError(ActionableError):
    """The training failed: the loss is not finite, or a rank ended."""

    exit_code = 5


class OutOfMemoryError(TrainingError):
    """A batch does not fit into the memory of a device."""


class InterruptedRunError(ActionableError):
    """Somebody stopped the run."""

    exit_code = INTERRUPTED_EXIT_CODE


class InvariantError(ActionableError):
    """A number contradicts its own definition: an error in the harness, so nothing is recorded."""
