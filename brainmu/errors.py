"""The errors of brainmu. Each is also the builtin a caller would expect to catch.

A message says what was done, what came, what was expected and the fix, in that order, on one line:
``LFP clock drifts 41 ms over 3.2 h against the TTL (limit 5 ms): pass --clock ttl, or raise --max-drift``.
"""

from __future__ import annotations

import errno

__all__ = [
    "DISK_REASONS",
    "BrainmuError",
    "CheckpointError",
    "ConfigError",
    "DesignError",
    "FetchError",
    "FormatError",
    "InputError",
    "MissingDataError",
    "NotFoundError",
    "OutputExistsError",
    "StoreError",
    "UsageError",
]

DISK_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EEXIST: "a file lies where a folder should be",
    errno.ENOTDIR: "a file lies where a folder should be",
    errno.ENOENT: "its folder is gone",
    errno.ENAMETOOLONG: "its name is too long",
}
"""What it means, for people, that the operating system refuses to write, by ``OSError.errno``."""


class BrainmuError(Exception):
    """Any failure that brainmu understands: a one-line message with the cause and the fix."""


class InputError(BrainmuError, ValueError):
    """A value handed to brainmu cannot be right (shape, unit, range, order, NaN)."""


class FormatError(BrainmuError, ValueError):
    """A file is unreadable, truncated, mis-declared or of an unknown format."""


class NotFoundError(BrainmuError, FileNotFoundError):
    """A file, folder, label, channel or named resource does not exist."""

    # FileNotFoundError prints errno noise unless told otherwise.
    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class OutputExistsError(BrainmuError, FileExistsError):
    """The output exists and is something else than what would be written."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class MissingDataError(BrainmuError, LookupError):
    """A recording lacks the modality, label or coverage that an analysis needs."""


class StoreError(BrainmuError, OSError):
    """A store is corrupt, incomplete, locked or cannot be written."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class FetchError(BrainmuError, OSError):
    """A download failed, or what came is not what the archive says it is."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class CheckpointError(BrainmuError, ValueError):
    """A checkpoint does not fit the model it is loaded into."""


class ConfigError(BrainmuError, ValueError):
    """A configuration file or manifest holds an unknown key or a wrong value."""


class DesignError(BrainmuError, ValueError):
    """A causal question cannot be answered with the data or design that was given."""


class UsageError(BrainmuError, ValueError):
    """A command was called in a way that cannot work (exit code 2)."""
