"""The paths that a compiled pipeline reads and writes. Its steps share no folder with the machine that compiles."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from components.storage.file_systems import is_local
from data.errors import ConfigError
from pipeline.config import Config
from pipeline.stages import Stage


class Place(NamedTuple):
    """A folder or file that the configuration names."""

    stage: str
    """The stage that reads it."""
    key: str
    where: str


def read_places(config: Config) -> Iterator[Place]:
    """The files and folders that the stages read in addition to artifacts."""
    yield Place(Stage.EXAMPLE_GEN, "data.path", config.data.path)
    if config.data.test_set not in ("fixed", "window"):
        yield Place(Stage.EXAMPLE_GEN, "data.test_set", config.data.test_set)
    weights = config.training.initial_weights
    if weights not in ("random", "imagenet") and is_local(weights):
        yield Place(Stage.TRAINER, "training.initial_weights", weights)


def on_this_machine(config: Config) -> list[str]:
    """Overrides that make relative paths absolute: a step's working directory is not that of this command."""
    return [
        f"{place.key}={json.dumps(str(Path(place.where).absolute()))}"
        for place in read_places(config)
        if is_local(place.where)
    ]


def check_places(config: Config, serving: str, checkpoints: str) -> None:
    """Raises ConfigError for a path that a step cannot use, because a container shares no folder with this machine."""
    named = [(place.key, place.where) for place in read_places(config)]
    for name, place in (*named, ("the serving directory", serving)):
        if not re.match(r"(/|gs://.|s3://.)", place):
            raise ConfigError(
                f"{name} is {place!r}, which a container cannot reach; allowed: gs://, s3://, or the absolute path of "
                "a folder on a volume of kubeflow.default.volumes"
            )
    if not checkpoints.startswith("/"):
        raise ConfigError(
            f"the checkpoints' folder is {checkpoints!r}; training writes them to a file system: give an absolute path,"
            " on a volume of kubeflow.stages.Trainer.volumes if a new pod shall go on where another one stopped"
        )


def places_on_no_volume(config: Config, serving: str, checkpoints: str) -> list[str]:
    """The paths that would be read or written only inside a step's pod, as sentences; empty if all are on volumes."""
    places = (
        *((*place, "it must be in the image") for place in read_places(config)),
        (Stage.PUSHER, "the serving directory", serving, "the pushed model is gone with the pod"),
        (Stage.RUN_REPORTER, "the serving directory", serving, "the pushed model gets no model card"),
        (Stage.TRAINER, "the checkpoints' folder", checkpoints, "a new pod trains from the beginning"),
    )
    return [
        f"{what} {place} is on no volume of kubeflow.stages.{stage}: {otherwise}"
        for stage, what, place, otherwise in places
        if place.startswith("/") and not config.kubeflow.stage(stage).mounts(place)
    ]
