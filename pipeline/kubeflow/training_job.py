"""Training on several pods: a TFJob of Kubeflow's Training Operator (kubeflow.org/v1).

A step of Kubeflow Pipelines is one pod, so this is not a step of the pipeline. The user runs the pipeline up to
Transform, starts the job on the transformed examples, and finds the model on the volume that the pods share. The
manifest is checked against the operator's schema; it has never run on a cluster, which the manifest states. Each pod
runs

    python -m pipeline.kubeflow.training_job --examples DIR --model DIR --config JSON

which calls the pipeline's own training function (`components.training.trainer.run_fn`) with the arguments that TFX's
Trainer would pass. The operator sets TF_CONFIG, from which a pod learns which worker it is.

Source: kubeflow/training-operator 1.8, pkg/apis/kubeflow.org/v1/tensorflow_types.go and common_types.go.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.utils import path_utils

from components.training.trainer import run_fn
from data.errors import ConfigError, ProjectError, exit_status, explain
from data.layouts.base import TRAIN, VAL
from pipeline.config import Config, config_hash
from pipeline.pipeline import trainer_config
from pipeline.stages import Stage
from pipeline.yaml_text import dump

NEVER_RUN = "Rendered and checked against the schema of the Training Operator; never run on a cluster."
COMMAND = ("python", "-m", "pipeline.kubeflow.training_job")

#: The name by which the operator finds the container (`TFJobDefaultContainerName`).
CONTAINER = "tensorflow"


@dataclass(frozen=True)
class JobFolders:
    """Folders that all pods share, on volumes of stage Trainer."""

    examples: str
    """Transform's transformed examples."""
    model: str
    """Where the trained model is written."""
    checkpoints: str
    """The checkpoints of trainings in progress."""


def write_training_job(config: Config, image: str, folders: JobFolders, path: Path) -> None:
    """Writes the manifest, with a comment at its top that states how far it has been tested."""
    manifest = dump(training_job(config, image, folders))
    path.write_text(f"# {NEVER_RUN}\n{manifest}", encoding="utf-8")


def training_job(config: Config, image: str, folders: JobFolders) -> dict[str, Any]:
    """The manifest of the TFJob.

    Args:
        config: The resolved configuration, whose strategy is 'multi_worker'.
        image: The container image of all steps.
        folders: The folders that the pods read and write.

    Raises:
        ConfigError: The strategy is a different one, training should start from the served model, or the pods do not
            share one of the folders.
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
    for name, folder in asdict(folders).items():
        if not stage.mounts(folder):
            mounted = ", ".join(volume.path for volume in stage.volumes) or "none"
            raise ConfigError(
                f"--{name} is {folder!r}, which the pods do not share; allowed: a folder on a volume of "
                f"kubeflow.stages.Trainer.volumes (now: {mounted})"
            )
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
                    "template": {"spec": _pod(config, image, folders)},
                }
            },
        },
    }


def _pod(config: Config, image: str, folders: JobFolders) -> dict[str, Any]:
    stage = config.kubeflow.stage(Stage.TRAINER)
    custom = trainer_config(config, folders.checkpoints).model_dump(mode="json")
    secrets = [
        {"name": secret.variable, "valueFrom": {"secretKeyRef": {"name": secret.secret, "key": secret.key}}}
        for secret in stage.secrets
    ]
    limits = {"cpu": stage.cpu, "memory": stage.memory}
    if stage.accelerator:
        limits[stage.accelerator] = str(stage.accelerators)
    container = {
        "name": CONTAINER,
        "image": image,
        "command": list(COMMAND),
        "args": [
            *("--examples", folders.examples),
            *("--model", folders.model),
            *("--config", json.dumps(custom, sort_keys=True)),
        ],
        "env": [*({"name": name, "value": value} for name, value in stage.env.items()), *secrets],
        "resources": {"limits": {name: amount for name, amount in limits.items() if amount}},
        "volumeMounts": [{"name": volume.claim, "mountPath": volume.path} for volume in stage.volumes],
    }
    pod: dict[str, Any] = {
        "containers": [container],
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


def training_arguments(examples: str, model: str, custom_config: str) -> FnArgs:
    """The arguments that TFX's Trainer passes to the training function.

    Args:
        examples: Folder of Transform's transformed examples, with one folder for each split.
        model: Folder of a Model artifact; the training curves are written to its subfolder `run`.
        custom_config: JSON of a `components.training.trainer.TrainerConfig`.
    """
    return FnArgs(
        train_files=[os.path.join(examples, f"Split-{TRAIN}", "*")],
        eval_files=[os.path.join(examples, f"Split-{VAL}", "*")],
        serving_model_dir=path_utils.serving_model_dir(model),
        model_run_dir=os.path.join(model, "run"),
        custom_config=json.loads(custom_config),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Trains as one of several workers; returns the exit status."""
    parser = argparse.ArgumentParser("python -m pipeline.kubeflow.training_job", allow_abbrev=False)
    parser.add_argument("--examples", required=True, help="folder of Transform's transformed examples")
    parser.add_argument("--model", required=True, help="folder for the model")
    parser.add_argument("--config", required=True, help="JSON of the training's configuration")
    arguments = parser.parse_args(argv)
    try:
        run_fn(training_arguments(arguments.examples, arguments.model, arguments.config))
    except (ProjectError, OSError) as error:
        if not (explanation := explain(error)):
            raise
        sys.stderr.write(f"error: {explanation}\n")
        return exit_status(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
