"""Training on several pods: a TFJob of Kubeflow's Training Operator (kubeflow.org/v1).

A step of Kubeflow Pipelines is one pod, so this is no step of the pipeline. A person runs the pipeline as far as
Transform, starts the job on the transformed examples, and finds the model on the volume that the pods share. The
manifest is checked against the operator's schema; it has never run on a cluster, and says so itself.

Source: kubeflow/training-operator 1.8, pkg/apis/kubeflow.org/v1/tensorflow_types.go and common_types.go.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from data.errors import ConfigError
from pipeline.config import Config, config_hash
from pipeline.pipeline import trainer_config
from pipeline.sections.kubeflow import StageConfig
from pipeline.stages import Stage

NEVER_RUN = "Rendered and checked against the schema of the Training Operator; never run on a cluster."
COMMAND = ("python", "-m", "pipeline.kubeflow.training_worker")

#: The container's name by which the operator finds it (`TFJobDefaultContainerName`).
CONTAINER = "tensorflow"


@dataclass(frozen=True)
class Places:
    """Folders that all pods share, on volumes of stage Trainer."""

    examples: str
    """Transform's transformed examples."""
    model: str
    """Where the trained model goes."""
    checkpoints: str
    """Of trainings under way."""


def write_training_job(config: Config, image: str, places: Places, path: Path) -> None:
    """Writes the manifest, headed by what it has been through."""
    manifest = yaml.safe_dump(training_job(config, image, places), sort_keys=False)
    path.write_text(f"# {NEVER_RUN}\n{manifest}", encoding="utf-8")


def training_job(config: Config, image: str, places: Places) -> dict[str, Any]:
    """The manifest.

    Args:
        config: Resolved; its strategy is 'multi_worker'.
        image: The one image of all steps.
        places: Where the pods read and write.

    Raises:
        ConfigError: The strategy is another one, training is to start from the served model, or the pods do not share
            a place.
    """
    if config.training.strategy != "multi_worker":
        raise ConfigError(
            f"training.strategy is {config.training.strategy!r}; a job of several pods needs 'multi_worker'"
        )
    if config.training.warm_start:
        raise ConfigError(
            "training.warm_start is true, but a job is not told which model is served; set it to false, and "
            "training.initial_weights to the folder of a served version on a volume that the pods share"
        )
    stage = config.kubeflow.stage(Stage.TRAINER)
    _check_shared(stage, asdict(places))
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "TFJob",
        "metadata": {
            "name": f"{config.name}-training",
            "labels": {"config-hash": config_hash(config)},
            "annotations": {"deeplab/status": NEVER_RUN},
        },
        "spec": {
            "runPolicy": {"cleanPodPolicy": "Running", "backoffLimit": stage.retries},
            "tfReplicaSpecs": {
                "Worker": {
                    "replicas": config.kubeflow.training_job.workers,
                    "restartPolicy": "OnFailure",
                    "template": {"spec": _pod(config, image, places, stage)},
                }
            },
        },
    }


def _check_shared(stage: StageConfig, places: Mapping[str, str]) -> None:
    for name, place in places.items():
        if not stage.mounts(place):
            mounted = ", ".join(volume.path for volume in stage.volumes) or "none"
            raise ConfigError(
                f"--{name} is {place!r}, which the pods do not share; allowed: a folder on a volume of "
                f"kubeflow.stages.Trainer.volumes (now: {mounted})"
            )


def _pod(config: Config, image: str, places: Places, stage: StageConfig) -> dict[str, Any]:
    pod: dict[str, Any] = {
        "containers": [_container(config, image, places, stage)],
        "securityContext": {"runAsNonRoot": True},
        "volumes": [
            {"name": volume.claim, "persistentVolumeClaim": {"claimName": volume.claim}} for volume in stage.volumes
        ],
    }
    if config.kubeflow.service_account:
        pod["serviceAccountName"] = config.kubeflow.service_account
    if stage.node_selector:
        pod["nodeSelector"] = stage.node_selector
    if stage.tolerations:
        pod["tolerations"] = [
            {key: value for key, value in toleration.model_dump().items() if value} for toleration in stage.tolerations
        ]
    return pod


def _container(config: Config, image: str, places: Places, stage: StageConfig) -> dict[str, Any]:
    custom = trainer_config(config, places.checkpoints).model_dump(mode="json")
    secrets = [
        {"name": secret.variable, "valueFrom": {"secretKeyRef": {"name": secret.secret, "key": secret.key}}}
        for secret in stage.secrets
    ]
    return {
        "name": CONTAINER,
        "image": image,
        "command": list(COMMAND),
        "args": [
            *("--examples", places.examples),
            *("--model", places.model),
            *("--config", json.dumps(custom, sort_keys=True)),
        ],
        "env": [*({"name": name, "value": value} for name, value in stage.env.items()), *secrets],
        "resources": {"limits": _limits(stage)},
        "volumeMounts": [{"name": volume.claim, "mountPath": volume.path} for volume in stage.volumes],
    }


def _limits(stage: StageConfig) -> dict[str, str]:
    limits = {"cpu": stage.cpu, "memory": stage.memory}
    if stage.accelerator:
        limits[stage.accelerator] = str(stage.accelerators)
    return {name: amount for name, amount in limits.items() if amount}
