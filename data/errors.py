"""Errors that a person can act on. The command lines print their text alone, without a stack trace.

ProjectError
├── ConfigError   a key or value of the configuration
├── DataError     the pictures, masks or annotation files
├── TrainingError the training cannot go on: it diverged, its checkpoint is damaged
└── WorkspaceError   the workspace: locked, unwritable, nothing pushed yet
"""


class ProjectError(Exception):
    """Base of every error whose text names the thing, the place, the value and what is allowed."""


class ConfigError(ProjectError):
    """A configuration key or value is wrong."""


class DataError(ProjectError):
    """The dataset cannot be used as it is."""


class TrainingError(ProjectError):
    """The training cannot go on."""


class WorkspaceError(ProjectError):
    """The workspace cannot be used as it is."""
