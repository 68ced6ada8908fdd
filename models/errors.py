"""Errors that a person can act on: the base of all of the project's, and the one that a file of weights raises."""


class ActionableError(Exception):
    """Something is wrong that the user can mend.

    message says what is wrong, with the value and the limit; cure says what to do next. Either may hold several lines.
    exit_code is what run_bench.py ends with.
    """

    exit_code = 1

    def __init__(self, message: str, cure: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure


class WeightsError(ActionableError):
    """A file of weights can't be used as asked."""

    exit_code = 4
