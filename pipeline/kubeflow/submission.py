"""A run on a Kubeflow Pipelines server: what it is made of, how it starts, and how it is followed to its end."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import kfp_server_api as api

from data.errors import ConfigError, ProjectError
from pipeline.kubeflow.client import Server, ServerUnavailable
from pipeline.kubeflow.document import CompiledPipeline

_State = api.V2beta1RuntimeState
ENDED = frozenset({_State.SUCCEEDED, _State.SKIPPED, _State.FAILED, _State.CANCELED})


def _json_of(kind: type) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        value = json.loads(text)
        if not isinstance(value, kind):
            raise TypeError(f"no JSON {kind.__name__}")
        return value

    return convert


_CONVERTERS: dict[str, Callable[[str], Any]] = {
    "STRING": str,
    "NUMBER_INTEGER": int,
    "NUMBER_DOUBLE": float,
    "BOOLEAN": _json_of(bool),
    "LIST": _json_of(list),
    "STRUCT": _json_of(dict),
}


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

    @property
    def document(self) -> dict[str, Any]:
        """Both documents in one, which the server splits again (`pipelineSpecStructToYamlString` of
        kubeflow/pipelines `backend/src/apiserver/server/api_util.go`).
        """
        if not self.pipeline.platforms:
            return self.pipeline.spec
        return {"pipeline_spec": self.pipeline.spec, "platform_spec": self.pipeline.platforms}

    @property
    def pipeline_root(self) -> str | None:
        """Where artifacts go. The server reads it from the run alone, never from the spec's `defaultPipelineRoot`
        (`rootDAG` of kubeflow/pipelines `backend/src/v2/driver/root_dag.go`).
        """
        root: str | None = self.pipeline.spec.get("defaultPipelineRoot")
        return root


def pipeline_name(pipeline: CompiledPipeline) -> str:
    """The name that the pipeline was compiled under."""
    try:
        name = pipeline.spec["pipelineInfo"]["name"]
    except (KeyError, TypeError):
        name = None
    if not isinstance(name, str):
        raise ConfigError(
            "the compiled pipeline has no pipelineInfo.name; allowed: what `kubeflow_runner.py compile` writes"
        )
    return name


def run_parameters(pipeline: CompiledPipeline, overrides: Sequence[str]) -> dict[str, Any]:
    """A value for every parameter: the default, or what `name=value` says.

    The server fills in defaults for runs, but a recurring run had better not depend on that: each value is passed.

    Raises:
        ConfigError: A parameter is unknown, has no value, or one of another type.
    """
    declared = pipeline.spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    values = {name: definition["defaultValue"] for name, definition in declared.items() if "defaultValue" in definition}
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"--set {override}: must look like parameter=value")
        if name not in declared:
            raise ConfigError(f"--set {override}: the pipeline has no parameter {name}{_suggestion(name, declared)}")
        values[name] = _converted(override, declared[name].get("parameterType"), text)
    missing = [name for name, definition in declared.items() if name not in values and not definition.get("isOptional")]
    if missing:
        raise ConfigError(f"parameters without a value: {', '.join(missing)}; give each with --set parameter=value")
    return values


def _converted(override: str, kind: str, text: str) -> Any:
    try:
        value = _CONVERTERS[kind](text)
        json.dumps(value, allow_nan=False)  # the server speaks JSON, which has no infinities
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"--set {override}: {text!r} is not of type {kind}") from None
    return value


def _suggestion(name: str, declared: Mapping[str, Any]) -> str:
    near = get_close_matches(name, declared, n=1)
    return f"; did you mean {near[0]}?" if near else f"; allowed: {', '.join(declared) or 'none'}"


def service_account_of(pipeline: CompiledPipeline) -> str:
    """The service account of `kubeflow.service_account`, which the platform document carries; empty if none."""
    settings = pipeline.platforms.get("platforms", {}).get("kubernetes", {}).get("config", {})
    return str(settings.get("serviceAccount", ""))


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
