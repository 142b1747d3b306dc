"""What the `kubeflow` section becomes in the spec and in the platform document."""

import pytest

from data.errors import ConfigError
from pipeline.config import load_config
from pipeline.kubeflow.platform import (
    check_stages,
    container_settings,
    kubernetes_settings,
    platform_document,
    retry_policy,
)
from pipeline.sections.kubeflow import KubeflowConfig, StageConfig

FULL = StageConfig.model_validate(
    {
        "cpu": "3500m",
        "memory": "16Gi",
        "accelerator": "google.com/tpu",
        "accelerators": 4,
        "node_selector": {"cloud.google.com/gke-tpu-topology": "2x2"},
        "tolerations": [{"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"}],
        "volumes": [{"claim": "datasets", "path": "/mnt/datasets"}],
        "secrets": [{"secret": "object-store", "key": "secretkey", "variable": "AWS_SECRET_ACCESS_KEY"}],
        "env": {"AWS_ENDPOINT_URL": "http://minio:9000"},
        "retries": 3,
        "retry_seconds": 60,
    }
)


def test_resources_and_variables_are_written_as_the_driver_reads_them():
    assert container_settings(FULL) == {
        "resources": {
            "resourceCpuLimit": "3500m",
            "resourceMemoryLimit": "16Gi",
            "accelerator": {"resourceType": "google.com/tpu", "resourceCount": "4"},
        },
        "env": [{"name": "AWS_ENDPOINT_URL", "value": "http://minio:9000"}],
    }


def test_kubernetes_settings_are_written_as_the_driver_reads_them():
    assert kubernetes_settings(FULL) == {
        "nodeSelector": {"labels": {"cloud.google.com/gke-tpu-topology": "2x2"}},
        "tolerations": [{"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"}],
        "pvcMount": [
            {
                "constant": "datasets",
                "pvcNameParameter": {"runtimeValue": {"constant": "datasets"}},
                "mountPath": "/mnt/datasets",
            }
        ],
        "secretAsEnv": [
            {
                "secretName": "object-store",
                "secretNameParameter": {"runtimeValue": {"constant": "object-store"}},
                "keyToEnv": [{"secretKey": "secretkey", "envVar": "AWS_SECRET_ACCESS_KEY"}],
            }
        ],
    }


def test_retries_wait_longer_each_time():
    assert retry_policy(FULL) == {
        "maxRetryCount": 3,
        "backoffDuration": "60s",
        "backoffFactor": 2.0,
        "backoffMaxDuration": "3600s",
    }


def test_a_stage_without_settings_leaves_no_trace():
    stage = StageConfig()
    assert container_settings(stage) == kubernetes_settings(stage) == retry_policy(stage) == {}
    assert platform_document({"a_executor": kubernetes_settings(stage)}, "") == {}


def test_only_executors_with_settings_are_in_the_platform_document():
    assert platform_document({"a": {}, "b": {"nodeSelector": {"labels": {"x": "y"}}}}, "") == {
        "platforms": {"kubernetes": {"deploymentSpec": {"executors": {"b": {"nodeSelector": {"labels": {"x": "y"}}}}}}}
    }


def test_the_service_account_is_where_a_request_for_a_run_finds_it():
    assert platform_document({}, "runner") == {"platforms": {"kubernetes": {"config": {"serviceAccount": "runner"}}}}


@pytest.mark.parametrize(
    ("place", "mounted"),
    [("/mnt/datasets", True), ("/mnt/datasets/a/b", True), ("/mnt/datasets2/a", False), ("/mnt", False)],
)
def test_a_place_is_on_a_volume_or_not(place: str, mounted: bool):
    assert FULL.mounts(place) is mounted


def test_a_stage_overrides_the_fields_that_it_gives_and_no_others():
    section = KubeflowConfig.model_validate(
        {
            "default": {"cpu": "2", "memory": "4Gi", "retries": 1},
            "stages": {"Trainer": {"memory": "32Gi", "retries": 0}},
        }
    )
    assert section.stage("Trainer") == StageConfig(cpu="2", memory="32Gi", retries=0)
    assert section.stage("ImageTransform") == StageConfig(cpu="2", memory="4Gi", retries=1)


def test_an_unknown_stage_is_named_with_the_known_ones():
    section = KubeflowConfig(stages={"Trianer": StageConfig(cpu="2")})
    with pytest.raises(
        ConfigError, match=r"kubeflow\.stages\.Trianer: no such stage; the stages are Transform, Trainer"
    ):
        check_stages(section, ["Transform", "Trainer"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("default.cpu='two'", "default.cpu='two'"),
        ("default.memory=16GB", "default.memory='16GB'"),
        ("default.accelerator=gpu", "default.accelerator='gpu'"),
        ("default.accelerators=0", "default.accelerators=0"),
        ("default.volumes=[{claim: data, path: mnt}]", "path='mnt'"),
        ("default.volumes=[{claim: a.b, path: /mnt}]", "claim='a.b'"),
        ("default.volumes=[{claim: a, path: /x}, {claim: a, path: /y}]", "claim a stands twice"),
        ("default.tolerations=[{key: a, operator: Exists, value: b}]", "'Exists' goes without a value"),
        ("default.tolerations=[{value: b}]", "'Equal' needs a key"),
        ("default.env={1X: a}", "1X"),
        ("stages.Trainer.gpus=2", "unknown key kubeflow.stages.Trainer.gpus"),
        ("training_job.workers=1", "training_job.workers=1"),
    ],
)
def test_what_kubernetes_would_not_take_dies_when_the_configuration_loads(override: str, message: str):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        load_config(None, ["data.path=/data", f"kubeflow.{override}"])
