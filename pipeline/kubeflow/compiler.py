"""Compiles the pipeline for open-source Kubeflow Pipelines v2.

TFX's compiler targets Vertex AI. What is changed in its output stands below with the server's rule that requires it;
"KFP" is kubeflow/pipelines 2.17.0 (paths below `backend/src`), "TFX" is tfx 1.21.0. Settings of stages are built as the
protobuf messages that the server reads, so that no field can be misspelt.
"""

import copy
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import duration_pb2, json_format
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.base_node import BaseNode
from tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner import KubeflowV2DagRunner, KubeflowV2DagRunnerConfig
from tfx.utils import name_utils

from components.code_hash import ROOT
from components.drivers import StateDriver
from components.storage.file_systems import is_local
from data.errors import ConfigError
from pipeline.config import Config, config_hash
from pipeline.kubeflow import parameters
from pipeline.kubeflow.compiled_pipeline import CompiledPipeline
from pipeline.kubeflow.rules import check_spec
from pipeline.kubeflow.run_report import RunReporter
from pipeline.pipeline import PipelinePaths, create_pipeline
from pipeline.sections.kubeflow import KubeflowConfig, StageConfig
from pipeline.stages import Stage

#: How the image starts a step; its working directory is the project's folder.
COMMAND = ("python", "-m", "pipeline.kubeflow.entrypoint")

STATE_SUFFIX = "-state"
_INPUTS_SPEC = "--json_serialized_inputs_spec_args"
_LONGEST_BACKOFF = duration_pb2.Duration(seconds=3600)
_Container = pipeline_spec_pb2.PipelineDeploymentConfig.PipelineContainerSpec


class InputPath(NamedTuple):
    """A file or folder that the configuration names and a stage reads."""

    stage: str
    key: str
    path: str


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
        ConfigError: A path cannot be reached from a container, a stage is unknown, or the strategy does not fit the
            Trainer's one pod.
        SpecError: The server would reject the result.
    """
    check_paths(config, serving, checkpoints)
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
    ingested = f"{serving.rstrip('/')}-ingested"
    paths = PipelinePaths(artifacts=pipeline_root, serving=serving, checkpoints=checkpoints, ingested=ingested)
    pipeline = create_pipeline(config, paths, last=lambda nodes: RunReporter(config, nodes))
    nodes = {node.id: node for node in pipeline.components}
    for name in config.kubeflow.stages:
        if name not in nodes:
            raise ConfigError(f"kubeflow.stages.{name}: no such stage; the stages are {', '.join(nodes)}")

    # The server accepts only schema 2.1.0 (KFP apiserver/template/v2_template.go, `NewV2SpecTemplate`). By default TFX
    # writes 2.0.0.
    settings = KubeflowV2DagRunnerConfig(
        default_image=image, default_commands=list(COMMAND), use_pipeline_spec_2_1=True
    )
    spec = KubeflowV2DagRunner(settings).run(pipeline, write_out=False)["pipelineSpec"]
    spec["defaultPipelineRoot"] = pipeline_root
    compiled = CompiledPipeline(spec)
    add_state_steps(compiled, nodes)
    # A step's effects outside the pipeline are not part of its cache key (KFP v2/cacheutils/cache.go): a version that
    # was removed manually would not be pushed again. The ModelPusher does not push again a model that is served.
    compiled.tasks[Stage.PUSHER]["cachingOptions"] = {}
    add_run_parameters(compiled, parameters.defaults(config, serving), config_hash(config))
    complete_arguments(compiled)
    compiled = CompiledPipeline(spec, apply_stages(compiled, config.kubeflow))
    check_spec(compiled.spec, compiled.platforms)
    return compiled


def node_of(task: str) -> str:
    """The pipeline's node that a task belongs to: its own name, or the node whose state it looks up."""
    return task.removesuffix(STATE_SUFFIX)


def add_state_steps(compiled: CompiledPipeline, nodes: Mapping[str, BaseNode]) -> None:
    """The server does not run TFX's drivers, so an extra step before the node looks the state up.

    The server's driver only resolves inputs and looks for a cached result (KFP v2/driver/container.go, `Container`),
    and TFX's hook `lifecycle.preCacheCheck` is never read. The result of the extra step becomes an input of the node,
    and thus part of its cache key (`GenerateCacheKey`); the extra step itself is never cached.
    """
    for name, node in nodes.items():
        if not isinstance(node, BaseComponent) or not issubclass(node.driver_class, StateDriver):
            continue
        # A `StateDriver` sets the optional execution properties that have no value yet.
        keys = [
            key
            for key, declared in node.spec.PARAMETERS.items()
            if declared.optional and node.exec_properties.get(key) is None
        ]
        if not keys:
            continue
        state, label = name + STATE_SUFFIX, f"{name}{STATE_SUFFIX}_executor"
        task, component = compiled.tasks[name], compiled.component(name)
        driver = name_utils.get_full_name(node.driver_class)
        compiled.spec["deploymentSpec"]["executors"][label] = {
            "container": {
                "image": compiled.container(name)["image"],
                "command": list(COMMAND),
                "args": ["--state-of", driver, "--json_serialized_invocation_args", "{{$}}", _INPUTS_SPEC, ""],
            }
        }
        compiled.spec["components"][state] = {
            "executorLabel": label,
            "inputDefinitions": {"parameters": copy.deepcopy(component["inputDefinitions"]["parameters"])},
            "outputDefinitions": {"parameters": {key: {"parameterType": "STRING"} for key in keys}},
        }
        compiled.tasks[state] = {
            "taskInfo": {"name": state},
            "componentRef": {"name": state},
            "inputs": {"parameters": copy.deepcopy(task["inputs"]["parameters"])},
            "cachingOptions": {},
        }
        task["dependentTasks"] = [*task.get("dependentTasks", []), state]
        for key in keys:
            component["inputDefinitions"]["parameters"][key] = {"parameterType": "STRING"}
            task["inputs"]["parameters"][key] = {
                "taskOutputParameter": {"producerTask": state, "outputParameterKey": key}
            }


def add_run_parameters(compiled: CompiledPipeline, values: Mapping[str, parameters.Value], hash_of_config: str) -> None:
    """Adds inputs of the whole pipeline, with defaults, and passes them to the steps that they affect.

    TFX drops the default of a RuntimeParameter (compiler_utils.py, `build_parameter_type_spec`), and cannot put one
    inside a JSON property; the server rejects a run without a value for an input without a default (KFP
    apiserver/template/v2_template.go, `validatePipelineJobInputs`).
    """
    inputs = compiled.spec["root"].setdefault("inputDefinitions", {}).setdefault("parameters", {})
    inputs[parameters.CONFIG_HASH] = {
        "parameterType": "STRING",
        "defaultValue": hash_of_config,
        "description": "Of the configuration that was compiled; for the record.",
    }
    for parameter in parameters.PARAMETERS:
        if parameter.name not in values:
            continue
        of_serving = parameter.key == "serving"
        inputs[parameter.name] = {
            "parameterType": parameter.type,
            "defaultValue": values[parameter.name],
            "description": "Serving directory" if of_serving else f"Configuration key {parameter.key}",
        }
        key = parameters.PREFIX + parameter.name
        for name, task in compiled.tasks.items():
            if parameter.targets_in(node_of(name)):
                declared = compiled.component(name)["inputDefinitions"]["parameters"]
                declared[key] = {"parameterType": parameter.type}
                task["inputs"]["parameters"][key] = {"componentInputParameter": parameter.name}


def complete_arguments(compiled: CompiledPipeline) -> None:
    """Makes the arguments of each step those that its entry point needs; called when the spec has all its inputs."""
    setup_file = f"--setup_file={ROOT / 'setup.py'}"
    for name in compiled.tasks:
        container = compiled.container(name)
        # The local path of setup.py, which Beam's workers are given, is wrong in a container, where the file is in the
        # working directory. It would also make the cache key (KFP v2/cacheutils/cache.go, `GenerateCacheKey`:
        # arguments) depend on where the pipeline was compiled.
        args = ["--setup_file=./setup.py" if arg == setup_file else arg for arg in container["args"]]
        # Input artifacts arrive without a type (KFP v2/metadata/client.go, `GetOutputArtifactsByExecutionId`), and
        # numbers as doubles: the steps read both types from this argument, which must include the added inputs, too.
        inputs_spec = json.dumps(compiled.component(name)["inputDefinitions"], sort_keys=True)
        args[args.index(_INPUTS_SPEC) + 1] = inputs_spec
        # The server gives a step its inputs and outputs, but not its name.
        container["args"] = [*args, "--node", node_of(name)]


def apply_stages(compiled: CompiledPipeline, section: KubeflowConfig) -> dict[str, Any]:
    """Writes resources, variables and retries into the spec; returns the platform document with the other settings.

    TFX's own `platform_config` supports only floating-point numbers, and is ignored on a FileBasedExampleGen (TFX
    step_builder.py, `_build_file_based_example_gen_spec`). Retries: KFP v2/compiler/argocompiler/container.go,
    `getTaskRetryParametersWithValues`.
    """
    executors = {}
    for name, task in compiled.tasks.items():
        stage = section.stage(node_of(name))
        if name.endswith(STATE_SUFFIX):  # It has its node's volumes, but no resources for computation.
            stage = stage.model_copy(update={"accelerator": ""})
        compiled.container(name).update(container_settings(stage))
        if stage.retries:
            policy = pipeline_spec_pb2.PipelineTaskSpec.RetryPolicy(
                max_retry_count=stage.retries,
                backoff_duration=duration_pb2.Duration(seconds=stage.retry_seconds),
                backoff_factor=2,
                backoff_max_duration=_LONGEST_BACKOFF,
            )
            task["retryPolicy"] = json_format.MessageToDict(policy)
        if settings := kubernetes_settings(stage):
            executors[compiled.component(name)["executorLabel"]] = settings
    platform: dict[str, Any] = {"deploymentSpec": {"executors": executors}} if executors else {}
    if section.service_account:
        # The server takes the service account from the request for a run, not from this document, where `submit` and
        # `schedule` find it.
        platform["config"] = {"serviceAccount": section.service_account}
    return {"platforms": {"kubernetes": platform}} if platform else {}


def container_settings(stage: StageConfig) -> dict[str, Any]:
    """Fields `resources` and `env` of a container, in protobuf's JSON form; only those that are set.

    Source: KFP v2/driver/driver.go, `initPodSpecPatch`.
    """
    container = _Container(env=[_Container.EnvVar(name=name, value=value) for name, value in stage.env.items()])
    resources = container.resources
    resources.resource_cpu_limit = stage.cpu
    resources.resource_memory_limit = stage.memory
    if stage.accelerator:
        resources.accelerator.resource_type = stage.accelerator
        resources.accelerator.resource_count = str(stage.accelerators)
    if not resources.ByteSize():
        container.ClearField("resources")
    return json_format.MessageToDict(container)


def kubernetes_settings(stage: StageConfig) -> dict[str, Any]:
    """An executor's entry in the platform document; empty if the stage needs none.

    The name of a secret or claim is written twice: servers before 2.5 know only the field that is now deprecated.
    Source: KFP v2/driver/k8s.go, `extendPodSpecPatch`.
    """
    message = kubernetes.KubernetesExecutorConfig(
        pvc_mount=[
            kubernetes.PvcMount(
                constant=volume.claim, pvc_name_parameter=_constant(volume.claim), mount_path=volume.path
            )
            for volume in stage.volumes
        ],
        secret_as_env=[
            kubernetes.SecretAsEnv(
                secret_name=secret.secret,
                secret_name_parameter=_constant(secret.secret),
                key_to_env=[kubernetes.SecretAsEnv.SecretKeyToEnvMap(secret_key=secret.key, env_var=secret.variable)],
            )
            for secret in stage.secrets
        ],
        tolerations=[kubernetes.Toleration(**toleration.model_dump()) for toleration in stage.tolerations],
    )
    if stage.node_selector:
        message.node_selector.labels.update(stage.node_selector)
    return json_format.MessageToDict(message)


def _constant(value: str) -> pipeline_spec_pb2.TaskInputsSpec.InputParameterSpec:
    parameter = pipeline_spec_pb2.TaskInputsSpec.InputParameterSpec()
    parameter.runtime_value.constant.string_value = value
    return parameter


def input_paths(config: Config) -> Iterator[InputPath]:
    """The files and folders that the stages read in addition to artifacts."""
    yield InputPath(Stage.EXAMPLE_GEN, "data.path", config.data.path)
    if config.data.test_set not in ("fixed", "window"):
        yield InputPath(Stage.EXAMPLE_GEN, "data.test_set", config.data.test_set)
    weights = config.training.initial_weights
    if weights not in ("random", "imagenet") and is_local(weights):
        yield InputPath(Stage.TRAINER, "training.initial_weights", weights)


def absolute_paths(config: Config) -> list[str]:
    """Overrides that make relative paths absolute: a step's working directory is not that of this command."""
    return [
        f"{read.key}={json.dumps(str(Path(read.path).absolute()))}"
        for read in input_paths(config)
        if is_local(read.path)
    ]


def check_paths(config: Config, serving: str, checkpoints: str) -> None:
    """Raises ConfigError for a path that a step cannot use, because a container shares no folder with this machine."""
    named = [(read.key, read.path) for read in input_paths(config)]
    for name, path in (*named, ("the serving directory", serving)):
        if not re.match(r"(/|gs://.|s3://.)", path):
            raise ConfigError(
                f"{name} is {path!r}, which a container cannot reach; allowed: gs://, s3://, or the absolute path of "
                "a folder on a volume of kubeflow.default.volumes"
            )
    if not checkpoints.startswith("/"):
        raise ConfigError(
            f"the checkpoints' folder is {checkpoints!r}, but training writes them to a file system; allowed: an "
            "absolute path, on a volume of kubeflow.stages.Trainer.volumes if a new pod shall resume the training of "
            "one that stopped"
        )


def paths_on_no_volume(config: Config, serving: str, checkpoints: str) -> list[str]:
    """The paths that would be read or written only inside a step's pod, as sentences; empty if all are on volumes."""
    paths = (
        *((*read, "it must be in the image") for read in input_paths(config)),
        (Stage.PUSHER, "the serving directory", serving, "the pushed model is lost with the pod"),
        (Stage.RUN_REPORTER, "the serving directory", serving, "the pushed model gets no model card"),
        (Stage.TRAINER, "the checkpoints' folder", checkpoints, "a new pod trains from the beginning"),
    )
    return [
        f"{what} {path} is on no volume of kubeflow.stages.{stage}: {otherwise}"
        for stage, what, path, otherwise in paths
        if path.startswith("/") and not config.kubeflow.stage(stage).mounts(path)
    ]
