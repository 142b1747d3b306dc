"""One run of the schedule: wait for other runs, run, retry transient errors, record the result, notify."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_result,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_exponential,
)

from components.publishing.directory import published
from data.errors import ProjectError
from pipeline.config import Config
from pipeline.metadata.lease import holder
from pipeline.records.status import recorded
from pipeline.records.summary import FailureRecord, RunSummary
from pipeline.schedule.notifications import ScheduleEvent, events_of
from pipeline.schedule.process import ProcessResult, RunProcess
from pipeline.schedule.state import KEPT, RunCause, RunResult, ScheduledRun, ScheduleState
from pipeline.schedule.watch import input_state
from pipeline.sections.schedule import LONGEST_BACKOFF
from pipeline.stages import Stage
from pipeline.workspace import Workspace

_POLL = 5.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retraining:
    """Runs the pipeline for the schedule."""

    config: Config
    workspace: Workspace
    state: ScheduleState
    process: RunProcess
    watched: bool
    """Whether the state records which inputs were handled."""
    announce: Callable[[ScheduleEvent], None]
    stop: threading.Event

    def begin(self, cause: RunCause) -> ScheduledRun:
        """Records that a run begins."""
        run = self.state.begin(cause, datetime.now(UTC))
        logger.info("run %d begins: %s", run.id, cause)
        return run

    def run(self, run: ScheduledRun) -> ScheduledRun:
        """Performs a run that was begun, from waiting to notification."""
        before = next((last for last in self.state.last(KEPT) if last.succeeded or last.result == "failed"), None)
        inputs = None
        if self._my_turn():
            clock = time.monotonic()
            changes, inputs = self._attempts()
            changes["seconds"] = round(time.monotonic() - clock, 3)
        else:
            changes = {"result": "interrupted" if self.stop.is_set() else "skipped"}
        run = run.model_copy(update={**changes, "ended": datetime.now(UTC)})
        announced = self.state.announced
        pushed = pushed_versions(str(self.workspace.serving / self.config.push.model_name))
        unseen = [v for v in pushed if announced is not None and v > announced and v != run.version]
        run = with_unseen(run, unseen)
        if inputs is not None and (run.succeeded or (run.result == "failed" and not run.transient)):
            self.state.handled = inputs
        self.state.end(run)
        logger.info("run %d ended: %s%s", run.id, run.result, f": {run.failure.message}" if run.failure else "")
        for event in events_of(run, before, unseen, self.config.name, self.config.push.model_name):
            self.announce(event)
        if run.version is not None:
            self.state.announced = max([run.version, *unseen])
        return run

    def due(self) -> str | None:
        """The state of the inputs of a run that would start now; None if a run has handled them.

        Raises:
            IncompleteDataError: The data are being copied.
        """
        found = input_state(self.config, self.workspace)
        return found if found != self.state.handled else None

    def _my_turn(self) -> bool:
        """Waits until no other run is in progress; returns False if that takes too long, or if the schedule stops."""
        deadline = time.monotonic() + self.config.schedule.busy_wait_seconds
        logged = ""
        while not self.stop.is_set():
            other = ""
            try:
                other = holder(self.workspace, self.config)
            except ProjectError as error:  # The run itself will report the error, and be retried.
                logger.warning("%s", error)
            if not other:
                return True
            if other != logged:
                logger.warning("%s is running; waiting", other)
                logged = other
            if time.monotonic() >= deadline:
                logger.warning("%s is still running after %.0f s", other, self.config.schedule.busy_wait_seconds)
                return False
            self.stop.wait(min(_POLL, max(deadline - time.monotonic(), 0)))
        return False

    def _attempts(self) -> tuple[dict[str, object], str | None]:
        """Runs the pipeline until it succeeds, fails for a lasting reason, or has no retries left.

        Returns:
            The record of the run, and the state of the last attempt's inputs if it is to be recorded as handled.
        """
        inputs: list[str | None] = []

        def attempt() -> ProcessResult:
            state = None
            if self.watched:
                with suppress(Exception):  # The run itself will report why the inputs cannot be read.
                    state = input_state(self.config, self.workspace)
            inputs.append(state)
            return self.process.run(len(inputs))

        section = self.config.schedule
        retrying = Retrying(
            retry=retry_if_result(lambda ending: ending.transient and not self.stop.is_set()),
            stop=stop_after_attempt(section.retries + 1) | stop_when_event_set(self.stop),
            wait=wait_exponential(multiplier=section.backoff_seconds, max=LONGEST_BACKOFF),
            sleep=sleep_using_event(self.stop),
            before_sleep=self._log_retry,
            retry_error_callback=lambda state: state.outcome and state.outcome.result(),
        )
        newest = self._newest_run()
        ending: ProcessResult = retrying(attempt)
        run_id = self._newest_run()
        summary = recorded(self.workspace.runs / str(run_id)) if run_id != newest else None
        changes: dict[str, object] = {
            "attempts": retrying.statistics["attempt_number"],
            "run_id": run_id if run_id != newest else None,
        }
        if summary is not None:
            changes |= {
                "version": summary.pushed_version if Stage.PUSHER not in summary.cached else None,
                "mean_iou": summary.metrics.mean_iou if summary.metrics else None,
                "images": summary.data.images if summary.data else {},
                "quarantined": summary.data.quarantined if summary.data else None,
                "reasons": summary.reasons,
            }
        if ending.status == 0:
            changes["result"] = result_of(summary)
        elif self.stop.is_set() or ending.status == 130:
            changes["result"] = "interrupted"
        else:
            failure = summary.failure if summary and summary.failure else None
            failure = failure or FailureRecord(stage=None, kind="fault", message=ending.error)
            changes |= {"result": "failed", "failure": failure, "transient": ending.transient}
        return changes, inputs[-1]

    def _log_retry(self, state: RetryCallState) -> None:
        ending = state.outcome.result() if state.outcome else None
        seconds = state.next_action.sleep if state.next_action else 0
        logger.warning("attempt %d failed: %s; next in %.0f s", state.attempt_number, ending and ending.error, seconds)

    def _newest_run(self) -> str | None:
        latest = self.workspace.runs / "latest"
        return latest.resolve().name if latest.exists() else None


def pushed_versions(serving: str) -> list[int]:
    """The versions pushed by runs, not by rollbacks, lowest first; without those whose record is damaged."""
    return sorted(found.version for found in published(serving) if found.record.rollback_of is None)


def result_of(summary: RunSummary | None) -> RunResult:
    """The result of a successful run.

    An evaluation or a push that was taken from the cache does not count as new.
    """
    if summary is None or summary.blessed is None:
        return "unchanged"
    if summary.pushed_version is not None and Stage.PUSHER not in summary.cached:
        return "pushed"
    new = Stage.TRAINER if summary.blessed else Stage.EVALUATOR
    return "unchanged" if summary.pushed_version is not None or new in summary.cached else "refused"


def with_unseen(run: ScheduledRun, versions: list[int]) -> ScheduledRun:
    """Adds to a run the versions that other runs pushed and that were not reported before its end.

    Such a run outlived a schedule that was killed, or was started manually.

    Args:
        run: The run, which has ended.
        versions: The versions that the other runs pushed, lowest first.
    """
    if not versions:
        return run
    result = "pushed" if run.result == "unchanged" else run.result
    reasons = [
        f"version {version} was pushed by a run that the schedule did not see to its end" for version in versions
    ]
    version = max(versions) if run.version is None else run.version
    return run.model_copy(update={"version": version, "result": result, "reasons": [*run.reasons, *reasons]})
