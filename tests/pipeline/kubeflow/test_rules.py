"""Each rule of the server refuses what it is about, and says where."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.kubeflow.compiled_pipeline import CompiledPipeline
from pipeline.kubeflow.rules import JSON_TYPES, SpecError, check_spec, has_type

SPEC: dict[str, Any] = {
    "schemaVersion": "2.1.0",
    "pipelineInfo": {"name": "demo"},
    "defaultPipelineRoot": "minio://bucket/root",
    "root": {
        "inputDefinitions": {"parameters": {"steps": {"parameterType": "NUMBER_INTEGER", "defaultValue": 5}}},
        "dag": {
            "tasks": {
                "make": {
                    "componentRef": {"name": "make"},
                    "inputs": {"parameters": {"steps": {"componentInputParameter": "steps"}}},
                },
                "use": {
                    "componentRef": {"name": "use"},
                    "dependentTasks": ["make"],
                    "inputs": {
                        "artifacts": {
                            "data": {"taskOutputArtifact": {"producerTask": "make", "outputArtifactKey": "data"}}
                        },
                        "parameters": {
                            "mark": {"taskOutputParameter": {"producerTask": "make", "outputParameterKey": "mark"}},
                            "mode": {"runtimeValue": {"constant": "fast"}},
                        },
                    },
                },
            }
        },
    },
    "components": {
        "make": {
            "executorLabel": "make_executor",
            "inputDefinitions": {"parameters": {"steps": {"parameterType": "NUMBER_INTEGER"}}},
            "outputDefinitions": {
                "artifacts": {"data": {"artifactType": {"instanceSchema": "title: tfx.Examples\n"}}},
                "parameters": {"mark": {"parameterType": "STRING"}},
            },
        },
        "use": {
            "executorLabel": "use_executor",
            "inputDefinitions": {
                "artifacts": {"data": {"artifactType": {"schemaTitle": "system.Dataset"}}},
                "parameters": {"mark": {"parameterType": "STRING"}, "mode": {"parameterType": "STRING"}},
            },
        },
    },
    "deploymentSpec": {
        "executors": {
            "make_executor": {"container": {"image": "image", "command": ["python"]}},
            "use_executor": {"container": {"image": "image", "command": ["python"]}},
        }
    },
}
PLATFORMS: dict[str, Any] = {
    "platforms": {"kubernetes": {"deploymentSpec": {"executors": {"use_executor": {"imagePullPolicy": "Always"}}}}}
}


def at(tree: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """The mapping that holds the last key of a path, and that key."""
    *parents, last = path.split("/")
    for parent in parents:
        tree = tree[parent]
    return tree, last


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(spec: dict[str, Any]) -> None:
        holder, key = at(spec, path)
        holder[key] = value

    return change


def drop(path: str) -> Callable[[dict[str, Any]], None]:
    def change(spec: dict[str, Any]) -> None:
        holder, key = at(spec, path)
        del holder[key]

    return change


EXECUTOR = "deploymentSpec/executors/use_executor"
USE = "root/dag/tasks/use"
STEPS = "root/inputDefinitions/parameters/steps"


def test_a_pipeline_that_breaks_no_rule_passes():
    check_spec(SPEC, PLATFORMS)


def test_the_compiled_pipeline_passes(compiled: CompiledPipeline):
    check_spec(compiled.spec, compiled.platforms)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(put("pipelineinfo", {}), "no pipeline spec.*pipelineinfo", id="unknown field"),
        pytest.param(put("schemaVersion", "2.0.0"), "schemaVersion is '2.0.0'", id="schema 2.0"),
        pytest.param(drop("schemaVersion"), "schemaVersion is None", id="no schema"),
        pytest.param(put("pipelineInfo/name", "My Demo"), "pipelineInfo.name is 'My Demo'", id="name"),
        pytest.param(put("root/dag/tasks", {}), "root.dag has no tasks", id="no tasks"),
        pytest.param(put(EXECUTOR, {"resolver": {}}), "executor use_executor: is resolver", id="resolver"),
        pytest.param(
            put(f"{EXECUTOR}/container/lifecycle", {"preCacheCheck": {"command": ["python"]}}),
            "executor use_executor: container.lifecycle is never run",
            id="lifecycle",
        ),
        pytest.param(put(f"{EXECUTOR}/container/image", ""), "container.image is empty", id="no image"),
        pytest.param(drop(f"{EXECUTOR}/container/command"), "container.command is empty", id="no command"),
        pytest.param(
            put(f"{USE}/componentRef/name", "gone"),
            "task root.use: componentRef names component 'gone'",
            id="component",
        ),
        pytest.param(
            put("components/use/executorLabel", "gone"), "component use: executorLabel names .*'gone'", id="executor"
        ),
        pytest.param(drop("components/use/executorLabel"), "component use: is neither", id="no implementation"),
        pytest.param(
            put(f"{USE}/inputs/artifacts/data/taskOutputArtifact/producerTask", "make_task"),
            "task root.use: input data: comes from task 'make_task'",
            id="dangling producer of an artifact",
        ),
        pytest.param(
            put(f"{USE}/inputs/parameters/mark/taskOutputParameter/producerTask", "make_task"),
            "task root.use: input mark: comes from task 'make_task'",
            id="dangling producer of a parameter",
        ),
        pytest.param(
            put(f"{USE}/inputs/parameters/mark/taskOutputParameter/outputParameterKey", "data"),
            "task make has no output 'data' among its parameters",
            id="output of another kind",
        ),
        pytest.param(put(f"{USE}/dependentTasks", ["gone"]), "dependentTasks names task 'gone'", id="dependent task"),
        pytest.param(
            drop(f"{USE}/inputs/parameters/mode"), "input mode has neither a value nor a default", id="no value"
        ),
        pytest.param(
            drop(f"{USE}/inputs/artifacts/data"), "input data has neither a value nor a default", id="no artifact"
        ),
        pytest.param(
            put("root/dag/tasks/make/inputs/parameters/steps/componentInputParameter", "step"),
            "task root.make: input steps is the pipeline's 'step'",
            id="unknown pipeline input",
        ),
        pytest.param(
            put(f"{USE}/inputs/parameters/mode", {"runtimeValue": {"runtimeParameter": "mode"}}),
            "input mode has a runtimeValue without a constant",
            id="runtime parameter",
        ),
        pytest.param(put(f"{STEPS}/parameterType", "TASK_FINAL_STATUS"), "cannot have the type TASK", id="type"),
        pytest.param(drop(f"{STEPS}/parameterType"), "cannot have the type PARAMETER_TYPE", id="no type"),
        pytest.param(drop(f"{STEPS}/defaultValue"), "parameter steps: has no default", id="no default"),
        pytest.param(put(f"{STEPS}/defaultValue", "5"), "the default '5' is not a NUMBER_INTEGER", id="wrong default"),
        pytest.param(
            put("components/make/outputDefinitions/artifacts/data/artifactType", {"instanceSchema": "type: object"}),
            "component make: the type of artifact data has no title",
            id="no title",
        ),
        pytest.param(put("defaultPipelineRoot", "/mnt/root"), "the pipeline root is '/mnt/root'", id="local root"),
        pytest.param(put("defaultPipelineRoot", "minio:///root"), "the pipeline root is", id="root without bucket"),
        pytest.param(
            put("root/dag/tasks/make/dependentTasks", ["use"]), "wait for each other: .*use.*make|make.*use", id="cycle"
        ),
        pytest.param(put(f"{USE}/artifactIterator", {"itemInput": "x"}), "artifactIterator is not", id="iterator"),
    ],
)
def test_a_construct_that_the_server_cannot_run_is_refused(change: Callable[[dict[str, Any]], None], message: str):
    spec = copy.deepcopy(SPEC)
    change(spec)
    with pytest.raises(SpecError, match=message):
        check_spec(spec)


@pytest.mark.parametrize(
    ("executors", "message"),
    [
        ({"use": {"imagePullPolicy": "Always"}}, "platform settings name executor 'use'"),
        ({"use_executor": {"nodeSelectors": {}}}, "platform settings of executor use_executor: .*nodeSelectors"),
    ],
)
def test_platform_settings_that_have_no_effect_are_refused(executors: dict[str, Any], message: str):
    with pytest.raises(SpecError, match=message):
        check_spec(SPEC, {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}})


def test_an_optional_parameter_needs_no_default():
    spec = copy.deepcopy(SPEC)
    put(STEPS, {"parameterType": "NUMBER_INTEGER", "isOptional": True})(spec)
    check_spec(spec)


def test_a_graph_within_the_graph_is_checked_too():
    spec = copy.deepcopy(SPEC)
    spec["components"]["inner"] = {"dag": {"tasks": {"lost": {"componentRef": {"name": "gone"}}}}}
    with pytest.raises(SpecError, match=r"task inner\.lost: componentRef names component 'gone'"):
        check_spec(spec)


def test_all_that_is_wrong_is_said_at_once():
    spec = copy.deepcopy(SPEC)
    put(f"{EXECUTOR}/container/image", "")(spec)
    put("defaultPipelineRoot", "file:///tmp")(spec)
    with pytest.raises(SpecError, match=r"(?s)image is empty.*pipeline root"):
        check_spec(spec)


@pytest.mark.parametrize(
    ("value", "kinds"),
    [
        ("a", {"STRING"}),
        (1, {"NUMBER_INTEGER", "NUMBER_DOUBLE"}),
        (1.0, {"NUMBER_INTEGER", "NUMBER_DOUBLE"}),
        (1.5, {"NUMBER_DOUBLE"}),
        (True, {"BOOLEAN"}),
        ([], {"LIST"}),
        ({}, {"STRUCT"}),
        (None, set()),
    ],
)
def test_a_value_has_the_types_that_json_has(value: Any, kinds: set[str]):
    assert {kind for kind in JSON_TYPES if has_type(value, kind)} == kinds
