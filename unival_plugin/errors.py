"""Errors a user can cause.

Every message is one line: what is wrong, where (``file:row, column``), what to do about it.
"""


class UnivalError(ValueError):
    """Root of all errors that a user's input can cause."""


class DataError(UnivalError):
    """A row, picture, sound, film or text file cannot be used."""


class CheckpointError(UnivalError):
    """A checkpoint cannot be read, does not fit the model or asks for unsafe loading."""


class ConfigError(UnivalError):
    """A flag, a combination of flags or a file that a flag names is wrong or missing."""
