"""Errors that a person can act on, each with its documented exit code."""

from models.errors import ActionableError

INTERRUPTED_EXIT_CODE = 75


class UsageError(ActionableError):
    """The command line or the configuration is invalid."""

    exit_code = 2


class GateError(ActionableError):
    """A figure exceeds the limit that the user set for it."""

    exit_code = 1


class MachineError(ActionableError):
    """The machine lacks something that the run needs: a device that works, a library, or disk space."""

    exit_code = 3


class TrainingError(ActionableError):
    """The training failed: the loss is not finite, or a rank ended unexpectedly."""

    exit_code = 5


class OutOfMemoryError(TrainingError):
    """A batch does not fit into the memory of a device."""


class InterruptedRunError(ActionableError):
    """The run was interrupted."""

    exit_code = INTERRUPTED_EXIT_CODE


class InvariantError(ActionableError):
    """A number contradicts its definition. That is an error in the harness, so nothing is recorded."""
