"""Errors that a person can act on: the base class of all of them, and the error of files of weights."""


class ActionableError(Exception):
    """Something is wrong that the user can correct.

    message says what is wrong, with the value and the limit; cure says what to do next. Either may hold several lines.
    exit_code is the exit code of run_bench.py.
    """

    exit_code = 1

    def __init__(self, message: str, cure: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure


class WeightsError(ActionableError):
    """A file of weights can't be used as asked."""

    exit_code = 4
