"""A run on a Kubeflow Pipelines server: what it consists of, how it starts, and how it is followed to its end."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import kfp_server_api as api

from data.errors import ProjectError
from pipeline.kubeflow.client import Server, ServerUnavailable
from pipeline.kubeflow.compiled_pipeline import CompiledPipeline

_State = api.V2beta1RuntimeState
ENDED = frozenset({_State.SUCCEEDED, _State.SKIPPED, _State.FAILED, _State.CANCELED})


@dataclass(frozen=True)
class Submission:
    """A pipeline as a run or a recurring run gets it."""

    pipeline: CompiledPipeline
    experiment: str
    name: str
    """Name of the run or recurring run, as people see it."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """A value for every parameter of the pipeline."""
    service_account: str = ""
    """Kubernetes service account of the run's pods; empty is the server's."""

    def fields(self, server: Server) -> dict[str, Any]:
        """The fields that a run and a recurring run have in common. The experiment is created if there is none.

        The server reads where artifacts are stored from the run alone, never from the spec's `defaultPipelineRoot`
        (`rootDAG` of kubeflow/pipelines `backend/src/v2/driver/root_dag.go`).
        """
        root = self.pipeline.spec.get("defaultPipelineRoot")
        return {
            "experiment_id": server.experiment(self.experiment),
            "display_name": self.name,
            "pipeline_spec": self.pipeline.document,
            "runtime_config": api.V2beta1RuntimeConfig(parameters=self.parameters, pipeline_root=root),
            "service_account": self.service_account or None,
        }


class RunUnfinished(ProjectError):
    """The time to wait is over, and the run has not ended."""


@dataclass(frozen=True)
class Patience:
    """How a run is followed. Times are in seconds."""

    limit: float | None = None
    """The longest wait for the run's end; None for no limit."""
    poll: float = 10.0
    """Time between two requests for the run's state."""
    outage: float = 600.0
    """How long the server may be unavailable, as during an upgrade: the run does not depend on it."""


def start(server: Server, submission: Submission) -> api.V2beta1Run:
    """Starts a run."""
    run = api.V2beta1Run(**submission.fields(server))
    try:
        return server.create_run(run)
    except ServerUnavailable as error:
        raise ServerUnavailable(
            f"{error}\nthe run {submission.name!r} may have started nevertheless; before you submit it again, look at "
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
        RunUnfinished: It has not ended after `patience.limit`.
        ServerError: The server is unavailable for longer than `patience.outage`, or refuses to answer.
    """
    answered = time.monotonic()
    deadline = math.inf if patience.limit is None else answered + patience.limit
    state = None
    while True:
        try:
            run = server.get_run(run_id)
        except ServerUnavailable:
            if time.monotonic() >= answered + patience.outage:
                raise
        else:
            answered = time.monotonic()
            if run.state != state:
                state = run.state
                show(state or "unknown")
            if state in ENDED:
                return run
        now = time.monotonic()
        if now >= deadline:
            raise RunUnfinished(
                f"run {run_id}: {state or 'no answer'} after {patience.limit:g} s of waiting; it has not ended: "
                f"{server.connection.link('runs', run_id)}"
            )
        time.sleep(min(patience.poll, deadline - now))


def failures(run: api.V2beta1Run) -> list[str]:
    """Why a run failed: the run's own error, then each failed task's."""
    lines = [run.error.message] if run.error and run.error.message else []
    tasks = (run.run_details.task_details if run.run_details else None) or []
    for task in tasks:
        if task.state == _State.FAILED:
            message = task.error.message if task.error and task.error.message else "no message; its log says more"
            lines.append(f"{task.display_name}: {message}")
    return lines
