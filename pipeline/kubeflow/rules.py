"""The rules by which an open-source Kubeflow Pipelines server accepts or rejects a pipeline, checked in advance.

Each rule states where it is in kubeflow/pipelines 2.17.0 (paths below `backend/src`), or in Argo Workflows, which runs
what the server compiles. Each function yields what is wrong in one part of the pipeline, and where.
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

#: (kind of input, its field for an output of another task, the output's key there, its field for an input of the graph)
_SOURCES = (
    ("parameters", "taskOutputParameter", "outputParameterKey", "componentInputParameter"),
    ("artifacts", "taskOutputArtifact", "outputArtifactKey", "componentInputArtifact"),
)


class SpecError(ProjectError):
    """A Kubeflow Pipelines server would reject the compiled pipeline, or could not run it."""


def check_spec(spec: Document, platforms: Document | None = None) -> None:
    """Checks a pipeline spec and its platform document.

    Raises:
        SpecError: Lists every violated rule with the location; if the document is not a complete pipeline spec, nothing
            else is checked.
    """
    found: list[str] = []
    # Every field is one of PipelineSpec's: apiserver/template/v2_template.go, `NewV2SpecTemplate` (protojson).
    try:
        json_format.ParseDict(dict(spec), pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError as error:
        found.append(f"no pipeline spec: {error}")
    # Schema 2.1.0, a name, a root of tasks: the same function.
    if not found:
        if (version := spec.get("schemaVersion")) != SCHEMA_VERSION:
            found.append(f"schemaVersion is {version!r}; the server accepts only {SCHEMA_VERSION!r}")
        if not _NAME.fullmatch(name := spec.get("pipelineInfo", {}).get("name", "")):
            found.append(f"pipelineInfo.name is {name!r}; allowed: lower-case letters, digits, '-' and '.'")
        if not spec.get("root", {}).get("dag", {}).get("tasks"):
            found.append("root.dag has no tasks")
    if not found:
        for problems in (wrong_executors, wrong_components, wrong_tasks, wrong_run_inputs):
            found += problems(spec)
        found += wrong_platforms(spec, platforms or {})
    if found:
        raise SpecError("Kubeflow Pipelines cannot run this pipeline:\n" + "\n".join(f"  {each}" for each in found))


def components(spec: Document) -> dict[str, Document]:
    """All components, with the root under the name "root"."""
    return {**spec.get("components", {}), "root": spec["root"]}


def executors(spec: Document) -> Document:
    """Label -> executor."""
    found: Document = spec.get("deploymentSpec", {}).get("executors", {})
    return found


def wrong_executors(spec: Document) -> Iterator[str]:
    """Executors that the server cannot run."""
    for label, executor in executors(spec).items():
        # No resolver and no custom job: v2/compiler/visitor.go, `dfs`; v2/compiler/argocompiler/dag.go, `task`.
        if not {"container", "importer"} & executor.keys():
            kind = ", ".join(executor) or "nothing"
            yield f"executor {label}: is {kind}; the server runs only containers and importers"
        # `lifecycle.preCacheCheck` is for Vertex AI: v2/driver/driver.go, `initPodSpecPatch`, reads only command, args,
        # env, image and resources of a container, so the hook would not be executed.
        if "lifecycle" in executor.get("container", {}):
            yield f"executor {label}: container.lifecycle is never run by the server"
        # An image and a command: the launcher runs the command itself and knows no image's entry point
        # (v2/driver/driver.go, `initPodSpecPatch`: "--" and then command and args; v2/component/launcher_v2.go).
        container = executor.get("container", {"image": "-", "command": ["-"]})
        for needed in ("image", "command"):
            if not container.get(needed):
                yield f"executor {label}: container.{needed} is empty"


def wrong_components(spec: Document) -> Iterator[str]:
    """Components without an implementation, and artifacts without a type."""
    for name, component in components(spec).items():
        # Components name an executor: v2/compiler/visitor.go, `dfs`.
        label = component.get("executorLabel")
        if label is not None and label not in executors(spec):
            yield f"component {name}: executorLabel names executor {label!r}, which does not exist"
        if label is None and "dag" not in component:
            yield f"component {name}: is neither an executor nor a graph of tasks"
        # Every artifact's type has a title; without one the driver ends the whole process: v2/metadata/client.go,
        # `SchemaToArtifactType` (glog.Fatal).
        for side in ("inputDefinitions", "outputDefinitions"):
            for key, declared in component.get(side, {}).get("artifacts", {}).items():
                kind = declared.get("artifactType", {})
                schema = yaml.safe_load(kind.get("instanceSchema", "")) or {}
                if not (kind.get("schemaTitle") or schema.get("title")):
                    yield f"component {name}: the type of artifact {key} has no title"


def wrong_tasks(spec: Document) -> Iterator[str]:
    """Tasks, in all graphs, whose references are wrong or that could never start."""
    for dag, graph in components(spec).items():
        tasks = graph.get("dag", {}).get("tasks", {})
        for name, task in tasks.items():
            where = f"task {dag}.{name}"
            # Tasks name a component: v2/compiler/visitor.go, `dfs`.
            component = task.get("componentRef", {}).get("name", "")
            if component not in spec.get("components", {}):
                yield f"{where}: componentRef names component {component!r}, which does not exist"
            # v2/compiler/argocompiler/dag.go, `DAG` ("artifact iterator not implemented yet").
            if "artifactIterator" in task:
                yield f"{where}: artifactIterator is not implemented by the server"
            # An order between tasks names tasks of the same graph, which Argo checks.
            for other in task.get("dependentTasks", []):
                if other not in tasks:
                    yield f"{where}: dependentTasks names task {other!r}, which does not exist"
            yield from wrong_inputs(spec, graph, task, where)
        # No task waits for itself: Argo Workflows 3.5, workflow/validate/validate.go, `validateDAG`.
        try:
            graphlib.TopologicalSorter(predecessors(tasks)).prepare()
        except graphlib.CycleError as error:
            yield f"{dag}: tasks wait for each other: {' -> '.join(reversed(error.args[1]))}"


def wrong_inputs(spec: Document, graph: Document, task: Document, where: str) -> Iterator[str]:
    """Inputs of one task of a graph that have no value, or none that the server can find."""
    tasks, known = graph["dag"]["tasks"], spec.get("components", {})
    own = known.get(task.get("componentRef", {}).get("name", ""), {})
    for kind, of_task, output_key, of_graph in _SOURCES:
        given = task.get("inputs", {}).get(kind, {})
        for key, source in given.items():
            # An output of another task names a task of the same graph and an output of it
            # (v2/compiler/argocompiler/dag.go, `addImplicitDependencies`; v2/driver/resolve.go,
            # `resolveUpstreamParameters`, `resolveUpstreamArtifacts`).
            if of_task in source:
                producer, output = source[of_task].get("producerTask", ""), source[of_task].get(output_key, "")
                made_by = known.get(tasks.get(producer, {}).get("componentRef", {}).get("name", ""), {})
                if producer not in tasks:
                    yield f"{where}: input {key}: comes from task {producer!r}, which does not exist"
                elif output not in made_by.get("outputDefinitions", {}).get(kind, {}):
                    yield f"{where}: input {key}: task {producer} has no output {output!r} among its {kind}"
            # An input of the graph exists: v2/driver/resolve.go, `resolveInputParameter` ("parent DAG does not have
            # input parameter").
            if of_graph in source and source[of_graph] not in graph.get("inputDefinitions", {}).get(kind, {}):
                yield f"{where}: input {key} is the pipeline's {source[of_graph]!r}, which does not exist"
            # `runtimeValue.runtimeParameter` belongs to schema 2.0: v2/driver/resolve.go, `resolveInputParameter`
            # ("param runtime value spec of type ... not implemented").
            if "runtimeValue" in source and "constant" not in source["runtimeValue"]:
                yield f"{where}: input {key} has a runtimeValue without a constant"
        # Each input of a component that is not optional and has no default is given by the task: v2/driver/resolve.go,
        # `resolveInputs` ("neither value nor default value provided").
        for key, declared in own.get("inputDefinitions", {}).get(kind, {}).items():
            if key not in given and not declared.get("isOptional") and "defaultValue" not in declared:
                yield f"{where}: input {key} has neither a value nor a default"


def predecessors(tasks: Document) -> dict[str, set[str]]:
    """Task of a graph -> the tasks that must succeed before it: those named, and those whose outputs it reads."""
    return {
        name: {
            *task.get("dependentTasks", []),
            *(
                source[of_task].get("producerTask", "")
                for kind, of_task, *_ in _SOURCES
                for source in task.get("inputs", {}).get(kind, {}).values()
                if of_task in source
            ),
        }
        for name, task in tasks.items()
    }


def wrong_run_inputs(spec: Document) -> Iterator[str]:
    """The pipeline's parameters and root, as a run would get them."""
    # Parameters have a type and a default of that type: apiserver/template/v2_template.go, `validatePipelineJobInputs`.
    # That there is a default is not the server's rule but this project's: a schedule needs one.
    for name, declared in spec["root"].get("inputDefinitions", {}).get("parameters", {}).items():
        kind = declared.get("parameterType", "PARAMETER_TYPE_ENUM_UNSPECIFIED")
        if kind not in JSON_TYPES:
            yield f"parameter {name}: a pipeline cannot have the type {kind}; allowed: {', '.join(JSON_TYPES)}"
        elif "defaultValue" not in declared:
            if not declared.get("isOptional"):
                yield f"parameter {name}: has no default"
        elif not has_type(declared["defaultValue"], kind):
            yield f"parameter {name}: the default {declared['defaultValue']!r} is not a {kind}"
    # Artifacts are in a bucket of gs, s3 or minio: v2/objectstore/config.go, `ParseBucketPathToConfig`. Without a root,
    # the server uses its own.
    root = spec.get("defaultPipelineRoot")
    if root is not None and not _ROOT.fullmatch(root):
        yield f"the pipeline root is {root!r}; allowed: gs://BUCKET/..., s3://BUCKET/..., minio://BUCKET/..."


def has_type(value: Any, kind: str) -> bool:
    """Whether a JSON value is of a parameter's type."""
    if isinstance(value, bool):
        return kind == "BOOLEAN"
    if kind == "NUMBER_INTEGER" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, JSON_TYPES[kind])


def wrong_platforms(spec: Document, platforms: Document) -> Iterator[str]:
    """Settings for Kubernetes without effect.

    They are found by the executor's label, and a wrong label is silently ignored: v2/compiler/visitor.go, `dfs`.
    Unknown fields are rejected: v2/compiler/argocompiler/spec_patch.go, `AddKubernetesSpec`.
    """
    kubernetes = platforms.get("platforms", {}).get("kubernetes", {})
    for label, settings in kubernetes.get("deploymentSpec", {}).get("executors", {}).items():
        if label not in executors(spec):
            yield f"platform settings name executor {label!r}, which does not exist"
        try:
            json_format.ParseDict(settings, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
        except json_format.ParseError as error:
            yield f"platform settings of executor {label}: {error}"
