"""Errors that a person can act on. The command lines print their text alone, without a stack trace.

ProjectError
├── ConfigError   a key or value of the configuration
├── DataError     the pictures, masks or annotation files
│   └── IncompleteDataError   they are still being copied, or changed while they were read
├── TrainingError the training cannot go on: it diverged, its checkpoint is damaged
├── MetadataError the ML Metadata store cannot be opened
└── WorkspaceError   the workspace: unwritable, nothing pushed yet
    └── WorkspaceBusy   another run is under way, or something else changed what is served
"""

#: Exit status of a command whose failure another try may heal: EX_TEMPFAIL of sysexits.h.
TEMPORARY = 75


class ProjectError(Exception):
    """Base of every error whose text names the thing, the place, the value and what is allowed."""

    transient: bool = False
    """Whether the same, tried again later, may succeed."""


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
