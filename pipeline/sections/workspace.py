"""What a workspace keeps: ML Metadata, earlier runs, and what their reports and model cards show."""

from typing import Literal

from pydantic import Field

from data.section import Section


class MetadataConfig(Section):
    """Where the local runner keeps ML Metadata. Kubeflow brings its own.

    The password of a MySQL server is no part of the configuration: it is read from DEEPLAB_METADATA_PASSWORD.
    """

    backend: Literal["sqlite", "mysql"] = "sqlite"
    """'sqlite' is a file in the workspace, for one host; 'mysql' a server, MySQL or MariaDB, for several."""
    host: str = Field(default="127.0.0.1", min_length=1)
    """The server's name or address."""
    port: int = Field(default=3306, ge=1, le=65535)
    """The server's TCP port."""
    database: str = Field(default="mlmd", pattern=r"^[A-Za-z0-9_]+$", max_length=64)
    """The server's database; made if absent, where the user may make it."""
    user: str = Field(default="deeplab", min_length=1)
    """The account on the server."""


class RetentionConfig(Section):
    """What stays of earlier runs in the workspace of the local runner.

    What stands behind a version that is served, kept or pinned stays in any case, and so does what the next run may
    take from the cache.
    """

    keep_runs: int = Field(default=20, ge=1)
    """Runs whose records, logs and artifacts stay: the newest ones. As many trainings stay: unfinished ones and, of
    each pipeline, the newest finished one, from which a change of section `inference` exports anew."""
    keep_days: float | None = Field(default=None, gt=0)
    """Runs that ended longer ago go even if they are among those, but for the newest; null: at any age they stay."""
    keep_backups: int = Field(default=3, ge=1)
    """Backups of the SQLite metadata; each run that succeeds makes one."""


class CardConfig(Section):
    """What the model card says that no run can find out."""

    intended_use: str = ""
    """What the model is for."""
    out_of_scope: str = ""
    """What it must not be used for."""
    limits: tuple[str, ...] = ()
    """Known weaknesses, beside those that the scores show."""
    contact: str = ""
    """Who answers questions about the model."""


class ReportConfig(Section):
    """What the report of a run may show."""

    pictures: bool = True
    """Whether test images are in it, beside label and prediction."""
