"""Compiles the pipeline for open-source Kubeflow Pipelines v2.

TFX's compiler targets Vertex AI. Each function below changes its output in one respect, and states the server's rule
that requires it; "KFP" is kubeflow/pipelines 2.17.0, "TFX" is tfx 1.21.0.
"""

import copy
import json
from collections.abc import Mapping
from typing import Any

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.base_node import BaseNode
from tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner import KubeflowV2DagRunner, KubeflowV2DagRunnerConfig
from tfx.orchestration.pipeline import Pipeline
from tfx.utils import name_utils

from components.code_hash import ROOT
from components.drivers import StateDriver
from data.errors import ConfigError
from pipeline.config import Config, config_hash
from pipeline.kubeflow import parameters
from pipeline.kubeflow.document import CompiledPipeline
from pipeline.kubeflow.places import check_places
from pipeline.kubeflow.platform import (
    check_stages,
    container_settings,
    kubernetes_settings,
    platform_document,
    retry_policy,
)
from pipeline.kubeflow.rules import check_spec
from pipeline.kubeflow.run_report import RunReporter
from pipeline.pipeline import PipelinePaths, create_pipeline
from pipeline.sections.kubeflow import StageConfig
from pipeline.stages import Stage

#: How the image starts a step; its working directory is the project's folder.
COMMAND = ("python", "-m", "pipeline.kubeflow.entrypoint")

STATE_SUFFIX = "-state"
_INPUTS_SPEC = "--json_serialized_inputs_spec_args"

Spec = dict[str, Any]


def compile_pipeline(
    config: Config, *, image: str, pipeline_root: str, serving: str, checkpoints: str
) -> CompiledPipeline:
    """Compiles the spec and the platform document of a pipeline.

    Args:
        config: The resolved configuration (`pipeline.config.resolve`).
        image: Container image of every step.
        pipeline_root: Where artifacts are stored: gs://, s3:// or minio://.
        serving: Serving directory: gs://, s3:// or an absolute folder on a mounted volume.
        checkpoints: Absolute folder for the checkpoints of trainings in progress; on a mounted volume they outlive the
            pod.

    Raises:
        ConfigError: A path cannot be reached from a container, a stage is unknown, or the strategy needs several pods.
        SpecError: The server would reject the result.
    """
    check_places(config, serving, checkpoints)
    check_strategy(config)
    ingested = f"{serving.rstrip('/')}-ingested"
    paths = PipelinePaths(artifacts=pipeline_root, serving=serving, checkpoints=checkpoints, ingested=ingested)
    pipeline = create_pipeline(config, paths, last=lambda nodes: RunReporter(config, nodes))
    nodes = {node.id: node for node in pipeline.components}
    check_stages(config.kubeflow, nodes)

    spec = _compiled_by_tfx(pipeline, image)
    spec["defaultPipelineRoot"] = pipeline_root
    use_set_up_file_of_image(spec)
    add_state_steps(spec, nodes)
    push_each_time(spec)
    add_run_parameters(spec, parameters.defaults(config, serving), config_hash(config))
    name_nodes(spec)
    renew_inputs_specs(spec)
    compiled = CompiledPipeline(spec, apply_stages(spec, config))
    check_spec(compiled.spec, compiled.platforms)
    return compiled


def check_strategy(config: Config) -> None:
    """Raises ConfigError if the Trainer's one pod does not fit the strategy."""
    trainer = config.kubeflow.stage(Stage.TRAINER)
    if config.training.strategy == "multi_worker":
        raise ConfigError(
            "training.strategy 'multi_worker' needs several pods, but a step of Kubeflow Pipelines is one pod; use "
            "'mirrored' with kubeflow.stages.Trainer.accelerators, or render a job with `kubeflow_runner.py tfjob`"
        )
    if trainer.accelerator and trainer.accelerators > 1 and config.training.strategy == "one_device":
        raise ConfigError(
            f"kubeflow.stages.Trainer.accelerators={trainer.accelerators}, but training.strategy 'one_device' uses "
            "one; allowed: 'mirrored' (GPUs), 'tpu'"
        )


def _compiled_by_tfx(pipeline: Pipeline, image: str) -> Spec:
    """TFX's unchanged output. The server accepts only schema 2.1.0 (KFP backend/src/apiserver/template/v2_template.go,
    `NewV2SpecTemplate`), while TFX writes 2.0.0 by default.
    """
    settings = KubeflowV2DagRunnerConfig(
        default_image=image, default_commands=list(COMMAND), use_pipeline_spec_2_1=True
    )
    job = KubeflowV2DagRunner(settings).run(pipeline, write_out=False)
    spec: Spec = job["pipelineSpec"]
    return spec


def tasks_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The tasks of the pipeline, by name."""
    tasks: dict[str, Any] = spec["root"]["dag"]["tasks"]
    return tasks


def executors_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The executors, by label."""
    executors: dict[str, Any] = spec["deploymentSpec"]["executors"]
    return executors


def component_of(spec: Mapping[str, Any], task: str) -> dict[str, Any]:
    """The component that a task runs."""
    component: dict[str, Any] = spec["components"][tasks_of(spec)[task]["componentRef"]["name"]]
    return component


def container_of(spec: Mapping[str, Any], task: str) -> dict[str, Any]:
    """The container that a task runs in."""
    container: dict[str, Any] = executors_of(spec)[component_of(spec, task)["executorLabel"]]["container"]
    return container


def node_of(task: str) -> str:
    """The pipeline's node that a task belongs to: its own name, or the node whose state it looks up."""
    return task.removesuffix(STATE_SUFFIX)


def use_set_up_file_of_image(spec: Spec) -> None:
    """The local path of setup.py, which Beam's workers are given, is wrong in a container: there the file is in the
    working directory. The path would also make the cache key (KFP backend/src/v2/cacheutils/cache.go,
    `GenerateCacheKey`: arguments) depend on where the pipeline was compiled.
    """
    here = f"--setup_file={ROOT / 'setup.py'}"
    for task in tasks_of(spec):
        container = container_of(spec, task)
        container["args"] = ["--setup_file=./setup.py" if arg == here else arg for arg in container["args"]]


def state_keys(node: BaseNode) -> list[str]:
    """The execution properties that a node's `StateDriver` sets: the optional ones that have no value yet."""
    if not isinstance(node, BaseComponent) or not issubclass(node.driver_class, StateDriver):
        return []
    return [
        key
        for key, declared in node.spec.PARAMETERS.items()
        if declared.optional and node.exec_properties.get(key) is None
    ]


def add_state_steps(spec: Spec, nodes: Mapping[str, BaseNode]) -> None:
    """The server does not run TFX's drivers, so an extra step before the node looks the state up.

    The server's driver only resolves inputs and looks for a cached result (KFP backend/src/v2/driver/container.go,
    `Container`), and TFX's hook `lifecycle.preCacheCheck` is never read. The result of the extra step becomes an input
    of the node, and thus part of its cache key (`GenerateCacheKey`); the extra step itself is never cached.
    """
    for name, node in nodes.items():
        if keys := state_keys(node):
            _add_state_step(spec, name, keys, name_utils.get_full_name(node.driver_class))


def _add_state_step(spec: Spec, node: str, keys: list[str], driver: str) -> None:
    task_name = node + STATE_SUFFIX
    label = f"{task_name}_executor"
    task, component, container = tasks_of(spec)[node], component_of(spec, node), container_of(spec, node)
    executors_of(spec)[label] = {
        "container": {
            "image": container["image"],
            "command": list(COMMAND),
            "args": ["--state-of", driver, "--json_serialized_invocation_args", "{{$}}", _INPUTS_SPEC, ""],
        }
    }
    spec["components"][task_name] = {
        "executorLabel": label,
        "inputDefinitions": {"parameters": copy.deepcopy(component["inputDefinitions"]["parameters"])},
        "outputDefinitions": {"parameters": {key: {"parameterType": "STRING"} for key in keys}},
    }
    tasks_of(spec)[task_name] = {
        "taskInfo": {"name": task_name},
        "componentRef": {"name": task_name},
        "inputs": {"parameters": copy.deepcopy(task["inputs"]["parameters"])},
        "cachingOptions": {},
    }
    task["dependentTasks"] = [*task.get("dependentTasks", []), task_name]
    for key in keys:
        component["inputDefinitions"]["parameters"][key] = {"parameterType": "STRING"}
        task["inputs"]["parameters"][key] = {
            "taskOutputParameter": {"producerTask": task_name, "outputParameterKey": key}
        }


def push_each_time(spec: Spec) -> None:
    """A step's effects outside the pipeline are not part of its cache key (KFP backend/src/v2/cacheutils/cache.go): a
    version that was removed manually would not be pushed again. So the ModelPusher is never cached; it does not push
    again a model that is already served.
    """
    tasks_of(spec)[Stage.PUSHER]["cachingOptions"] = {}


def add_run_parameters(spec: Spec, values: Mapping[str, parameters.Value], hash_of_config: str) -> None:
    """Adds inputs of the whole pipeline, with defaults, and passes them to the steps that they affect.

    TFX drops the default of a RuntimeParameter (compiler_utils.py, `build_parameter_type_spec`), and cannot put one
    inside a JSON property; the server rejects a run without a value for an input without a default (KFP
    backend/src/apiserver/template/v2_template.go, `validatePipelineJobInputs`).
    """
    inputs = spec["root"].setdefault("inputDefinitions", {}).setdefault("parameters", {})
    inputs[parameters.CONFIG_HASH] = {
        "parameterType": "STRING",
        "defaultValue": hash_of_config,
        "description": "Of the configuration that was compiled; for the record.",
    }
    for parameter in parameters.PARAMETERS:
        if parameter.name in values:
            inputs[parameter.name] = {
                "parameterType": parameter.type,
                "defaultValue": values[parameter.name],
                "description": parameter.description,
            }
            _hand_to_steps(spec, parameter)


def _hand_to_steps(spec: Spec, parameter: parameters.Parameter) -> None:
    key = parameters.PREFIX + parameter.name
    for name, task in tasks_of(spec).items():
        if parameter in parameters.of_node(node_of(name)):
            component_of(spec, name)["inputDefinitions"]["parameters"][key] = {"parameterType": parameter.type}
            task["inputs"]["parameters"][key] = {"componentInputParameter": parameter.name}


def name_nodes(spec: Spec) -> None:
    """Passes the node's name to the entry point: the server gives a step its inputs and outputs, but not its name."""
    for task in tasks_of(spec):
        container_of(spec, task)["args"] += ["--node", node_of(task)]


def renew_inputs_specs(spec: Spec) -> None:
    """Input artifacts arrive without a type (KFP backend/src/v2/metadata/client.go, `GetOutputArtifactsByExecutionId`),
    and numbers as doubles: the steps read both types from this argument, which must include the added inputs, too.
    """
    for task in tasks_of(spec):
        args = container_of(spec, task)["args"]
        args[args.index(_INPUTS_SPEC) + 1] = json.dumps(component_of(spec, task)["inputDefinitions"], sort_keys=True)


def apply_stages(spec: Spec, config: Config) -> dict[str, Any]:
    """Writes resources, variables and retries into the spec; returns the platform document with the other settings.

    TFX's own `platform_config` supports only floating-point numbers, and is ignored on a FileBasedExampleGen (TFX
    step_builder.py, `_build_file_based_example_gen_spec`).
    """
    settings: dict[str, dict[str, Any]] = {}
    for name, task in tasks_of(spec).items():
        stage = _stage_of_task(config, name)
        container_of(spec, name).update(container_settings(stage))
        if policy := retry_policy(stage):
            task["retryPolicy"] = policy
        settings[component_of(spec, name)["executorLabel"]] = kubernetes_settings(stage)
    return platform_document(settings, config.kubeflow.service_account)


def _stage_of_task(config: Config, task: str) -> StageConfig:
    """The settings of a task. A step that looks up a state has its node's volumes, but no resources for computation."""
    stage = config.kubeflow.stage(node_of(task))
    return stage.model_copy(update={"accelerator": ""}) if task.endswith(STATE_SUFFIX) else stage
