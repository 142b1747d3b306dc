"""The rules by which an open-source Kubeflow Pipelines server accepts or rejects a pipeline, checked in advance.

There is one function for each rule; its docstring states where the rule is in kubeflow/pipelines 2.17.0 (paths below
`backend/src`), or in Argo Workflows, which runs what the server compiles. Each yields what is wrong and where.
"""

import graphlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from data.errors import ProjectError

Document = Mapping[str, Any]

SCHEMA_VERSION = "2.1.0"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_ROOT = re.compile(r"(gs|s3|minio)://[^/?]+(/[^?]*)?(\?.+)?")

#: Type of a parameter -> the Python types of its JSON values.
JSON_TYPES: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}


class SpecError(ProjectError):
    """A Kubeflow Pipelines server would reject the compiled pipeline, or could not run it."""


def check_spec(spec: Document, platforms: Document | None = None) -> None:
    """Checks a pipeline spec and its platform document.

    Raises:
        SpecError: Lists every violated rule with the location; if the document is not a pipeline spec, nothing else is
            checked.
    """
    for check in (fields_are_known, pipeline_is_complete):
        _raise_if_any(list(check(spec)))
    found = [problem for check in SPEC_RULES for problem in check(spec)]
    _raise_if_any(found + list(platform_settings_have_an_executor(spec, platforms or {})))


def _raise_if_any(problems: list[str]) -> None:
    if problems:
        raise SpecError("Kubeflow Pipelines cannot run this pipeline:\n" + "\n".join(f"  {p}" for p in problems))


def components(spec: Document) -> dict[str, Document]:
    """All components, with the root under the name "root"."""
    return {**spec.get("components", {}), "root": spec["root"]}


def dags(spec: Document) -> Iterator[tuple[str, Document, Document]]:
    """(name, component, tasks) of each component that is a graph of tasks."""
    for name, component in components(spec).items():
        if "dag" in component:
            yield name, component, component["dag"].get("tasks", {})


def tasks(spec: Document) -> Iterator[tuple[str, Document]]:
    """(path, task) of all tasks: `root.Trainer`."""
    for name, _, members in dags(spec):
        yield from ((f"{name}.{task_name}", task) for task_name, task in members.items())


def executors(spec: Document) -> Document:
    """Label -> executor."""
    found: Document = spec.get("deploymentSpec", {}).get("executors", {})
    return found


def fields_are_known(spec: Document) -> Iterator[str]:
    """Every field is one of PipelineSpec's: apiserver/template/v2_template.go, `NewV2SpecTemplate` (protojson)."""
    try:
        json_format.ParseDict(dict(spec), pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError as error:
        yield f"no pipeline spec: {error}"


def pipeline_is_complete(spec: Document) -> Iterator[str]:
    """Schema 2.1.0, a name, a root of tasks: apiserver/template/v2_template.go, `NewV2SpecTemplate`."""
    version = spec.get("schemaVersion")
    if version != SCHEMA_VERSION:
        yield f"schemaVersion is {version!r}; the server takes {SCHEMA_VERSION!r} alone"
    name = spec.get("pipelineInfo", {}).get("name", "")
    if not _NAME.fullmatch(name):
        yield f"pipelineInfo.name is {name!r}; allowed: lower-case letters, digits, '-' and '.'"
    if not spec.get("root", {}).get("dag", {}).get("tasks"):
        yield "root.dag has no tasks"


def executors_are_containers(spec: Document) -> Iterator[str]:
    """No resolver and no custom job: v2/compiler/visitor.go, `dfs`; v2/compiler/argocompiler/dag.go, `task`."""
    for label, executor in executors(spec).items():
        if not {"container", "importer"} & executor.keys():
            kind = ", ".join(executor) or "nothing"
            yield f"executor {label}: is {kind}; the server runs containers and importers alone"


def containers_have_no_hooks(spec: Document) -> Iterator[str]:
    """`lifecycle.preCacheCheck` is for Vertex AI: v2/driver/driver.go, `initPodSpecPatch`, reads only command, args,
    env, image and resources of a container, so the hook would not be executed.
    """
    for label, executor in executors(spec).items():
        if "lifecycle" in executor.get("container", {}):
            yield f"executor {label}: container.lifecycle is never run by the server"


def containers_are_complete(spec: Document) -> Iterator[str]:
    """An image and a command: the launcher runs the command itself and knows no image's entry point
    (v2/driver/driver.go, `initPodSpecPatch`: "--" and then command and args; v2/component/launcher_v2.go).
    """
    for label, executor in executors(spec).items():
        container = executor.get("container", {"image": "-", "command": ["-"]})
        for needed in ("image", "command"):
            if not container.get(needed):
                yield f"executor {label}: container.{needed} is empty"


def references_exist(spec: Document) -> Iterator[str]:
    """Tasks name a component, components an executor: v2/compiler/visitor.go, `dfs`."""
    for path, task in tasks(spec):
        name = task.get("componentRef", {}).get("name", "")
        if name not in spec.get("components", {}):
            yield f"task {path}: componentRef names component {name!r}, which is not there"
    for name, component in components(spec).items():
        label = component.get("executorLabel")
        if label is not None and label not in executors(spec):
            yield f"component {name}: executorLabel names executor {label!r}, which is not there"
        if label is None and "dag" not in component:
            yield f"component {name}: is neither an executor nor a graph of tasks"


def producers_exist(spec: Document) -> Iterator[str]:
    """An input that is another task's output names a task of the same graph and an output of it
    (v2/compiler/argocompiler/dag.go, `addImplicitDependencies`; v2/driver/resolve.go, `resolveUpstreamParameters`,
    `resolveUpstreamArtifacts`); so does an order between tasks (`dependentTasks`, which Argo checks).
    """
    for dag, _, members in dags(spec):
        for name, task in members.items():
            for kind, key, producer, output in _produced_inputs(task):
                yield from _missing_output(spec, members, f"task {dag}.{name}: input {key}", kind, producer, output)
            for other in task.get("dependentTasks", []):
                if other not in members:
                    yield f"task {dag}.{name}: dependentTasks names task {other!r}, which is not there"


def _produced_inputs(task: Document) -> Iterator[tuple[str, str, str, str]]:
    """(parameters or artifacts, input, producer, output) of each input that comes from another task."""
    inputs = task.get("inputs", {})
    for key, source in inputs.get("parameters", {}).items():
        if "taskOutputParameter" in source:
            origin = source["taskOutputParameter"]
            yield "parameters", key, origin.get("producerTask", ""), origin.get("outputParameterKey", "")
    for key, source in inputs.get("artifacts", {}).items():
        if "taskOutputArtifact" in source:
            origin = source["taskOutputArtifact"]
            yield "artifacts", key, origin.get("producerTask", ""), origin.get("outputArtifactKey", "")


def _missing_output(
    spec: Document, members: Document, where: str, kind: str, producer: str, output: str
) -> Iterator[str]:
    if producer not in members:
        yield f"{where}: comes from task {producer!r}, which is not there"
        return
    component = spec.get("components", {}).get(members[producer].get("componentRef", {}).get("name", ""), {})
    if output not in component.get("outputDefinitions", {}).get(kind, {}):
        yield f"{where}: task {producer} has no output {output!r} among its {kind}"


def inputs_have_values(spec: Document) -> Iterator[str]:
    """Each input of a component that is not optional and has no default is given by the task: v2/driver/resolve.go,
    `resolveInputs` ("neither value nor default value provided").
    """
    for path, task in tasks(spec):
        component = spec.get("components", {}).get(task.get("componentRef", {}).get("name", ""), {})
        for kind in ("parameters", "artifacts"):
            given = task.get("inputs", {}).get(kind, {})
            for key, declared in component.get("inputDefinitions", {}).get(kind, {}).items():
                if key not in given and not declared.get("isOptional") and "defaultValue" not in declared:
                    yield f"task {path}: input {key} has neither a value nor a default"


def inputs_of_the_graph_exist(spec: Document) -> Iterator[str]:
    """An input that refers to one of the graph's inputs names an existing one: v2/driver/resolve.go,
    `resolveInputParameter` ("parent DAG does not have input parameter").
    """
    for dag, component, members in dags(spec):
        for kind, field in (("parameters", "componentInputParameter"), ("artifacts", "componentInputArtifact")):
            known = component.get("inputDefinitions", {}).get(kind, {})
            for name, task in members.items():
                for key, source in task.get("inputs", {}).get(kind, {}).items():
                    if field in source and source[field] not in known:
                        yield f"task {dag}.{name}: input {key} is the pipeline's {source[field]!r}, which it has not"


def constants_are_constants(spec: Document) -> Iterator[str]:
    """`runtimeValue.runtimeParameter` belongs to schema 2.0: v2/driver/resolve.go, `resolveInputParameter` ("param
    runtime value spec of type ... not implemented").
    """
    for path, task in tasks(spec):
        for key, source in task.get("inputs", {}).get("parameters", {}).items():
            if "runtimeValue" in source and "constant" not in source["runtimeValue"]:
                yield f"task {path}: input {key} has a runtimeValue without a constant"


def parameters_have_defaults(spec: Document) -> Iterator[str]:
    """The pipeline's parameters have a type and a default of that type: apiserver/template/v2_template.go,
    `validatePipelineJobInputs`. A default is not the server's rule but this project's: a schedule needs one.
    """
    for name, declared in spec["root"].get("inputDefinitions", {}).get("parameters", {}).items():
        kind = declared.get("parameterType", "PARAMETER_TYPE_ENUM_UNSPECIFIED")
        if kind not in JSON_TYPES:
            yield f"parameter {name}: a pipeline cannot have the type {kind}; allowed: {', '.join(JSON_TYPES)}"
        elif "defaultValue" not in declared:
            if not declared.get("isOptional"):
                yield f"parameter {name}: has no default"
        elif not has_type(declared["defaultValue"], kind):
            yield f"parameter {name}: the default {declared['defaultValue']!r} is no {kind}"


def has_type(value: Any, kind: str) -> bool:
    """Whether a JSON value is of a parameter's type."""
    if isinstance(value, bool):
        return kind == "BOOLEAN"
    if kind == "NUMBER_INTEGER" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, JSON_TYPES[kind])


def artifacts_have_a_type(spec: Document) -> Iterator[str]:
    """Every artifact's type has a title; without one the driver ends the whole process: v2/metadata/client.go,
    `SchemaToArtifactType` (glog.Fatal).
    """
    for name, component in components(spec).items():
        for side in ("inputDefinitions", "outputDefinitions"):
            for key, declared in component.get(side, {}).get("artifacts", {}).items():
                if not _title(declared.get("artifactType", {})):
                    yield f"component {name}: the type of artifact {key} has no title"


def _title(artifact_type: Document) -> str:
    schema = yaml.safe_load(artifact_type.get("instanceSchema", "")) or {}
    return str(artifact_type.get("schemaTitle") or schema.get("title", ""))


def root_is_in_a_bucket(spec: Document) -> Iterator[str]:
    """Artifacts are in a bucket of gs, s3 or minio: v2/objectstore/config.go, `ParseBucketPathToConfig`. Without a
    root, the server uses its own.
    """
    root = spec.get("defaultPipelineRoot")
    if root is not None and not _ROOT.fullmatch(root):
        yield f"the pipeline root is {root!r}; allowed: gs://BUCKET/..., s3://BUCKET/..., minio://BUCKET/..."


def predecessors(members: Document) -> dict[str, set[str]]:
    """Task of a graph -> the tasks that must succeed before it: those named, and those whose outputs it reads."""
    return {
        name: {*task.get("dependentTasks", []), *(producer for _, _, producer, _ in _produced_inputs(task))}
        for name, task in members.items()
    }


def tasks_form_no_cycle(spec: Document) -> Iterator[str]:
    """No task waits for itself: Argo Workflows 3.5, workflow/validate/validate.go, `validateDAG`."""
    for dag, _, members in dags(spec):
        try:
            graphlib.TopologicalSorter(predecessors(members)).prepare()
        except graphlib.CycleError as error:
            yield f"{dag}: tasks wait for each other: {' -> '.join(reversed(error.args[1]))}"


def iterators_are_over_parameters(spec: Document) -> Iterator[str]:
    """v2/compiler/argocompiler/dag.go, `DAG` ("artifact iterator not implemented yet")."""
    for path, task in tasks(spec):
        if "artifactIterator" in task:
            yield f"task {path}: artifactIterator is not implemented by the server"


SPEC_RULES = (
    executors_are_containers,
    containers_have_no_hooks,
    containers_are_complete,
    references_exist,
    producers_exist,
    inputs_have_values,
    inputs_of_the_graph_exist,
    constants_are_constants,
    parameters_have_defaults,
    artifacts_have_a_type,
    root_is_in_a_bucket,
    tasks_form_no_cycle,
    iterators_are_over_parameters,
)


def platform_settings_have_an_executor(spec: Document, platforms: Document) -> Iterator[str]:
    """Settings for Kubernetes are found by the executor's label, and a wrong label is silently ignored:
    v2/compiler/visitor.go, `dfs`. Unknown fields are rejected: v2/compiler/argocompiler/spec_patch.go,
    `AddKubernetesSpec`.
    """
    kubernetes = platforms.get("platforms", {}).get("kubernetes", {})
    for label, settings in kubernetes.get("deploymentSpec", {}).get("executors", {}).items():
        if label not in executors(spec):
            yield f"platform settings name executor {label!r}, which is not there"
        try:
            json_format.ParseDict(settings, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
        except json_format.ParseError as error:
            yield f"platform settings of executor {label}: {error}"
