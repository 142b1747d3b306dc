"""The files of deploy/ that docs/kubeflow.md applies to a cluster."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from pipeline.sections.kubeflow import KubeflowConfig

ROOT = Path(__file__).resolve().parents[1]
STORAGE = list(yaml.safe_load_all((ROOT / "deploy/storage.yaml").read_text()))
SHELL = yaml.safe_load((ROOT / "deploy/shell.yaml").read_text())


@pytest.mark.parametrize("document", [*STORAGE, SHELL], ids=lambda document: document["kind"])
def test_kubernetes_takes_the_manifest(document: dict[str, Any]):
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_shell_sees_the_volume_where_the_steps_do():
    (volume,), (container,) = SHELL["spec"]["volumes"], SHELL["spec"]["containers"]
    claim = STORAGE[0]["metadata"]
    assert SHELL["metadata"]["namespace"] == claim["namespace"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["name"]
    assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": "/mnt/pipeline"}]


def test_trainings_to_which_nothing_was_written_for_a_fortnight_are_removed(tmp_path: Path):
    (container,) = STORAGE[2]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    checkpoints = tmp_path / "checkpoints"

    def add(name: str, *days: float) -> None:
        files = [checkpoints / name / f"checkpoints/state/step-{number}.index" for number, _ in enumerate(days)]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        for path in [checkpoints / name, *(checkpoints / name).rglob("*")]:
            os.utime(path, (time.time() - max(days) * 86400,) * 2)
        for file, age in zip(files, days, strict=True):
            os.utime(file, (time.time() - age * 86400,) * 2)

    add("streets/under-way", 40, 1)
    add("streets/abandoned", 60, 40)
    add("fields/finished lately", 13)
    add("fields/finished", 16)
    (checkpoints / "notes.txt").touch()
    os.utime(checkpoints / "notes.txt", (0, 0))

    def remove() -> None:
        script = container["command"][2].replace("/mnt/pipeline", str(tmp_path))
        subprocess.run([*container["command"][:2], script], check=True)

    remove()
    left = sorted(str(path.relative_to(checkpoints)) for path in [*checkpoints.glob("*/*"), *checkpoints.glob("*.txt")])
    assert left == ["fields/finished lately", "notes.txt", "streets/under-way"]
    shutil.rmtree(checkpoints / "streets")
    shutil.rmtree(checkpoints / "fields")
    remove()
    assert [path.name for path in checkpoints.iterdir()] == ["notes.txt"]


def test_the_configuration_loads_and_mounts_the_claim_everywhere():
    section = yaml.safe_load((ROOT / "deploy/kubeflow.yaml").read_text())["kubeflow"]
    kubeflow = KubeflowConfig.model_validate(section)
    for stage in ("ImageExampleGen", "Trainer"):
        (volume,) = kubeflow.stage(stage).volumes
        assert (volume.claim, volume.path) == (STORAGE[0]["metadata"]["name"], "/mnt/pipeline")
    assert kubeflow.stage("Trainer").accelerator and not kubeflow.stage("ImageExampleGen").accelerator


def commands_of_the_guide() -> list[str]:
    """`python kubeflow_runner.py ...` in docs/kubeflow.md, continued lines joined."""
    text = (ROOT / "docs/kubeflow.md").read_text().replace("\\\n", " ")
    return sorted({line.partition("#")[0].strip() for line in text.splitlines() if line.startswith("python kubeflow_")})


@pytest.mark.parametrize("command", sorted({line.split()[2] for line in commands_of_the_guide()}))
def test_the_guide_uses_options_that_exist(command: str):
    shown = subprocess.run(
        [sys.executable, "kubeflow_runner.py", command, "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "200"},
    ).stdout
    used = {
        word
        for line in commands_of_the_guide()
        if line.split()[2] == command
        for word in line.split()[3:]
        if word.startswith("-")
    }
    assert used <= {word.strip(",") for word in shown.split()}
