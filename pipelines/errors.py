"""The errors of data sets and of what decodes them: what is wrong, and what to do about it."""

from models.errors import ActionableError


class DataError(ActionableError):
    """The data can't be used as asked."""

    exit_code = 4


class CacheFolderError(DataError):
    """The machine has no folder in which a built-in data set can be kept."""

    exit_code = 3


class DecoderError(ActionableError):
    """The decoder fails on images that nothing is wrong with, so that the machine or its libraries are at fault."""

    exit_code = 3


class LoaderError(ActionableError):
    """What loads images can't be used on this machine, or one of its processes ended."""

    exit_code = 3


class StorageError(ActionableError):
    """The storage that the images are on can't be read, so that nothing is known about the images themselves."""

    exit_code = 3
