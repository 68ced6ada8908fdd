"""The error that data sets raise: what is wrong, and what to do about it."""

from models.errors import ActionableError


class DataError(ActionableError):
    """The data can't be used as asked."""

    exit_code = 4
