"""Starts one run on a Kubeflow Pipelines server, and follows it to its end."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import kfp_server_api as api

from data.errors import ProjectError
from pipeline.kubeflow.client import Server, ServerUnavailable
from pipeline.kubeflow.submission import Submission

_State = api.V2beta1RuntimeState
ENDED = frozenset({_State.SUCCEEDED, _State.SKIPPED, _State.FAILED, _State.CANCELED})


class RunUnfinished(ProjectError):
    """The waiting time is over, and the run continues."""


@dataclass(frozen=True)
class Patience:
    """How long and how often a run is polled. Times are in seconds."""

    limit: float | None = None
    """The longest wait for its end; None for no limit."""
    poll: float = 10.0
    """Interval between two polls."""
    outage: float = 600.0
    """How long the server may be unavailable, as during an upgrade, which does not affect the run."""


def start(server: Server, submission: Submission) -> api.V2beta1Run:
    """Starts a run."""
    run = api.V2beta1Run(
        experiment_id=server.experiment(submission.experiment),
        display_name=submission.name,
        pipeline_spec=submission.document,
        runtime_config=api.V2beta1RuntimeConfig(
            parameters=submission.parameters, pipeline_root=submission.pipeline_root
        ),
        service_account=submission.service_account or None,
    )
    try:
        return server.create_run(run)
    except ServerUnavailable as error:
        raise ServerUnavailable(
            f"{error}\nthe run {submission.name!r} may have started all the same; look before you submit it again: "
            f"{server.connection.host}/#/runs"
        ) from None


def follow(
    server: Server, run_id: str, patience: Patience, show: Callable[[str], None] = lambda state: None
) -> api.V2beta1Run:
    """Waits for the end of a run.

    Args:
        server: The server on which it runs.
        run_id: The id that `start` returned.
        patience: How long and how often to poll.
        show: Called with each new state.

    Raises:
        RunUnfinished: The run has not ended after `patience.limit`.
        ServerError: The server is unavailable for longer than `patience.outage`, or refuses the request.
    """
    seen = time.monotonic()
    deadline = math.inf if patience.limit is None else seen + patience.limit
    state = None
    while True:
        run = _look(server, run_id, until=seen + patience.outage)
        now = time.monotonic()
        if run is not None:
            seen = now
            if run.state != state:
                state = run.state
                show(state or "unknown")
            if state in ENDED:
                return run
        if now >= deadline:
            raise RunUnfinished(
                f"run {run_id}: {state or 'not seen'} after {patience.limit:g} s of waiting; it goes on: "
                f"{server.connection.link('runs', run_id)}"
            )
        time.sleep(min(patience.poll, deadline - now))


def _look(server: Server, run_id: str, until: float) -> api.V2beta1Run | None:
    """The current state of the run; None if the server is unavailable, which is tolerated `until` a time."""
    try:
        return server.get_run(run_id)
    except ServerUnavailable:
        if time.monotonic() >= until:
            raise
        return None


def failures(run: api.V2beta1Run) -> list[str]:
    """Why a run failed: the error of the run, then that of each failed task."""
    lines = [run.error.message] if run.error and run.error.message else []
    tasks = (run.run_details.task_details if run.run_details else None) or []
    for task in tasks:
        if task.state == _State.FAILED:
            message = task.error.message if task.error and task.error.message else "no message; its log says more"
            lines.append(f"{task.display_name}: {message}")
    return lines
