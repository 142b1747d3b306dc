"""The sections of a workspace: ML Metadata, retention of earlier runs, reports and model cards."""

from typing import Literal

from pydantic import Field

from data.section import MOST, Section


class MetadataConfig(Section):
    """Where the local runner stores ML Metadata. Kubeflow has its own.

    The password of a MySQL server is not part of the configuration: it is read from DEEPLAB_METADATA_PASSWORD.
    """

    backend: Literal["sqlite", "mysql"] = "sqlite"
    """'sqlite' is a file in the workspace, for one host; 'mysql' is a MySQL or MariaDB server, for several hosts."""
    host: str = Field(default="127.0.0.1", min_length=1)
    """Host name or address of the server."""
    port: int = Field(default=3306, ge=1, le=65535)
    """TCP port of the server."""
    database: str = Field(default="mlmd", pattern=r"^[A-Za-z0-9_]+$", max_length=64)
    """Database on the server; created if it does not exist and the user has the permission."""
    user: str = Field(default="deeplab", min_length=1)
    """User name on the server."""


class RetentionConfig(Section):
    """What is kept of earlier runs in the workspace of the local runner.

    Everything from which a version that is served, kept or pinned was made is always kept, and so is what the next run
    may take from the cache.
    """

    keep_runs: int = Field(default=20, ge=1, le=MOST)
    """Number of the newest runs whose records, logs and artifacts are kept. As many trainings are kept: unfinished ones
    and each pipeline's newest finished one, from which the model is exported again after a change of section
    `inference`."""
    keep_days: float | None = Field(default=None, gt=0, le=36_500)
    """Age in days after which even these runs are removed, except for the newest one; null for no limit."""
    keep_backups: int = Field(default=3, ge=1, le=MOST)
    """Number of backups of the SQLite metadata; each successful run makes one."""


class CardConfig(Section):
    """Statements of the model card that cannot be derived from a run."""

    intended_use: str = ""
    """What the model is intended for."""
    out_of_scope: str = ""
    """What it must not be used for."""
    limits: tuple[str, ...] = ()
    """Known limits, in addition to those that the scores show."""
    contact: str = ""
    """Contact for questions about the model."""


class ReportConfig(Section):
    """Contents of the report of a run."""

    pictures: bool = True
    """Whether the report contains test images with their labels and predictions."""
