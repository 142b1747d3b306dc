"""Places: which of them a container can reach, and what relative ones are relative to."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from data.errors import ConfigError
from pipeline.cli import kubeflow_simulate as command
from pipeline.config import Config, load_config
from pipeline.kubeflow.places import check_places, on_this_machine, places_on_no_volume

SERVING, CHECKPOINTS = "/mnt/a/serving", "/mnt/a/checkpoints"


def config(*overrides: str) -> Config:
    return load_config(None, ["data.path=/mnt/a/data", *overrides])


def test_places_that_no_volume_holds_are_told():
    found = config(
        "data.path=/mnt/b/data",
        "training.initial_weights=/mnt/a/w.h5",
        "kubeflow.default.volumes=[{claim: a, path: /mnt/a}]",
        "kubeflow.stages.Trainer.volumes=[{claim: b, path: /mnt/b}]",
    )
    assert places_on_no_volume(found, SERVING, CHECKPOINTS) == [
        "data.path /mnt/b/data is on no volume of kubeflow.stages.ImageExampleGen: it must be in the image",
        "training.initial_weights /mnt/a/w.h5 is on no volume of kubeflow.stages.Trainer: it must be in the image",
        "the checkpoints' folder /mnt/a/checkpoints is on no volume of kubeflow.stages.Trainer: a new pod trains from "
        "the beginning",
    ]
    assert len(places_on_no_volume(found, "gs://bucket/serving", "/mnt/b")) == 2


@pytest.mark.parametrize(
    ("override", "serving", "checkpoints", "message"),
    [
        ("name=a", "minio://bucket/serving", CHECKPOINTS, "the serving directory is 'minio://bucket/serving'"),
        ("name=a", "serving", CHECKPOINTS, "the serving directory is 'serving', which a container cannot reach"),
        ("name=a", SERVING, "gs://bucket/checkpoints", "the checkpoints' folder is 'gs://bucket/checkpoints'"),
        ("data.path=data", SERVING, CHECKPOINTS, "data.path is 'data', which a container cannot reach"),
        ("data.path=minio://bucket/data", SERVING, CHECKPOINTS, "data.path is 'minio://bucket/data'"),
        ("training.initial_weights=a.weights.h5", SERVING, CHECKPOINTS, "training.initial_weights is 'a.weights.h5'"),
        ("data={path: '/d/span-{SPAN}', test_set: test}", SERVING, CHECKPOINTS, "data.test_set is 'test'"),
    ],
)
def test_a_place_that_no_step_can_use_is_refused(override: str, serving: str, checkpoints: str, message: str):
    with pytest.raises(ConfigError, match=message):
        check_places(config(override), serving, checkpoints)


@pytest.mark.parametrize("weights", ["random", "imagenet", "https://tfhub.dev/a/1", "/mnt/a/b.weights.h5"])
@pytest.mark.parametrize("data", ["/mnt/a/data", "gs://bucket/data", "s3://bucket/data"])
def test_what_a_step_can_reach_is_taken(weights: str, data: str):
    overrides = [f"data.path={data}", f"training.initial_weights={weights}", "model.normalization=backbone"]
    check_places(config(*overrides), "s3://bucket/serving", CHECKPOINTS)


def test_a_rehearsal_finds_relative_places_where_the_command_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    relative = config(
        "data={path: 'my data/span-{SPAN}', test_set: judge}", "training.initial_weights=start.weights.h5"
    )

    absolute = load_config(None, ["data={path: 'x-{SPAN}', test_set: window}", *on_this_machine(relative)])

    assert absolute.data.path == f"{tmp_path}/my data/span-{{SPAN}}"
    assert absolute.data.test_set == f"{tmp_path}/judge"
    assert absolute.training.initial_weights == f"{tmp_path}/start.weights.h5"
    assert on_this_machine(config("data.path=gs://bucket/data")) == []


def test_the_rehearsal_of_a_configuration_compiles_it_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({"data": {"path": "data"}}))
    given: list[Any] = []

    def resolved_config(*arguments: Any) -> None:
        given.append(arguments)
        raise ConfigError("enough")

    monkeypatch.setattr(command, "resolved_config", resolved_config)
    with pytest.raises(ConfigError, match="enough"):
        command.simulate(tmp_path / "my.yaml", store=tmp_path / "store")

    assert given == [(tmp_path / "my.yaml", [f'data.path="{tmp_path}/data"'])]
