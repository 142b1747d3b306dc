"""Errors that a person can act on. The command lines print their text alone, without a stack trace.

ProjectError
├── ConfigError   a key or value of the configuration
├── DataError     the images, masks or annotation files
│   └── IncompleteDataError   they are still being copied, or changed while they were read
├── TrainingError the training cannot continue: it diverged, its checkpoint is damaged
├── MetadataError the ML Metadata store cannot be opened
└── WorkspaceError   the workspace: unwritable, nothing pushed yet
    └── WorkspaceBusy   another run is under way, or something else changed what is served
"""

import errno

#: Exit status of a command that failed with a transient error; another try may succeed. EX_TEMPFAIL of sysexits.h.
TEMPORARY = 75

#: Errors of the disk and of access rights, which are not faults of the program: transient and lasting ones.
_TRANSIENT = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
_LASTING = {errno.EROFS, errno.EACCES, errno.EPERM}


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
    """The training cannot continue."""


class MetadataError(ProjectError):
    """The ML Metadata store cannot be opened; another try may help."""

    transient = True


class WorkspaceError(ProjectError):
    """The workspace cannot be used as it is."""


class WorkspaceBusy(WorkspaceError):
    """Another process works in the workspace, or has changed it in the meantime; another try may help."""

    transient = True


def is_transient(error: BaseException) -> bool:
    """Whether another try may succeed."""
    return (
        error.errno in _TRANSIENT if isinstance(error, OSError) else isinstance(error, ProjectError) and error.transient
    )


def explain(error: BaseException) -> str:
    """The text for a person who can act on the error; empty for a fault of the program, which needs a stack trace."""
    if isinstance(error, OSError) and error.errno in _TRANSIENT | _LASTING:
        return f"{error.strerror}" if error.filename is None else f"{error.filename}: {error.strerror}"
    return shortened(str(error), 20_000) if isinstance(error, ProjectError) else ""


def shortened(text: str, limit: int = 100) -> str:
    """A text for an error message: where it is long, its beginning and its length."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def exit_status(error: BaseException) -> int:
    """The exit status of a command that failed: `TEMPORARY` after a transient error, 1 after any other."""
    return TEMPORARY if is_transient(error) else 1
