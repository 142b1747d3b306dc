"""A fresh process loads the model and sends it real requests; what does not serve is refused with the reason."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import tensorflow as tf
from tfx.types.artifact import Artifact

from components.artifacts import INFRA_BLESSED, REASON
from components.config import InfraConfig
from components.publishing.infra_check import InfraCheck
from models.export.saved_model import SERVING_SIGNATURE
from tests.components.conftest import channel, copy_model, run_node, saved_model

ONE = InfraConfig(requests=1, image_seconds=60)


def check(model: Artifact, examples: Artifact, config: InfraConfig, folder: Path) -> tuple[bool, str]:
    """The verdict and its reason."""
    node = InfraCheck(model=channel(model), examples=channel(examples), config=config)
    blessing = run_node(node, folder)["blessing"]
    blessed = bool(blessing.get_int_custom_property(INFRA_BLESSED))
    assert os.listdir(blessing.uri) == ["INFRA_BLESSED" if blessed else "INFRA_NOT_BLESSED"]
    return blessed, blessing.get_string_custom_property(REASON)


def test_a_good_model_is_blessed(model: Artifact, examples: Artifact, tmp_path: Path):
    assert check(model, examples, ONE, tmp_path) == (True, "")


@pytest.mark.long
def test_a_model_that_lacks_a_signature_is_refused(model: Artifact, examples: Artifact, tmp_path: Path):
    damaged = copy_model(model, tmp_path / "model")
    loaded = tf.saved_model.load(saved_model(model))
    only = {SERVING_SIGNATURE: loaded.signatures[SERVING_SIGNATURE]}
    tf.saved_model.save(loaded, saved_model(damaged), signatures=only)

    blessed, reason = check(damaged, examples, ONE, tmp_path)

    assert not blessed
    assert "signature predict_pixels: missing; the model has ['serving_default']" in reason


def test_a_damaged_model_is_refused(model: Artifact, examples: Artifact, tmp_path: Path):
    damaged = copy_model(model, tmp_path / "model")
    graph = Path(saved_model(damaged), "saved_model.pb")
    graph.write_bytes(graph.read_bytes()[:1000])

    blessed, reason = check(damaged, examples, ONE, tmp_path)

    assert not blessed
    assert reason.startswith("does not load: ")
    assert "exit status 1" in reason


def test_a_model_that_answers_too_late_is_refused(model: Artifact, examples: Artifact, tmp_path: Path):
    blessed, reason = check(model, examples, InfraConfig(requests=1, image_seconds=1e-6), tmp_path)

    assert not blessed
    assert "signature serving_default: took" in reason
    assert "allowed are 1e-06 s" in reason


def test_a_model_that_does_not_come_up_in_time_is_refused(model: Artifact, examples: Artifact, tmp_path: Path):
    blessed, reason = check(model, examples, InfraConfig(load_seconds=0.2), tmp_path)

    assert (blessed, reason) == (False, "no answer within infra.load_seconds=0.2, 2 times")


def test_a_model_that_came_too_late_once_has_a_second_chance(
    model: Artifact, examples: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As when the machine sleeps, or stands still, while the model is tried."""
    calls = []

    def run(command: list[str], timeout: float, **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        if len(calls) == 1:
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr("subprocess.run", run)
    assert check(model, examples, ONE, tmp_path) == (True, "")
    assert calls[0] == calls[1]


def test_the_copy_lies_in_the_artifact_and_the_process_ends_with_this_one(
    model: Artifact, examples: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    commands = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert Path(command[3], "saved_model.pb").exists()
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr("subprocess.run", run)
    assert check(model, examples, ONE, tmp_path) == (True, "")

    ((*_, copy, requests, _, parent),) = commands
    assert all(Path(path).is_relative_to(tmp_path / "blessing") for path in (copy, requests))
    assert parent == str(os.getpid())


@pytest.mark.long
def test_a_model_without_its_weights_is_refused(model: Artifact, examples: Artifact, tmp_path: Path):
    damaged = copy_model(model, tmp_path / "model")
    shutil.rmtree(Path(saved_model(damaged), "variables"))

    blessed, reason = check(damaged, examples, ONE, tmp_path)

    assert not blessed
    assert reason.startswith("does not load: ")
