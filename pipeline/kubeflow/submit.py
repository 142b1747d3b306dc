"""One run on a Kubeflow Pipelines server: start it, follow it to its end."""

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
    """The time to wait is over, and the run goes on."""


@dataclass(frozen=True)
class Patience:
    """How a run is followed. Times are in seconds."""

    limit: float | None = None
    """The longest wait for its end; None is for ever."""
    poll: float = 10.0
    """Between two looks."""
    outage: float = 600.0
    """How long the server may be away, as during an upgrade: the run does not depend on it."""


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
        server: Where it runs.
        run_id: As `start` gave it.
        patience: How long, and how often to look.
        show: Called with each new state.

    Raises:
        RunUnfinished: It goes on after `patience.limit`.
        ServerError: The server is away for longer than `patience.outage`, or refuses to answer.
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
    """The run as it stands; None if the server is away, which it may be `until` a time."""
    try:
        return server.get_run(run_id)
    except ServerUnavailable:
        if time.monotonic() >= until:
            raise
        return None


def failures(run: api.V2beta1Run) -> list[str]:
    """Why a run failed: the run's own error, then each failed task's."""
    lines = [run.error.message] if run.error and run.error.message else []
    tasks = (run.run_details.task_details if run.run_details else None) or []
    for task in tasks:
        if task.state == _State.FAILED:
            message = task.error.message if task.error and task.error.message else "no message; its log says more"
            lines.append(f"{task.display_name}: {message}")
    return lines
