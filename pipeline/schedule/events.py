"""The events about which the schedule sends notifications."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal
from uuid import uuid4

from pydantic import BaseModel, Field

from components.publishing.directory import published, served
from data.errors import WorkspaceError
from pipeline.records.summary import Failure
from pipeline.schedule.state import ScheduledRun

Kind = Literal["pushed", "refused", "failed", "recovered"]


class Event(BaseModel):
    """The body of a notification, as JSON. Fields may be added; existing ones keep their meaning."""

    schema_version: int = 1
    id: str = Field(default_factory=lambda: uuid4().hex)
    """Unique id, the same in every delivery of the same event."""
    kind: Kind
    """'pushed': a new version is served; 'refused': the model did not pass evaluation; 'failed': the run failed,
    retries included; 'recovered': the first run that succeeded after one that had failed."""
    time: datetime = Field(default_factory=lambda: datetime.now(UTC))
    pipeline: str
    model: str
    run_id: str | None
    version: int | None
    """The version that was pushed; None if there is none."""
    mean_iou: float | None
    """Mean IoU of the candidate on the test split; None if unknown."""
    reasons: list[str]
    failure: Failure | None
    attempts: int
    seconds: float | None


def events_of(
    run: ScheduledRun, before: ScheduledRun | None, unseen: Sequence[int], pipeline: str, model: str
) -> list[Event]:
    """The events of a run that has ended.

    Args:
        run: The run, which has ended.
        before: The last run before it that succeeded or failed.
        unseen: Versions not reported yet that other runs pushed, lowest first.
        pipeline: Name of the pipeline.
        model: Name under which its model is pushed.
    """
    fields = run.model_dump(include={"run_id", "version", "mean_iou", "reasons", "failure", "attempts", "seconds"})

    def event(kind: Kind, **apart: float | None) -> Event:
        return Event(kind=kind, pipeline=pipeline, model=model, **{**fields, **apart})

    events = []
    if run.succeeded and before is not None and before.result == "failed":
        events.append(event("recovered"))
    for version in sorted({*unseen, *([] if run.version is None else [run.version])}):
        # This run does not know the score of a version that another run pushed, unless both made the same model.
        known = run.result == "pushed" and version == run.version
        events.append(event("pushed", version=version, mean_iou=run.mean_iou if known else None))
    if run.result == "refused" or run.result == "failed":  # noqa: PLR1714  # mypy narrows
        events.append(event(run.result, version=None))
    return events


def pushed_versions(serving: str) -> list[int]:
    """The versions pushed by runs, not by rollbacks, lowest first; without those whose record is damaged."""
    return sorted(found.version for found in published(serving) if found.record.rollback_of is None)


def served_version(serving: str) -> int | None:
    """The version being served; None also if its record is damaged, which must not hide other results."""
    try:
        version = served(serving)
    except WorkspaceError:
        return None
    return version.version if version else None
