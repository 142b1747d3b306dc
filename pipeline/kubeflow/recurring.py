"""Schedules: recurring runs of a Kubeflow Pipelines server, found by experiment and name.

The server cannot change a recurring run, so a new one replaces the old one:

1. create the new one, disabled      the old one is enabled
2. disable the old ones              none is enabled
3. enable the new one                the new one is enabled
4. delete the old ones

Two are never enabled at the same time. There is one request between 2 and 3; a scheduled time in between does not lose
a run, because a recurring run counts from its creation and makes up for the latest time missed
(kubeflow/pipelines `backend/src/crd/controller/scheduledworkflow/util/cron_schedule.go`). For the same reason, at a
scheduled time between 1 and 2 both start a run.

When 2 or 3 fails, the new one is deleted, and the old one is enabled again only when the new one is known to be
deleted: a request without an answer may have been carried out. If that fails too, the error reports it, and running the
same command again ends with exactly one enabled, from whatever state: it needs only the server's list. Old ones are
disabled even if the list shows them as disabled, because the server changes its list last (`ChangeJobMode` of
`backend/src/apiserver/resource/resource_manager.go`). The server has no lock, so two users may replace the same
schedule at the same moment; one more replacement leaves a single one.
"""

from dataclasses import dataclass
from typing import NoReturn

import kfp_server_api as api

from data.errors import ProjectError
from pipeline.cron import server_cron
from pipeline.kubeflow.client import Server, ServerError
from pipeline.kubeflow.submission import Submission

ENABLED = api.RecurringRunMode.ENABLE


class ScheduleError(ProjectError):
    """A schedule is missing, exists already, or could not be brought into the requested state."""


@dataclass(frozen=True)
class ScheduleKey:
    """What identifies a schedule: experiment and name."""

    experiment: str
    name: str

    def __str__(self) -> str:
        return f"schedule {self.name!r} of experiment {self.experiment!r}"


def find(server: Server, key: ScheduleKey) -> list[api.V2beta1RecurringRun]:
    """The recurring runs of a schedule, oldest first. There are several after a replacement was interrupted."""
    experiment = server.find_experiment(key.experiment)
    return server.recurring_runs(experiment, key.name) if experiment else []


def require(server: Server, key: ScheduleKey) -> list[api.V2beta1RecurringRun]:
    """As `find`, but raises ScheduleError if there is none."""
    found = find(server, key)
    if not found:
        raise ScheduleError(f"{key}: does not exist on {server.connection.host}")
    return found


def create(server: Server, submission: Submission, cron: str) -> api.V2beta1RecurringRun:
    """Creates a new schedule, enabled."""
    key = ScheduleKey(submission.experiment, submission.name)
    if find(server, key):
        raise ScheduleError(f"{key}: exists already; allowed: replace")
    return replace(server, submission, cron)


def replace(server: Server, submission: Submission, cron: str) -> api.V2beta1RecurringRun:
    """Creates a schedule, enabled, and replaces an existing one of the same name.

    Args:
        server: The server.
        submission: The submission of each run; `name` is the schedule's name.
        cron: A cron expression of five fields.
    """
    key = ScheduleKey(submission.experiment, submission.name)
    expression = server_cron(cron)
    recurring_run = api.V2beta1RecurringRun(
        **submission.fields(server),
        description=f"{cron} (minute, hour, day of month, month, day of week; the server's time zone)",
        trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=expression)),
        mode=api.RecurringRunMode.DISABLE,
        max_concurrency="1",
        no_catchup=True,
    )
    old = server.recurring_runs(recurring_run.experiment_id, submission.name)
    try:
        new = server.create_recurring_run(recurring_run)
    except ServerError as error:
        raise ScheduleError(f"{key}: not created; what existed is unchanged\n{error}") from None
    try:
        for each in old:
            server.disable(each.recurring_run_id)
        server.enable(new.recurring_run_id)
    except (ServerError, KeyboardInterrupt) as error:
        _restore(server, key, new, old, str(error) or "interrupted")
    try:
        for each in old:
            server.delete(each.recurring_run_id)
    except ServerError as error:
        raise ScheduleError(
            f"the new schedule {new.recurring_run_id} is enabled, but an old one is still listed, disabled; run the "
            f"same command again to delete it\n{error}"
        ) from None
    return new


def _restore(
    server: Server, key: ScheduleKey, new: api.V2beta1RecurringRun, old: list[api.V2beta1RecurringRun], reason: str
) -> NoReturn:
    """Undoes a failed replacement, and raises the error."""
    enabled = [each for each in old if each.mode == ENABLED]
    try:
        server.delete(new.recurring_run_id)
        for each in enabled[-1:]:
            server.enable(each.recurring_run_id)
    except ServerError as second:
        raise ScheduleError(
            f"{key}: not replaced, and the old state could not be restored, so that possibly none is enabled now; "
            f"run the same command again when the server answers\n{reason}\n{second}"
        ) from None
    state = "the old one is enabled" if enabled else "none is enabled, as before"
    raise ScheduleError(f"{key}: not replaced; {state}\n{reason}") from None


def pause(server: Server, key: ScheduleKey) -> None:
    """Disables a schedule; active runs continue."""
    for each in require(server, key):
        server.disable(each.recurring_run_id)


def resume(server: Server, key: ScheduleKey) -> None:
    """Enables a schedule. If there are several recurring runs, only the enabled one, or else the newest, is enabled.

    If a scheduled time passed while it was paused, the server starts one run at once.
    """
    found = require(server, key)
    kept = [each for each in found if each.mode == ENABLED] or found
    for each in found:
        if each is not kept[-1]:
            server.disable(each.recurring_run_id)
    server.enable(kept[-1].recurring_run_id)


def delete(server: Server, key: ScheduleKey) -> None:
    """Deletes a schedule; its runs are kept."""
    for each in require(server, key):
        server.delete(each.recurring_run_id)
