"""The manifest for training on several pods."""

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner

import kubeflow_runner
from components.training.trainer import TrainingConfig
from data.errors import TEMPORARY, ConfigError, IncompleteDataError, ProjectError, TrainingError
from pipeline.config import Config
from pipeline.kubeflow.training_job import (
    NEVER_RUN,
    JobFolders,
    main,
    training_arguments,
    training_job,
    write_training_job,
)
from tests.pipeline.kubeflow.conftest import resolved

FOLDERS = JobFolders("/mnt/shared/examples", "/mnt/shared/model", "/mnt/shared/checkpoints")
SETTINGS = (
    "training.strategy=multi_worker",
    "kubeflow.training_job.workers=3",
    "kubeflow.service_account=trainer",
    "kubeflow.stages.Trainer={cpu: '4', memory: 16Gi, accelerator: nvidia.com/gpu, accelerators: 2, retries: 1, "
    "volumes: [{claim: shared, path: /mnt/shared}], node_selector: {pool: gpu}, env: {NCCL_DEBUG: WARN}, "
    "tolerations: [{key: nvidia.com/gpu, operator: Exists}], secrets: [{secret: s3, key: k, variable: AWS_SECRET}]}",
)


@pytest.fixture(scope="module")
def multi_worker(tiny_dataset: Path) -> Config:
    """A configuration of three pods with two GPUs each."""
    return resolved(tiny_dataset, *SETTINGS)


@pytest.fixture(scope="module")
def manifest(multi_worker: Config) -> dict[str, Any]:
    """Its manifest."""
    return training_job(multi_worker, "registry.example/deeplab:1", FOLDERS)


def pod(manifest: dict[str, Any]) -> dict[str, Any]:
    return manifest["spec"]["tfReplicaSpecs"]["Worker"]["template"]["spec"]


def test_several_pods_train_with_what_stage_trainer_gets(manifest: dict[str, Any]):
    assert (manifest["apiVersion"], manifest["kind"]) == ("kubeflow.org/v1", "TFJob")
    assert manifest["spec"]["tfReplicaSpecs"]["Worker"]["replicas"] == 3
    container = pod(manifest)["containers"][0]
    assert container["name"] == "tensorflow"
    assert container["resources"] == {"limits": {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "2"}}
    assert {"name": "NCCL_DEBUG", "value": "WARN"} in container["env"]
    assert container["volumeMounts"] == [{"name": "shared", "mountPath": "/mnt/shared"}]
    assert pod(manifest)["nodeSelector"] == {"pool": "gpu"}
    assert pod(manifest)["serviceAccountName"] == "trainer"


def test_the_operator_gives_tf_config(manifest: dict[str, Any]):
    assert "TF_CONFIG" not in json.dumps(manifest)


def test_the_pod_is_one_that_kubernetes_takes(manifest: dict[str, Any]):
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "worker"}, "spec": pod(manifest)}
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_pods_run_the_pipelines_training_function(multi_worker: Config, manifest: dict[str, Any]):
    container = pod(manifest)["containers"][0]
    assert container["command"] == ["python", "-m", "pipeline.kubeflow.training_job"]
    flags = dict(zip(container["args"][::2], container["args"][1::2], strict=True))
    given = training_arguments(flags["--examples"], flags["--model"], flags["--config"])
    assert given.train_files == ["/mnt/shared/examples/Split-train/*"]
    assert given.eval_files == ["/mnt/shared/examples/Split-val/*"]
    assert given.serving_model_dir == "/mnt/shared/model/Format-Serving"
    assert given.model_run_dir == "/mnt/shared/model/run"
    assert given.custom_config["checkpoints"] == f"/mnt/shared/checkpoints/{multi_worker.name}"
    assert TrainingConfig.model_validate(given.custom_config["training"]) == multi_worker.training


def test_the_file_says_that_it_never_ran(multi_worker: Config, manifest: dict[str, Any], tmp_path: Path):
    write_training_job(multi_worker, "registry.example/deeplab:1", FOLDERS, tmp_path / "tfjob.yaml")
    text = (tmp_path / "tfjob.yaml").read_text()
    assert text.startswith(f"# {NEVER_RUN}\n")
    assert yaml.safe_load(text) == manifest
    assert manifest["metadata"]["annotations"] == {"deeplab/status": NEVER_RUN}


def test_one_pod_needs_no_job(config: Config):
    with pytest.raises(ConfigError, match="training.strategy is 'one_device'; .* needs 'multi_worker'"):
        training_job(config, "image", FOLDERS)


def test_a_job_that_nobody_tells_what_is_served_cannot_start_from_it(tiny_dataset: Path):
    with pytest.raises(
        ConfigError, match="training.warm_start is true, but .* set it to false, and training.initial_w"
    ):
        training_job(resolved(tiny_dataset, *SETTINGS, "training.warm_start=true"), "image", FOLDERS)


def test_a_folder_that_the_pods_do_not_share_is_refused(multi_worker: Config):
    places = JobFolders("/mnt/shared/examples", "/mnt/sharedness/model", "/mnt/shared")
    with pytest.raises(ConfigError, match="--model is '/mnt/sharedness/model'.*now: /mnt/shared"):
        training_job(multi_worker, "image", places)


def test_the_command_line_renders_it(multi_worker: Config, manifest: dict[str, Any], tmp_path: Path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(multi_worker.model_dump(mode="json", exclude_unset=True)))
    places = [f"--{name}={value}" for name, value in vars(FOLDERS).items()]
    result = CliRunner().invoke(
        kubeflow_runner.app,
        ["tfjob", f"--config={tmp_path / 'config.yaml'}", *places, "-o", str(tmp_path / "tfjob.yaml")],
        env={"DEEPLAB_IMAGE": "registry.example/deeplab:1"},
    )
    assert result.exit_code == 0, result.output
    assert yaml.safe_load((tmp_path / "tfjob.yaml").read_text()) == manifest


@pytest.mark.parametrize(
    ("error", "status"), [(TrainingError("it diverged"), 1), (IncompleteDataError("still being copied"), TEMPORARY)]
)
def test_a_worker_that_fails_says_why_and_whether_another_try_may_help(
    error: ProjectError, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr("pipeline.kubeflow.training_job.run_fn", fail)

    assert main(["--examples", "/examples", "--model", "/model", "--config", "{}"]) == status
    assert capsys.readouterr().err == f"error: {error}\n"
