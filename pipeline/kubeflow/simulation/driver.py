"""The driver: walks through the tasks, resolves what each gets, and lets the launcher run those that are due.

Rules: v2/driver/container.go (`Container`), dag.go, root_dag.go, resolve.go (`resolveInputs`), driver.go
(`provisionOutputs`), util.go (`resolveContainerArgs`), v2/metadata/client.go (`GetPipeline`, `GenerateOutputURI`), and
v2/compiler/argocompiler/dag.go and container.go: a task runs if all tasks before it have succeeded; an exit task runs
when the one before it has ended; `visitor.go` (`dfs`): tasks of a graph inherit its retries. Argo Workflows 4.0.5,
workflow/controller/dag.go: after a failure, tasks that do not depend on it go on; a failed exit task fails no run.

Not simulated: tasks side by side (they run one after another, in an order that the server might choose too); waiting
between retries; retries of the driver; pods that are lost rather than fail (Argo does not retry these); deadlines;
plugins; macros in parameters such as [[ScheduledTime]].
"""

import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec.pipeline_spec_pb2 import (
    ArtifactTypeSchema,
    ComponentOutputsSpec,
    ComponentSpec,
    ExecutorInput,
    PipelineTaskSpec,
    RuntimeArtifact,
    TaskInputsSpec,
)

from pipeline.kubeflow.document import CompiledPipeline
from pipeline.kubeflow.mounts import Mounts
from pipeline.kubeflow.parameters import RUN_ID
from pipeline.kubeflow.simulation import values
from pipeline.kubeflow.simulation.cache import Outputs, Records, fingerprint
from pipeline.kubeflow.simulation.conditions import DriverError, holds
from pipeline.kubeflow.simulation.launcher import LOGS, Attempt, StepFailed, launch, secret_variables
from pipeline.kubeflow.simulation.spec import Spec, dependencies, in_order, is_exit_task
from pipeline.kubeflow.simulation.store import DEFAULT_ROOT, ObjectStore
from pipeline.kubeflow.submission import run_parameters

SUCCEEDED, CACHED, FAILED = "succeeded", "cached", "failed"
SKIPPED, OMITTED, ERROR = "skipped", "omitted", "error"
"""Its condition is false; a task before it has not succeeded; its driver failed."""

_PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['(.+?)']}}")
_Found = TypeVar("_Found", Value, RuntimeArtifact)


@dataclass
class Step:
    """How a task went."""

    name: str
    state: str = OMITTED
    seconds: float = 0.0
    attempts: int = 0
    reason: str = ""
    artifacts: dict[str, str] = field(default_factory=dict)
    """Output -> URI, where there is one."""


@dataclass
class Scope:
    """A graph under way."""

    component: ComponentSpec
    inputs: Outputs
    prefix: str = ""
    retries: int = 0
    """Of tasks that say nothing themselves."""
    outputs: dict[str, Outputs] = field(default_factory=dict)
    """Task -> what it made."""


@dataclass
class SimulatedRun:
    """A run, under way or ended. `logs` holds `<task>/<attempt>.log`."""

    spec: Spec
    store: ObjectStore
    records: Records
    run_id: str
    logs: Path
    on_step: Callable[[Step], None]
    steps: list[Step] = field(default_factory=list)
    succeeded: bool = False

    def dag(self, scope: Scope) -> bool:
        """Runs the tasks of a graph; whether none of them failed."""
        tasks = scope.component.dag.tasks
        exits = {task.dependent_tasks[0]: name for name, task in tasks.items() if is_exit_task(task)}
        states: dict[str, str] = {}
        for name in in_order(scope.component):
            if is_exit_task(tasks[name]):
                continue
            step = Step(scope.prefix + name)
            if all(states[other] in (SUCCEEDED, CACHED) for other in dependencies(tasks[name])):
                self._task(step, name, scope)
            self._report(step)
            states[name] = step.state
            if name in exits and step.state in (SUCCEEDED, CACHED, FAILED):
                last = Step(scope.prefix + exits[name])
                self._task(last, exits[name], scope)
                self._report(last)
        return not {FAILED, ERROR} & set(states.values())

    def _report(self, step: Step) -> None:
        self.steps.append(step)
        self.on_step(step)

    def _task(self, step: Step, name: str, scope: Scope) -> None:
        task = scope.component.dag.tasks[name]
        component = self.spec.pipeline.components[task.component_ref.name]
        retries = task.retry_policy.max_retry_count if task.HasField("retry_policy") else scope.retries
        begun = time.monotonic()
        try:
            given = resolve(task, component, scope, self.run_id)
            if task.trigger_policy.condition and not holds(task.trigger_policy.condition, given):
                step.state = SKIPPED
            elif component.HasField("dag"):
                artifacts = {key: listed.artifacts[0] for key, listed in given.inputs.artifacts.items()}
                inside = Scope(component, (dict(given.inputs.parameter_values), artifacts), f"{step.name}/", retries)
                step.state = SUCCEEDED if self.dag(inside) else FAILED
            else:
                scope.outputs[name] = self._container(step, task, component, given, retries)
                step.artifacts = {key: artifact.uri for key, artifact in scope.outputs[name][1].items()}
        except DriverError as error:
            step.state, step.reason = ERROR, str(error)
        except StepFailed as error:
            step.state, step.reason = FAILED, str(error)
        step.seconds = time.monotonic() - begun

    def _container(
        self, step: Step, task: PipelineTaskSpec, component: ComponentSpec, given: ExecutorInput, retries: int
    ) -> Outputs:
        """The outputs of a step, from the cache or by running it."""
        container = self.spec.executors[component.executor_label].container
        settings = self.spec.kubernetes.get(component.executor_label, KubernetesExecutorConfig())
        folder = self.logs / step.name
        self._provision(step.name, component, given, folder / "attempt")
        words = [*container.command, *container.args]
        key = None
        if task.caching_options.enable_cache:
            key = fingerprint(given, component, container.image, words, [pvc.constant for pvc in settings.pvc_mount])
            if found := self.records.find(key):
                step.state = CACHED
                return found
        environment = {variable.name: variable.value for variable in container.env} | secret_variables(settings)
        words = [_fill(word, given) for word in words]
        for index in range(retries + 1):
            own = ExecutorInput()
            own.CopyFrom(given)
            own.outputs.artifacts[LOGS].artifacts[0].uri += f"-{index}"
            step.attempts = index + 1
            log = folder / f"{index}.log"
            try:
                made = launch(Attempt(component, words, environment, own, self.store, folder / "attempt", log))
            except StepFailed:
                if index == retries:
                    raise
            else:
                break
        step.state = SUCCEEDED
        return self.records.record(key, made)

    def _provision(self, step: str, component: ComponentSpec, given: ExecutorInput, folder: Path) -> None:
        """Says where outputs go: `<pipeline root>/<pipeline>/<run>/<task>/<random>/<output>`."""
        root = (self.spec.pipeline.default_pipeline_root or DEFAULT_ROOT).partition("?")[0].rstrip("/")
        name = step.rpartition("/")[2]
        task_root = f"{root}/{self.spec.pipeline.pipeline_info.name}/{self.run_id}/{name}/{uuid.uuid4()}"
        logs = ComponentOutputsSpec.ArtifactSpec(artifact_type=ArtifactTypeSchema(schema_title="system.Artifact"))
        for key, declared in {**component.output_definitions.artifacts, LOGS: logs}.items():
            given.outputs.artifacts[key].artifacts.add(
                name=key, uri=f"{task_root}/{key}", type=declared.artifact_type, metadata=declared.metadata
            )
        for key in component.output_definitions.parameters:
            given.outputs.parameters[key].output_file = f"{folder}/outputs/{key}"
        given.outputs.output_file = f"{Mounts(f'{folder}/mounts').path(task_root)}/output_metadata.json"


def resolve(task: PipelineTaskSpec, component: ComponentSpec, scope: Scope, run_id: str) -> ExecutorInput:
    """The inputs of a task of a run.

    Raises:
        DriverError: Something is missing or of the wrong type.
    """
    given = ExecutorInput()
    for name, source in task.inputs.parameters.items():
        value = given.inputs.parameter_values[name]
        value.CopyFrom(_parameter(name, source, scope, run_id))
        declared = component.input_definitions.parameters[name].parameter_type
        if declared == values.Type.STRING:
            value.string_value = values.to_text(value)
        try:
            values.require_type(value, declared)
        except ValueError as error:
            raise DriverError(f"input {name}: {error}") from None
    for name, origin in task.inputs.artifacts.items():
        if origin.WhichOneof("kind") == "component_input_artifact":
            artifact = _find(name, scope.inputs[1], origin.component_input_artifact)
        else:
            output = origin.task_output_artifact
            artifact = _find(name, scope.outputs[output.producer_task][1], output.output_artifact_key)
        given.inputs.artifacts[name].artifacts.append(artifact)
    return given


def _parameter(name: str, source: TaskInputsSpec.InputParameterSpec, scope: Scope, run_id: str) -> Value:
    if source.HasField("component_input_parameter"):
        return _find(name, scope.inputs[0], source.component_input_parameter)
    if source.HasField("task_output_parameter"):
        output = source.task_output_parameter
        return _find(name, scope.outputs[output.producer_task][0], output.output_parameter_key)
    constant = source.runtime_value.constant
    return Value(string_value=run_id) if constant.string_value == RUN_ID else constant


def _find(name: str, there: Mapping[str, _Found], key: str) -> _Found:
    if key not in there:
        raise DriverError(f"input {name}: there is no {key!r}; there are {', '.join(sorted(there)) or 'none'}")
    return there[key]


def _fill(word: str, given: ExecutorInput) -> str:
    """Puts input parameters in, except where outputs are named: that is left to the launcher."""
    if "$.outputs" in word:
        return word
    return _PLACEHOLDER.sub(lambda found: values.to_text(_find(word, given.inputs.parameter_values, found[1])), word)


def simulate(
    path: Path, *, store: Path, settings: Sequence[str] = (), on_step: Callable[[Step], None] = lambda step: None
) -> SimulatedRun:
    """Runs a compiled pipeline on this machine.

    Args:
        path: YAML file of one or two documents.
        store: Folder in place of the object store; its `.simulation` keeps logs, ids and cached results.
        settings: `parameter=value` of the run.
        on_step: Called when a step has ended.

    Raises:
        ProjectError: The server or this simulation refuses the pipeline or the parameters.
    """
    document = CompiledPipeline.read(path)
    spec = Spec.of(document)
    parameters = {name: ParseDict(value, Value()) for name, value in run_parameters(document, settings).items()}
    run_id = str(uuid.uuid4())
    state = store.absolute() / ".simulation"
    (state / run_id).mkdir(parents=True)
    records = Records(state / "records.json")
    run = SimulatedRun(spec, ObjectStore(store.absolute()), records, run_id, state / run_id, on_step)
    run.succeeded = run.dag(Scope(spec.pipeline.root, (parameters, {})))
    return run
