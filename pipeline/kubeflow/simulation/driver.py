"""The driver: walks through the tasks, resolves the inputs of each, and lets the launcher run those that are due.

Rules: v2/driver/container.go (`Container`), root_dag.go, resolve.go (`resolveInputs`), driver.go (`provisionOutputs`),
v2/metadata/client.go (`GetPipeline`, `GenerateOutputURI`), v2/compiler/argocompiler/dag.go and container.go: a task
runs if all tasks before it have succeeded. Argo Workflows 4.0.5, workflow/controller/dag.go: after a failure, tasks
that do not depend on it continue.

Not simulated: tasks side by side (they run one after another, in an order that the server might choose too); waiting
between retries; retries of the driver; pods that are lost rather than fail (Argo does not retry these); deadlines;
pipelines and namespaces, between which cached results are not shared; lineage.
"""

import copy
import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from data.errors import ProjectError
from pipeline.kubeflow.compiled_pipeline import CompiledPipeline
from pipeline.kubeflow.mounts import EXECUTOR_LOGS, Mounts
from pipeline.kubeflow.parameters import RUN_ID
from pipeline.kubeflow.rules import check_spec, executors, has_type, predecessors
from pipeline.kubeflow.simulation.launcher import (
    Attempt,
    ExecutorInput,
    ObjectStore,
    Outputs,
    StepFailed,
    launch,
    whole_numbers,
)

SUCCEEDED, CACHED, FAILED = "succeeded", "cached", "failed"
OMITTED = "omitted"
"""State of a task that is not run because a task before it has not succeeded."""

DEFAULT_ROOT = "minio://mlpipeline/v2/artifacts"
"""Pipeline root of a server, unless the run or its configuration say otherwise: v2/config/env.go."""

_ANY = "*"
_DEFINITIONS = {"parameters": {_ANY: {"parameterType": None}}, "artifacts": {_ANY: {"artifactType": None}}}
_ORIGINS = dict.fromkeys(("runtimeValue", "componentInputParameter", "taskOutputParameter"))
#: The fields that this project's compiler writes: no nested graphs, conditions, exit tasks, loops, importers, selectors
#: or defaults of components. A field for which None stands may hold anything.
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


class Records:
    """What is kept between runs, in a file instead of ML Metadata: ids of artifacts, and cached outputs of steps.

    Later steps get an artifact's id, URI and metadata, but neither its type nor lists, structs and booleans in their
    original form (v2/metadata/client.go, `RecordArtifact`; converter.go, `toMLMDArtifact`, `toRuntimeArtifact`).
    """

    def __init__(self, path: Path):
        self._path = path
        self._content = json.loads(path.read_text()) if path.exists() else {"artifacts": 0, "results": {}}

    def find(self, fingerprint: str) -> Outputs | None:
        """The outputs of an earlier step."""
        found = self._content["results"].get(fingerprint)
        return None if found is None else Outputs(**found)

    def record(self, fingerprint: str | None, outputs: Outputs) -> Outputs:
        """Assigns artifact ids, and stores the outputs if they have a fingerprint. Returns what later steps see."""
        recorded = Outputs(outputs.parameters, {})
        for name, artifact in outputs.artifacts.items():
            self._content["artifacts"] += 1
            metadata: dict[str, Any] = {"display_name": name, "store_session_info": '{"Provider":"","Params":null}'}
            for key, value in artifact.get("metadata", {}).items():
                wrapper = "struct" if isinstance(value, Mapping) else "list" if isinstance(value, list) else None
                own = int(value) if isinstance(value, bool) else value
                metadata[key] = {wrapper: value} if wrapper else own
            identifier = str(self._content["artifacts"])
            recorded.artifacts[name] = {"name": identifier, "uri": artifact["uri"], "metadata": metadata}
        if fingerprint:
            self._content["results"][fingerprint] = recorded._asdict()
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self._content, indent=1))
        os.replace(new, self._path)
        return recorded


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
        task, component = self.pipeline.tasks[step.name], self.pipeline.component(step.name)
        container = self.pipeline.container(step.name)
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
        environment = {variable["name"]: variable["value"] for variable in container.get("env", [])}
        for secret in (key for source in settings.get("secretAsEnv", []) for key in source["keyToEnv"]):
            # On the cluster, a pod does not start without its secret.
            if (variable := secret["envVar"]) not in os.environ:
                raise StepFailed(f"variable {variable} is not set; it replaces key {secret['secretKey']} of a secret")
            environment[variable] = os.environ[variable]
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
        output_file = f"{Mounts(f'{folder}/mounts').path(task_root)}/output_metadata.json"
        return {
            "inputs": {"parameterValues": whole_numbers(values), "artifacts": read},
            "outputs": {"parameters": returned, "artifacts": written, "outputFile": output_file},
        }


def fingerprint(
    given: ExecutorInput, component: Mapping[str, Any], image: str, words: Sequence[str], claims: Sequence[str]
) -> str:
    """Hash of the cache key: ids of input artifacts, parameters, kinds of outputs, image, command, volume claims.

    Rules: v2/cacheutils/cache.go (`GenerateCacheKey`, `GenerateFingerPrint`), v2/driver/cache.go (`getFingerPrint`).
    """
    key = {
        "inputArtifactNames": {
            name: [artifact["name"] for artifact in listed["artifacts"]]
            for name, listed in given["inputs"]["artifacts"].items()
        },
        "inputParameterValues": given["inputs"]["parameterValues"],
        "outputArtifactsSpec": {
            name: {**listed["artifacts"][0], "uri": ""} for name, listed in given["outputs"]["artifacts"].items()
        },
        "outputParametersSpec": {
            name: declared["parameterType"]
            for name, declared in component.get("outputDefinitions", {}).get("parameters", {}).items()
        },
        "containerSpec": {"image": image, "cmdArgs": list(words), "pvcNames": sorted(set(claims))},
    }
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


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
    parameters, run_id = pipeline.run_parameters(settings), str(uuid.uuid4())
    state = store.absolute() / ".simulation"
    (state / run_id).mkdir(parents=True)
    records = Records(state / "records.json")
    run = SimulatedRun(pipeline, parameters, run_id, ObjectStore(store.absolute()), records, state / run_id)
    before = predecessors(pipeline.tasks)
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


def _others(found: Mapping[str, Any], known: Mapping[str, Any], *parents: str) -> Iterator[str]:
    for name, value in found.items():
        if name not in known and _ANY not in known:
            yield ".".join((*parents, name))
        elif inner := known.get(name, known.get(_ANY)):
            yield from _others(value, inner, *parents, name)
