"""TensorFlow Hub modules are held to the SavedModel on the test split, and pushed with it."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import tensorflow as tf
from tfx.types.artifact import Artifact

from components.artifacts import HubModels
from components.config import HubConfig
from components.ingest.sample_images import test_examples as first_test_examples
from components.targets import hub
from components.targets.accuracy_check import saved_model_predictor
from components.targets.hub import HubExporter, preprocessed_pairs
from components.targets.hub_record import read_hub_record
from data.config import PreprocessConfig
from data.labels import LabelMap
from models.export.hub import HubSegmenter
from models.weights.initial_weights import load_network
from tests.components.conftest import artifact, channel, push, run_node, saved_model

#: Keras' convert_to_numpy, with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def make(model: Artifact, examples: Artifact, folder: Path, **settings: Any) -> Artifact:
    """Runs the component's executor."""
    config = HubConfig(**{"modules": ("segmenter", "feature_extractor"), "images": 3, **settings})
    node = HubExporter(model=channel(model), examples=channel(examples), config=config)
    return run_node(node, folder / "out")["hub"]


@pytest.fixture(scope="module")
def made(model: Artifact, examples: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make(model, examples, tmp_path_factory.mktemp("hub"))


@pytest.mark.long
def test_every_module_keeps_the_accuracy_of_the_saved_model(made: Artifact):
    record = read_hub_record(made.uri)

    assert [module.module for module in record.models] == ["segmenter", "feature_extractor"]
    assert record.images == 3
    for module in record.models:
        assert module.file == module.module
        assert tf.saved_model.contains_saved_model(str(Path(made.uri, module.file)))
        assert module.size == sum(
            path.stat().st_size for path in Path(made.uri, module.file).rglob("*") if path.is_file()
        )
        assert module.mean_iou == pytest.approx(record.saved_model_mean_iou, abs=1e-3)
        assert "keeps hub.max_drop=0.01" in module.reason


@pytest.mark.long
def test_the_masks_are_those_of_the_saved_model(made: Artifact, model: Artifact, examples: Artifact):
    network, served = load_network(saved_model(model)), saved_model_predictor(saved_model(model))
    segmenters = [HubSegmenter(Path(made.uri, name), name, network) for name in ("segmenter", "feature_extractor")]

    for image, _ in preprocessed_pairs(first_test_examples(examples, 3), PreprocessConfig()):
        for segmenter in segmenters:
            assert np.mean(segmenter.predict(image) == served(image)) > 0.999


def test_images_are_evaluated_at_the_size_of_training(examples: Artifact):
    (pair,) = preprocessed_pairs(first_test_examples(examples, 1), PreprocessConfig(max_side=40))

    assert max(pair.image.shape) == 40
    assert pair.mask.shape == pair.image.shape[:2]


def test_a_module_that_drops_too_far_is_left_out_with_its_reason(
    model: Artifact, examples: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scores = [0.5, 0.489]  # of the SavedModel, then of the module
    monkeypatch.setattr(hub, "score", lambda *arguments: scores.pop(0))
    monkeypatch.setattr(hub, "export_hub_module", Mock())
    monkeypatch.setattr(hub, "HubSegmenter", Mock())

    left_out = make(model, examples, tmp_path, modules=("feature_extractor",))

    (module,) = read_hub_record(left_out.uri).models
    assert module.file is None
    assert module.reason == "mean IoU 0.4890, -0.0110, breaks hub.max_drop=0.01"
    assert [path.name for path in Path(left_out.uri).iterdir()] == ["hub.json"]


@pytest.mark.long
def test_modules_are_pushed_beside_the_saved_model(
    model: Artifact, examples: Artifact, made: Artifact, labels: LabelMap, tmp_path: Path
):
    version = push(model, examples, labels, tmp_path, hub=made)

    assert {path.name for path in (version / "assets.extra/hub").iterdir()} == {*hub_names(made), "hub.json"}
    for name in hub_names(made):
        assert tf.saved_model.contains_saved_model(str(version / "assets.extra/hub" / name))
    assert tf.saved_model.contains_saved_model(str(version))


def hub_names(made: Artifact) -> list[str]:
    return [module.module for module in read_hub_record(made.uri).kept]


@pytest.mark.long
def test_where_no_module_is_kept_none_is_pushed(
    model: Artifact, examples: Artifact, made: Artifact, labels: LabelMap, tmp_path: Path
):
    refused = artifact(HubModels, tmp_path / "refused")
    record = read_hub_record(made.uri)
    models = [module.model_copy(update={"file": None}) for module in record.models]
    Path(refused.uri, "hub.json").write_text(record.model_copy(update={"models": models}).model_dump_json())

    version = push(model, examples, labels, tmp_path, hub=refused)

    assert not (version / "assets.extra/hub").exists()
