"""What a training starts from: the served model as the stage before it found it, and how many steps it then takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.artifact import Artifact
from tfx.utils import path_utils

from components.artifacts import COPIED_VERSION
from components.publishing.directory import publish
from components.publishing.served_model import is_present
from components.training.trainer import Trainer, TrainerConfig, initial_weights, warm_started
from components.training.warm_start import WarmStart
from data.errors import ConfigError
from data.labels import ClassLabel, LabelMap
from models.config import TrainingConfig
from models.network.deeplab import build_model
from tests.components.conftest import TINY, artifact, channel, run_node, saved_model
from tests.components.training.configurations import trainer_config

# Keras' reading of a variable, with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

WriteRecords = Callable[..., str]


@pytest.fixture
def serving(tmp_path: Path) -> str:
    """A serving directory with two versions."""
    for weights in (b"old", b"new"):
        (tmp_path / "pushed").mkdir(exist_ok=True)
        (tmp_path / "pushed/saved_model.pb").write_bytes(weights)
        publish(str(tmp_path / "pushed"), str(tmp_path / "serving"), ["sky", "road"], {})
    return str(tmp_path / "serving")


@pytest.fixture
def examples(tmp_path: Path) -> Artifact:
    """Examples with files for train and val."""
    made = artifact(standard_artifacts.Examples, tmp_path / "examples")
    made.split_names = artifact_utils.encode_split_names(["train", "val"])
    return made


def start(serving: str, examples: Artifact, folder: Path) -> Artifact:
    """What the stage finds."""
    node = WarmStart(examples=channel(examples), serving_dir=serving, custom_config="{}")
    return run_node(node, folder)["model"]


def test_the_served_version_is_copied_and_named(serving: str, examples: Artifact, tmp_path: Path):
    model = start(serving, examples, tmp_path / "out")

    assert (is_present(model), model.get_int_custom_property(COPIED_VERSION)) == (True, 2)
    assert Path(path_utils.serving_model_dir(model.uri), "saved_model.pb").read_bytes() == b"new"


def test_where_nothing_is_served_the_start_is_absent(examples: Artifact, tmp_path: Path):
    assert not is_present(start(str(tmp_path / "serving"), examples, tmp_path / "out"))


#: What the last training was handed.
HANDED: list[FnArgs] = []


def remember(fn_args: FnArgs) -> None:
    """In place of `components.training.trainer.run_fn`."""
    HANDED.append(fn_args)
    Path(fn_args.serving_model_dir).mkdir(parents=True)


@pytest.mark.parametrize("served", [True, False])
def test_tfx_hands_the_start_over_to_the_training(
    served: bool, serving: str, examples: Artifact, tmp_path: Path
) -> None:
    base = start(serving if served else str(tmp_path / "nothing"), examples, tmp_path / "start")
    graph = artifact(standard_artifacts.TransformGraph, tmp_path / "graph")
    with patch("components.training.trainer.run_fn", remember):
        node = Trainer(channel(examples), channel(graph), config(), channel(base))
    run_node(node, tmp_path / "trained")

    (handed,) = HANDED
    HANDED.clear()
    started = warm_started(TrainerConfig.model_validate(handed.custom_config), handed.base_model, [])
    expected = path_utils.serving_model_dir(base.uri) if served else "random"
    assert started.training.initial_weights == expected


def config(checkpoints: str = "", **training: Any) -> TrainerConfig:
    """A configuration of the Trainer that starts from the served model."""
    values = {"warm_start": True, "steps": 100, "warmup_steps": 10, "global_batch_size": 2, **training}
    return trainer_config(values, checkpoints)


@pytest.fixture
def base(tmp_path: Path) -> str:
    """The folder of a served model."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base/saved_model.pb").touch()
    return str(tmp_path / "base")


@pytest.fixture
def five_images(write_records: WriteRecords, tmp_path: Path) -> list[str]:
    """Files of records, with five images in all."""
    pair = (np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), np.uint8))
    return [write_records(tmp_path / f"{count}.gz", [pair] * count) for count in (2, 3)]


def test_steps_scale_with_the_images_and_the_warm_up_with_the_steps(base: str, five_images: list[str]):
    started = warm_started(config(warm_start_epochs=8), base, five_images).training

    assert (started.initial_weights, started.steps, started.warmup_steps) == (base, 20, 2)


def test_steps_stay_as_configured_for_a_fresh_training_or_without_the_rule(base: str, five_images: list[str]):
    fresh = config(warm_start_epochs=8)

    assert warm_started(fresh, base + "/nothing", five_images) == fresh
    assert warm_started(config(), base, five_images).training.steps == 100
    off = config(warm_start=False)
    assert warm_started(off, base, five_images) == off


def test_outside_the_pipeline_nobody_says_what_is_served():
    with pytest.raises(ConfigError, match="training.warm_start=true needs the served model"):
        warm_started(config(), None, [])
    assert warm_started(config(warm_start=False), None, []).training.initial_weights == "random"


def test_a_served_network_of_another_shape_is_refused_with_what_to_do(model: Artifact, labels: LabelMap):
    other = build_model(
        TINY.model_copy(update={"aspp_channels": 16}), labels.num_classes, mean=[0.0] * 3, variance=[1.0] * 3
    )
    config = TrainingConfig(warm_start=True, initial_weights=saved_model(model))

    with pytest.raises(ConfigError, match=r"(?s)do not fit the network.*training.warm_start=true.* set it to false"):
        initial_weights(other, config, labels)


def test_of_a_served_network_with_fewer_classes_all_else_is_taken(model: Artifact, labels: LabelMap):
    more = LabelMap(classes=(*labels.classes, ClassLabel(name="new", values=(77,))))
    wider = build_model(TINY, more.num_classes, mean=[0.0] * 3, variance=[1.0] * 3)

    loaded = initial_weights(wider, TrainingConfig(warm_start=True, initial_weights=saved_model(model)), more)

    assert (loaded.loaded, loaded.kept_classes, loaded.new_classes) == (loaded.total, labels.names, ("new",))


def test_checkpoints_of_another_start_are_not_gone_on_with(base: str, tmp_path: Path):
    training = config(checkpoints=str(tmp_path / "checkpoints"))
    fresh = warm_started(training, base + "/nothing", []).checkpoint_folder(["a"])
    warm = warm_started(training, base, []).checkpoint_folder(["a"])

    assert fresh != warm
    assert warm == warm_started(training, base, []).checkpoint_folder(["a"])
