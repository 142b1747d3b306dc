"""Events: what whoever watches over the schedule is told."""

from datetime import UTC, datetime
from typing import Literal
from uuid import uuid4

from pydantic import BaseModel, Field

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
    if run.result == "pushed" or run.result == "refused" or run.result == "failed":  # noqa: PLR1714  # mypy narrows
        kinds.append(run.result)
    fields = run.model_dump(include={"run_id", "version", "mean_iou", "reasons", "failure", "attempts", "seconds"})
    return [Event(kind=kind, pipeline=pipeline, model=model, **fields) for kind in kinds]
