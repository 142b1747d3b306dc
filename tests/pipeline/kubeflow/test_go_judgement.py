"""Kubeflow's own Go types read what the compiler writes (tests/pipeline/kubeflow/go)."""

import copy
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.kubeflow.compiled_pipeline import CompiledPipeline
from pipeline.kubeflow.compiler import compile_pipeline
from pipeline.kubeflow.training_job import training_job, write_training_job
from tests.pipeline.kubeflow.conftest import PLACES, resolved
from tests.pipeline.kubeflow.test_training_job import FOLDERS as JOB_FOLDERS
from tests.pipeline.kubeflow.test_training_job import SETTINGS as JOB_SETTINGS

pytestmark = [pytest.mark.platform("needs Go"), pytest.mark.long]

MODULE = Path(__file__).parent / "go"
SETTINGS = (
    "kubeflow.default={volumes: [{claim: models, path: /mnt/models}], "
    "secrets: [{secret: store, key: access, variable: AWS_ACCESS_KEY_ID}]}",
    "kubeflow.stages.Trainer={cpu: '4', memory: 16Gi, accelerator: nvidia.com/gpu, node_selector: {pool: gpu}, "
    "tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}], retries: 2}",
)

Judge = Callable[[str, Path], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """Runs the judge on a file; it is built from the pinned modules, as go.sum says, or not at all."""
    if shutil.which("go") is None:
        pytest.skip("Go is not installed")
    program = tmp_path_factory.mktemp("judge") / "judge"
    environment = os.environ | {"GOFLAGS": "-mod=readonly -buildvcs=false", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    subprocess.run(["go", "build", "-o", program, "."], cwd=MODULE, env=environment, check=True)
    return lambda kind, path: subprocess.run([program, kind, path], capture_output=True, text=True, check=False)


def understood(judge: Judge, kind: str, path: Path) -> dict[str, Any]:
    result = judge(kind, path)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def with_settings(tiny_dataset: Path) -> CompiledPipeline:
    """The pipeline with volumes, secrets, a GPU and retries."""
    return compile_pipeline(resolved(tiny_dataset, *SETTINGS), **PLACES)


def test_kubeflow_understands_every_word_of_the_spec(judge: Judge, with_settings: CompiledPipeline, tmp_path: Path):
    with_settings.write(tmp_path / "pipeline.yaml")
    assert understood(judge, "pipeline", tmp_path / "pipeline.yaml")["spec"] == with_settings.spec


def test_a_server_as_old_as_the_types_gives_the_stages_what_the_config_says(
    judge: Judge, with_settings: CompiledPipeline, tmp_path: Path
):
    with_settings.write(tmp_path / "pipeline.yaml")
    settings = understood(judge, "pipeline", tmp_path / "pipeline.yaml")["kubernetes"]
    assert len(settings) == len(with_settings.spec["root"]["dag"]["tasks"])
    for executor in settings.values():
        assert executor["pvcMount"] == [{"constant": "models", "mountPath": "/mnt/models"}]
        variables = [{"secretKey": "access", "envVar": "AWS_ACCESS_KEY_ID"}]
        assert executor["secretAsEnv"] == [{"secretName": "store", "keyToEnv": variables}]
    trainer = settings["Trainer_executor"]
    assert trainer["nodeSelector"] == {"labels": {"pool": "gpu"}}
    assert trainer["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def misspell(spec: dict[str, Any]) -> None:
    spec["root"]["dag"]["task"] = {}


def unknown_type(spec: dict[str, Any]) -> None:
    spec["root"]["inputDefinitions"]["parameters"]["seed"]["parameterType"] = "INTEGER"


def number_for_text(spec: dict[str, Any]) -> None:
    spec["schemaVersion"] = 2.1


def list_for_mapping(spec: dict[str, Any]) -> None:
    spec["deploymentSpec"] = []


@pytest.mark.parametrize(
    ("spoil", "named"),
    [(misspell, "task"), (unknown_type, "INTEGER"), (number_for_text, "2.1"), (list_for_mapping, "pipeline spec")],
)
def test_a_spoilt_spec_is_refused(
    judge: Judge, compiled: CompiledPipeline, spoil: Callable[[dict[str, Any]], None], named: str, tmp_path: Path
):
    spec = copy.deepcopy(compiled.spec)
    spoil(spec)
    CompiledPipeline(spec).write(tmp_path / "spoilt.yaml")
    result = judge("pipeline", tmp_path / "spoilt.yaml")
    assert result.returncode == 1
    assert named in result.stderr


def test_the_training_operator_understands_the_job(judge: Judge, tiny_dataset: Path, tmp_path: Path):
    config = resolved(tiny_dataset, *JOB_SETTINGS)
    write_training_job(config, "registry.example/deeplab:1", JOB_FOLDERS, tmp_path / "tfjob.yaml")
    worker = understood(judge, "tfjob", tmp_path / "tfjob.yaml")["spec"]["tfReplicaSpecs"]["Worker"]
    assert worker["replicas"] == 3
    container = worker["template"]["spec"]["containers"][0]
    assert container["ports"] == [{"name": "tfjob-port", "containerPort": 2222}], "a default of the operator's"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"


@pytest.mark.parametrize(
    ("change", "named"), [({"kind": "PyTorchJob"}, "PyTorchJob"), ({"spec": {"tfReplicaSpec": {}}}, "tfReplicaSpec")]
)
def test_a_spoilt_job_is_refused(judge: Judge, tiny_dataset: Path, change: dict[str, Any], named: str, tmp_path: Path):
    manifest = training_job(resolved(tiny_dataset, *JOB_SETTINGS), "registry.example/deeplab:1", JOB_FOLDERS)
    (tmp_path / "tfjob.yaml").write_text(yaml.safe_dump(manifest | change))
    result = judge("tfjob", tmp_path / "tfjob.yaml")
    assert result.returncode == 1
    assert named in result.stderr
