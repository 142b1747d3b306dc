"""Errors that a person can act on. The command lines print their text alone, without a stack trace.

ProjectError
├── ConfigError   a key or value of the configuration
├── DataError     the images, masks or annotation files
│   └── IncompleteDataError   they are still being copied, or changed while they were read
├── TrainingError the training cannot go on: it diverged, its checkpoint is damaged
├── MetadataError the ML Metadata store cannot be opened
└── WorkspaceError   the workspace: unwritable, nothing pushed yet
    └── WorkspaceBusy   another run is under way, or something else changed what is served
"""

import errno

#: Exit status of a command that failed with a transient error; another try may succeed. EX_TEMPFAIL of sysexits.h.
TEMPORARY = 75

#: Of the disk and its owner, no fault of the program: what may pass, and what stays.
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
_STAYING = {errno.EROFS, errno.EACCES, errno.EPERM}


class ProjectError(Exception):
    """Base of every error whose text names the thing, the place, the value and what is allowed."""

    transient: bool = False
    """Whether another try may succeed."""


class ConfigError(ProjectError):
    """A configuration key or value is wrong."""


class DataError(ProjectError):
    """The dataset cannot be used as it is."""


class IncompleteDataError(DataError):
    """The dataset is still being copied, or changed while it was read; another try may help."""

    transient = True


class TrainingError(ProjectError):
    """The training cannot go on."""


class MetadataError(ProjectError):
    """The ML Metadata store cannot be opened; another try may help."""

    transient = True


class WorkspaceError(ProjectError):
    """The workspace cannot be used as it is."""


class WorkspaceBusy(WorkspaceError):
    """Something else is at work in the workspace, or was meanwhile; another try may help."""

    transient = True


def is_transient(error: BaseException) -> bool:
    """Whether the same, tried again later, may succeed."""
    return (
        error.errno in _PASSING if isinstance(error, OSError) else isinstance(error, ProjectError) and error.transient
    )


def explain(error: BaseException) -> str:
    """What is wrong, for a person who can act on it; empty for a fault of the program, whose stack trace counts."""
    if isinstance(error, OSError) and error.errno in _PASSING | _STAYING:
        return f"{error.strerror}" if error.filename is None else f"{error.filename}: {error.strerror}"
    return str(error) if isinstance(error, ProjectError) else ""


def exit_status(error: BaseException) -> int:
    """How a command ends that met an error which it can explain: `TEMPORARY`, or 1 for an error that stays."""
    return TEMPORARY if is_transient(error) else 1
