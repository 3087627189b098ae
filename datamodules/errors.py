"""Errors that a user can cause: one sentence that says what is wrong, where, which key set it, and how to mend it."""


class UserError(Exception):
    """A mistake that the user can mend; the command line prints its text alone, without a traceback."""


class ConfigError(UserError, ValueError):
    """A key of the config has a value that cannot work."""


class MissingPathError(UserError, FileNotFoundError):
    """A file or folder that a key of the config names is not there."""


class AnnotationError(UserError, ValueError):
    """An annotation file contradicts itself, its images or the class vocabulary."""


class UnreadableImageError(UserError, OSError):
    """More images than the config allows could not be read."""
