"""Events: what whoever watches over the schedule is told."""

from datetime import UTC, datetime
from typing import Literal
from uuid import uuid4

from pydantic import BaseModel, Field

from components.serving_directory import published, served
from data.errors import WorkspaceError
from pipeline.schedule.state import ScheduledRun
from pipeline.summary import Failure

Kind = Literal["pushed", "refused", "failed", "recovered"]


class Event(BaseModel):
    """The body of a notice, as JSON. Fields may be added; none changes its meaning."""

    schema_version: int = 1
    id: str = Field(default_factory=lambda: uuid4().hex)
    """Equal in every delivery of the same event."""
    kind: Kind
    """'pushed': a new version is served; 'refused': the model was not good enough; 'failed': the run did not come to
    an end, repetitions included; 'recovered': the first run that did so after one that had failed."""
    time: datetime = Field(default_factory=lambda: datetime.now(UTC))
    pipeline: str
    model: str
    run_id: str | None
    version: int | None
    """That was pushed."""
    mean_iou: float | None
    """Of the candidate, on the test split."""
    reasons: list[str]
    failure: Failure | None
    attempts: int
    seconds: float | None


def events_of(run: ScheduledRun, before: ScheduledRun | None, pipeline: str, model: str) -> list[Event]:
    """What is to be told of a run that ended.

    Args:
        run: Ended.
        before: The last run before it that succeeded or failed.
        pipeline: Its name.
        model: The name that it is pushed under.
    """
    kinds: list[Kind] = []
    if run.succeeded and before is not None and before.result == "failed":
        kinds.append("recovered")
    if run.version is not None:
        kinds.append("pushed")
    if run.result == "refused" or run.result == "failed":  # noqa: PLR1714  # mypy narrows
        kinds.append(run.result)
    fields = run.model_dump(include={"run_id", "version", "mean_iou", "reasons", "failure", "attempts", "seconds"})
    # Where another run pushed, this one's candidate, and its score, are not what was pushed.
    apart = {"pushed": {"mean_iou": None}, "refused": {"version": None}, "failed": {"version": None}}
    if run.result == "pushed":
        apart = {}
    return [Event(kind=kind, pipeline=pipeline, model=model, **{**fields, **apart.get(kind, {})}) for kind in kinds]


def pushed_version(serving: str) -> int | None:
    """The newest version that a run pushed, not a rollback; None also where a record is damaged."""
    try:
        return max((found.version for found in published(serving) if found.record.rollback_of is None), default=None)
    except WorkspaceError:
        return None


def served_version(serving: str) -> int | None:
    """The version being served; None also where its record is damaged, which must hide nothing else."""
    try:
        version = served(serving)
    except WorkspaceError:
        return None
    return version.version if version else None
