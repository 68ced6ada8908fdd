"""The one error that a file of weights raises: what is wrong with it, and what to do about it."""


class WeightsError(Exception):
    """A file of weights can't be used as asked.

    message says what is wrong, with the value and the limit; cure says what to do next. Either may hold several lines.
    """

    def __init__(self, message: str, cure: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure
