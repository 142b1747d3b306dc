"""The driver: walks through the tasks, resolves the inputs of each, and lets the launcher run those that are due.

Rules: v2/driver/container.go (`Container`), root_dag.go, resolve.go (`resolveInputs`), driver.go (`provisionOutputs`),
v2/metadata/client.go (`GetPipeline`, `GenerateOutputURI`), v2/compiler/argocompiler/dag.go and container.go: a task
runs if all tasks before it have succeeded. Argo Workflows 4.0.5, workflow/controller/dag.go: after a failure, tasks
that do not depend on it continue.

Not simulated: tasks side by side (they run one after another, in an order that the server might choose too); waiting
between retries; retries of the driver; pods that are lost rather than fail (Argo does not retry these); deadlines.
"""

import copy
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from data.errors import ProjectError
from pipeline.kubeflow.document import CompiledPipeline
from pipeline.kubeflow.mounts import EXECUTOR_LOGS, Mounts
from pipeline.kubeflow.parameters import RUN_ID
from pipeline.kubeflow.rules import check_spec, executors, has_type, predecessors
from pipeline.kubeflow.simulation.cache import Records, fingerprint
from pipeline.kubeflow.simulation.launcher import (
    Attempt,
    ExecutorInput,
    ObjectStore,
    Outputs,
    StepFailed,
    launch,
    secret_variables,
    whole_numbers,
)
from pipeline.kubeflow.submission import run_parameters

SUCCEEDED, CACHED, FAILED = "succeeded", "cached", "failed"
OMITTED = "omitted"
"""State of a task that is not run because a task before it has not succeeded."""

DEFAULT_ROOT = "minio://mlpipeline/v2/artifacts"
"""Pipeline root of a server, unless the run or its configuration say otherwise: v2/config/env.go."""


_ANY = "*"
_DEFINITIONS = {"parameters": {_ANY: {"parameterType": None}}, "artifacts": {_ANY: {"artifactType": None}}}
_ORIGINS = dict.fromkeys(("runtimeValue", "componentInputParameter", "taskOutputParameter"))
#: The fields that this project's compiler writes: no nested graphs, conditions, exit tasks, loops, importers, selectors
#: or defaults of components. What stands for None may hold anything.
_SIMULATED: Mapping[str, Any] = {
    **dict.fromkeys(("schemaVersion", "sdkVersion", "pipelineInfo", "defaultPipelineRoot")),
    "components": {_ANY: {"executorLabel": None, "inputDefinitions": _DEFINITIONS, "outputDefinitions": _DEFINITIONS}},
    "deploymentSpec": {
        "executors": {_ANY: {"container": dict.fromkeys(("image", "command", "args", "env", "resources"))}}
    },
    "root": {
        "inputDefinitions": None,
        "dag": {
            "tasks": {
                _ANY: {
                    **dict.fromkeys(("taskInfo", "componentRef", "dependentTasks", "retryPolicy")),
                    "cachingOptions": {"enableCache": None},
                    "inputs": {
                        "parameters": {_ANY: _ORIGINS},
                        "artifacts": {_ANY: {"taskOutputArtifact": None}},
                    },
                }
            }
        },
    },
}


class SimulationError(ProjectError):
    """A pipeline contains something that the simulator does not support."""


@dataclass
class Step:
    """The result of a task."""

    name: str
    state: str = OMITTED
    seconds: float = 0.0
    attempts: int = 0
    reason: str = ""


@dataclass
class SimulatedRun:
    """A run that is in progress or has ended. The folder `logs` holds `<task>/<attempt>.log`."""

    pipeline: CompiledPipeline
    parameters: Mapping[str, Any]
    run_id: str
    store: ObjectStore
    records: Records
    logs: Path
    steps: list[Step] = field(default_factory=list)
    outputs: dict[str, Outputs] = field(default_factory=dict)
    """Outputs of the tasks that succeeded, or were taken from the cache."""

    @property
    def succeeded(self) -> bool:
        """Whether no task failed."""
        return all(step.state != FAILED for step in self.steps)

    def run(self, step: Step) -> None:
        """Runs a task whose predecessors have succeeded, or takes its outputs from the cache.

        Raises:
            StepFailed: All attempts failed.
        """
        spec = self.pipeline.spec
        task = spec["root"]["dag"]["tasks"][step.name]
        component = spec["components"][task["componentRef"]["name"]]
        container = executors(spec)[component["executorLabel"]]["container"]
        kubernetes = self.pipeline.platforms.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {})
        settings = kubernetes.get("executors", {}).get(component["executorLabel"], {})
        folder = self.logs / step.name
        given = self._executor_input(step.name, task, component, folder / "attempt")
        words, key = [*container["command"], *container.get("args", [])], None
        if task.get("cachingOptions", {}).get("enableCache"):
            claims = [mount["constant"] for mount in settings.get("pvcMount", [])]
            key = fingerprint(given, component, container["image"], words, claims)
            if found := self.records.find(key):
                step.state, self.outputs[step.name] = CACHED, found
                return
        variables = {variable["name"]: variable["value"] for variable in container.get("env", [])}
        environment = variables | secret_variables(settings)
        while True:
            own = copy.deepcopy(given)
            own["outputs"]["artifacts"][EXECUTOR_LOGS]["artifacts"][0]["uri"] += f"-{step.attempts}"
            log = folder / f"{step.attempts}.log"
            step.attempts += 1
            try:
                made = launch(Attempt(words, environment, own, self.store, folder / "attempt", log))
                break
            except StepFailed:
                if step.attempts > task.get("retryPolicy", {}).get("maxRetryCount", 0):
                    raise
        step.state, self.outputs[step.name] = SUCCEEDED, self.records.record(key, made)

    def _executor_input(
        self, name: str, task: Mapping[str, Any], component: Mapping[str, Any], folder: Path
    ) -> ExecutorInput:
        """A task's inputs, and its outputs' URIs: `<pipeline root>/<pipeline>/<run>/<task>/<random>/<output>`."""
        spec, values, read = self.pipeline.spec, {}, {}
        for key, source in task.get("inputs", {}).get("parameters", {}).items():
            if origin := source.get("taskOutputParameter"):
                values[key] = self.outputs[origin["producerTask"]].parameters[origin["outputParameterKey"]]
            elif "componentInputParameter" in source:
                values[key] = self.parameters[source["componentInputParameter"]]
            else:
                constant = source["runtimeValue"]["constant"]
                values[key] = self.run_id if constant == RUN_ID else constant
        for key, source in task.get("inputs", {}).get("artifacts", {}).items():
            origin = source["taskOutputArtifact"]
            read[key] = {"artifacts": [self.outputs[origin["producerTask"]].artifacts[origin["outputArtifactKey"]]]}
        root = spec.get("defaultPipelineRoot", DEFAULT_ROOT).partition("?")[0].rstrip("/")
        task_root = f"{root}/{spec['pipelineInfo']['name']}/{self.run_id}/{name}/{uuid.uuid4()}"
        declared = component.get("outputDefinitions", {})
        logs = {EXECUTOR_LOGS: {"artifactType": {"schemaTitle": "system.Artifact"}}}
        written = {
            key: {"artifacts": [{"name": key, "uri": f"{task_root}/{key}", "type": output["artifactType"]}]}
            for key, output in (declared.get("artifacts", {}) | logs).items()
        }
        returned = {key: {"outputFile": f"{folder}/outputs/{key}"} for key in declared.get("parameters", {})}
        said = f"{Mounts(f'{folder}/mounts').path(task_root)}/output_metadata.json"
        return {
            "inputs": {"parameterValues": whole_numbers(values), "artifacts": read},
            "outputs": {"parameters": returned, "artifacts": written, "outputFile": said},
        }


def simulate(
    path: Path, *, store: Path, settings: Sequence[str] = (), on_step: Callable[[Step], None] = lambda step: None
) -> SimulatedRun:
    """Runs a compiled pipeline on this machine.

    Args:
        path: YAML file of one or two documents.
        store: Folder that replaces the object store; its `.simulation` holds logs, ids and cached results.
        settings: `parameter=value` of the run.
        on_step: Called when a step has ended.

    Raises:
        ProjectError: The server or this simulator rejects the pipeline or the parameters.
    """
    pipeline = CompiledPipeline.read(path)
    check_spec(pipeline.spec, pipeline.platforms)
    if refused := sorted(not_simulated(pipeline.spec)):
        raise SimulationError("the simulator does not run:\n" + "\n".join(f"  {what}" for what in refused))
    parameters, run_id = run_parameters(pipeline, settings), str(uuid.uuid4())
    state = store.absolute() / ".simulation"
    (state / run_id).mkdir(parents=True)
    records = Records(state / "records.json")
    run = SimulatedRun(pipeline, parameters, run_id, ObjectStore(store.absolute()), records, state / run_id)
    before = predecessors(pipeline.spec["root"]["dag"]["tasks"])
    for name in TopologicalSorter({name: sorted(before[name]) for name in sorted(before)}).static_order():
        step, begun = Step(name), time.monotonic()
        if before[name] <= run.outputs.keys():
            try:
                run.run(step)
            except StepFailed as error:
                step.state, step.reason = FAILED, str(error)
            step.seconds = time.monotonic() - begun
        run.steps.append(step)
        on_step(step)
    return run


def not_simulated(spec: Mapping[str, Any]) -> Iterator[str]:
    """The locations in a pipeline that contain fields which this project's compiler does not write."""
    yield from _others(spec, _SIMULATED)
    for label, executor in executors(spec).items():
        container = executor.get("container", {})
        for word in [*container.get("command", []), *container.get("args", [])]:
            if "{{$." in word or '"IfPresent"' in word:
                yield f"deploymentSpec.executors.{label}: the placeholder {word}; allowed: {{{{$}}}}"
    for name, component in spec["components"].items():
        for key, declared in component.get("outputDefinitions", {}).get("parameters", {}).items():
            if declared.get("parameterType") != "STRING":
                yield f"components.{name}: the output parameter {key}, which is not a STRING"
    of_run = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    for name, task in spec["root"]["dag"]["tasks"].items():
        inputs = spec["components"][task["componentRef"]["name"]].get("inputDefinitions", {}).get("parameters", {})
        for key, source in task.get("inputs", {}).get("parameters", {}).items():
            kind, constant = inputs.get(key, {}).get("parameterType"), source.get("runtimeValue", {}).get("constant")
            if constant is not None:
                fits = has_type(constant, kind) and ("{{$." not in str(constant) or constant == RUN_ID)
            else:
                fits = kind == of_run.get(source.get("componentInputParameter"), {}).get("parameterType", "STRING")
            if not fits:
                yield f"root.dag.tasks.{name}: the input {key}, a {kind}, from {source}"


def _others(found: Mapping[str, Any], known: Mapping[str, Any], *place: str) -> Iterator[str]:
    for name, value in found.items():
        if name not in known and _ANY not in known:
            yield ".".join((*place, name))
        elif inner := known.get(name, known.get(_ANY)):
            yield from _others(value, inner, *place, name)
