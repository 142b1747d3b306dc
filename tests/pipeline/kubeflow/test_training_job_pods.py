"""Two pods of a Training Operator job, as processes of this machine that share a folder and read TF_CONFIG."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from components.training.trainer import RESULT_FILE
from models.export.saved_model import IMAGE_BYTES, SERVING_SIGNATURE
from pipeline.kubeflow.training_job import JobFolders, training_job
from tests.models.training.test_strategies import free_addresses
from tests.pipeline.conftest import ROOT, command_line, overrides, run_arguments
from tests.pipeline.kubeflow.conftest import resolved

pytestmark = pytest.mark.long

STEPS = 12
SETTINGS = {
    "training.deterministic": "true",
    "training.steps": str(STEPS),
    "training.eval_every": "6",
    "training.checkpoint_every": "2",
}


@pytest.fixture(scope="module")
def examples(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Transform wrote for the tiny dataset."""
    workspace = tmp_path_factory.mktemp("workspace")
    arguments = run_arguments(workspace, overrides(tiny_dataset, **SETTINGS), "--to", "ImageTransform")
    result = command_line(*arguments)
    assert result.returncode == 0, result.stderr
    (folder,) = workspace.glob("artifacts/ImageTransform/transformed_examples/*")
    return folder


@contextmanager
def pods(tiny_dataset: Path, examples: Path, folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The containers of a job of two pods; they do not outlive this."""
    places = JobFolders(str(examples), str(folder / "model"), str(folder / "checkpoints"))
    config = resolved(
        tiny_dataset,
        *(f"{key}={value}" for key, value in SETTINGS.items()),
        "training.strategy=multi_worker",
        "kubeflow.training_job.workers=2",
        f"kubeflow.stages.Trainer={{volumes: [{{claim: shared, path: {os.path.commonpath([examples, folder])}}}]}}",
    )
    template = training_job(config, "registry.example/deeplab:1", places)["spec"]["tfReplicaSpecs"]["Worker"][
        "template"
    ]
    container = template["spec"]["containers"][0]
    command = [*container["command"], *container["args"]]
    cluster = {"worker": free_addresses(2)}
    folder.mkdir(exist_ok=True)
    with (folder / "errors").open("ab") as errors:
        started = [
            subprocess.Popen(
                [sys.executable, *command[1:]],
                cwd=ROOT,
                env={**os.environ, "TF_CONFIG": json.dumps({"cluster": cluster, "task": task(index)})},
                stderr=errors,
            )
            for index in range(2)
        ]
    try:
        yield started
    finally:
        for worker in started:
            worker.kill()
            worker.wait()


def task(index: int) -> dict[str, Any]:
    return {"type": "worker", "index": index}


def finish(started: list[subprocess.Popen[bytes]], folder: Path) -> list[dict[str, Any]]:
    """The evaluations of a training that came to its end."""
    assert [worker.wait(timeout=600) for worker in started] == [0, 0], (folder / "errors").read_text()[-3000:]
    result = json.loads((folder / "model" / "run" / RESULT_FILE).read_text())
    assert result["steps"] == STEPS
    return result["history"]


@pytest.fixture(scope="module")
def undisturbed(tiny_dataset: Path, examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job that nothing happened to."""
    folder = examples.parent / "undisturbed"
    with pods(tiny_dataset, examples, folder) as started:
        finish(started, folder)
    return folder


def test_the_chief_exports_a_model_that_serves(undisturbed: Path, tiny_dataset: Path) -> None:
    (saved,) = undisturbed.glob("model/**/saved_model.pb")
    serve = tf.saved_model.load(str(saved.parent)).signatures[SERVING_SIGNATURE]
    picture = next(tiny_dataset.rglob("*.jpg")).read_bytes()
    answer = serve(**{IMAGE_BYTES: tf.constant([picture])})
    assert tf.io.decode_png(answer["mask_bytes"][0]).shape[:2] == tf.io.decode_jpeg(picture).shape[:2]


def test_after_the_chief_was_killed_the_job_goes_on_and_ends_as_if_nothing_had_happened(
    tiny_dataset: Path, examples: Path, undisturbed: Path
) -> None:
    folder = examples.parent / "killed"
    with pods(tiny_dataset, examples, folder) as (chief, other):
        while not list(folder.glob("checkpoints/**/*.index")):
            assert chief.poll() is None, (folder / "errors").read_text()[-3000:]
            time.sleep(0.05)
        chief.send_signal(signal.SIGKILL)
        assert other.wait(timeout=300) != 0
    assert not list(folder.glob("model/**/saved_model.pb"))
    with pods(tiny_dataset, examples, folder) as started:
        resumed = finish(started, folder)
    expected = json.loads((undisturbed / "model" / "run" / RESULT_FILE).read_text())["history"]
    assert [each["mean_iou"] for each in resumed] == pytest.approx([each["mean_iou"] for each in expected], abs=1e-6)
