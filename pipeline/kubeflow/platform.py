"""Converts each stage's settings in section `kubeflow` to resources, retries and Kubernetes settings.

All are built as the protobuf messages that the server reads, so that no field can be misspelt.

Sources: kubeflow/pipelines 2.17.0: backend/src/v2/driver/driver.go (`initPodSpecPatch`: resources, env),
backend/src/v2/driver/k8s.go (`extendPodSpecPatch`: volumes, secrets, node selector, tolerations),
backend/src/v2/compiler/argocompiler/container.go (`getTaskRetryParametersWithValues`: retries).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import duration_pb2, json_format
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes
from kfp.pipeline_spec import pipeline_spec_pb2

from data.errors import ConfigError
from pipeline.sections.kubeflow import KubeflowConfig, StageConfig

_Container = pipeline_spec_pb2.PipelineDeploymentConfig.PipelineContainerSpec
_LONGEST_BACKOFF = duration_pb2.Duration(seconds=3600)


def check_stages(config: KubeflowConfig, stages: Iterable[str]) -> None:
    """Raises ConfigError if the section names a stage that the pipeline does not have."""
    known = list(stages)
    for name in config.stages:
        if name not in known:
            raise ConfigError(f"kubeflow.stages.{name}: no such stage; the stages are {', '.join(known)}")


def container_settings(stage: StageConfig) -> dict[str, Any]:
    """Fields `resources` and `env` of a container, in protobuf's JSON form; only those that are set."""
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


def retry_policy(stage: StageConfig) -> dict[str, Any]:
    """Field `retryPolicy` of a task; empty if it is not retried."""
    if not stage.retries:
        return {}
    policy = pipeline_spec_pb2.PipelineTaskSpec.RetryPolicy(
        max_retry_count=stage.retries,
        backoff_duration=duration_pb2.Duration(seconds=stage.retry_seconds),
        backoff_factor=2,
        backoff_max_duration=_LONGEST_BACKOFF,
    )
    return json_format.MessageToDict(policy)


def kubernetes_settings(stage: StageConfig) -> dict[str, Any]:
    """An executor's entry in the platform document; empty if the stage needs none.

    The name of a secret or claim is written twice: servers before 2.5 know only the field that is now deprecated.
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


def platform_document(executors: Mapping[str, Mapping[str, Any]], service_account: str) -> dict[str, Any]:
    """The platform document; empty if there are no settings.

    The server takes the service account from the request for a run, not from this document: `config` is where
    `submit` and `schedule` find it.
    """
    settings = {label: setting for label, setting in executors.items() if setting}
    kubernetes_spec = {
        **({"deploymentSpec": {"executors": settings}} if settings else {}),
        **({"config": {"serviceAccount": service_account}} if service_account else {}),
    }
    return {"platforms": {"kubernetes": kubernetes_spec}} if kubernetes_spec else {}
