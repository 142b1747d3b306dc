"""Modules for TensorFlow Hub say what the network says, learn, and give other networks their weights."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from data.config import PreprocessConfig
from data.errors import ConfigError
from data.labels import ClassLabel, LabelMap
from models.config import HubModule, ModelConfig
from models.export.hub import export_hub_module
from models.export.saved_model import load_description, load_label_map
from models.network.deeplab import DeepLabV3Plus, build_model
from models.weights.initial_weights import load_initial_weights

#: Keras' convert_to_numpy, with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

NAMES = ("sky", "road", "tree")
LABELS = LabelMap(classes=tuple(ClassLabel(name=name) for name in NAMES))
NETWORK = ModelConfig(width=0.35, aspp_channels=8, decoder_channels=8, low_level_channels=4, batch_norm_momentum=0.0)
MODULES: tuple[HubModule, ...] = ("segmenter", "feature_extractor")
PREPROCESS = PreprocessConfig(max_side=400)


def blocks(seed: int, rows: int = 6, columns: int = 8) -> np.ndarray:
    """Random blocks of 8 x 8, (8 * rows, 8 * columns, 3) uint8."""
    colors = np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)
    return colors.repeat(8, axis=0).repeat(8, axis=1)


def unit(*images: np.ndarray) -> tf.Tensor:
    """What modules take."""
    return tf.image.convert_image_dtype(np.stack(images), tf.float32)


@pytest.fixture(scope="module")
def network() -> DeepLabV3Plus:
    """A network whose random classes vary over an image."""
    keras.utils.set_random_seed(0)
    model = build_model(NETWORK, 3, mean=[120.0, 110.0, 100.0], variance=[3000.0, 2900.0, 3100.0])
    model(np.stack([blocks(seed) for seed in range(4)]), training=True)
    model.classifier.kernel.assign(model.classifier.kernel * 100.0)
    return model


@pytest.fixture(scope="module")
def folder(network: DeepLabV3Plus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both modules."""
    path = tmp_path_factory.mktemp("hub")
    for module in MODULES:
        export_hub_module(network, module, path / module, label_map=LABELS, preprocess=PREPROCESS)
    return path


@pytest.fixture(scope="module")
def segmenter(folder: Path) -> Any:
    return tf.saved_model.load(str(folder / "segmenter"))


@pytest.fixture(scope="module")
def extractor(folder: Path) -> Any:
    return tf.saved_model.load(str(folder / "feature_extractor"))


def test_a_segmenter_answers_with_the_networks_logits_at_any_size(network: DeepLabV3Plus, segmenter: Any):
    for image in (blocks(7), blocks(8, 3, 5)):
        logits = segmenter(unit(image))
        assert (logits.shape, logits.dtype) == ((1, *image.shape[:2], 3), tf.float32)
        np.testing.assert_allclose(logits, network(image[None]), rtol=1e-3, atol=1e-2)


def test_a_feature_extractor_answers_with_what_the_head_reads(network: DeepLabV3Plus, extractor: Any):
    for image in (blocks(7), blocks(8, 4, 6)):
        features, expected = extractor(unit(image)), network.features(image[None])
        assert features.keys() == expected.keys() == {"last", "finer"}
        assert [features[name].shape[1] for name in ("finer", "last")] == [image.shape[0] // 4, image.shape[0] // 16]
        for name, values in features.items():
            np.testing.assert_allclose(values, expected[name], rtol=1e-3, atol=1e-3)


def test_training_drops_and_normalises_by_the_batch(segmenter: Any):
    images = unit(blocks(1), blocks(2))
    before = [variable.numpy() for variable in segmenter.variables]
    frozen = segmenter(images)
    assert all(np.array_equal(old, new) for old, new in zip(before, segmenter.variables, strict=True))

    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(segmenter(images, training=True) ** 2)
    gradients = tape.gradient(loss, segmenter.trainable_variables)

    assert all(gradient is not None for gradient in gradients)
    moved = {old.name for old, value in zip(segmenter.variables, before, strict=True) if not np.array_equal(old, value)}
    assert any("moving_mean" in name for name in moved)
    assert not np.allclose(segmenter(images), frozen)

    for variable, value in zip(segmenter.variables, before, strict=True):
        variable.assign(value)


def test_a_module_lists_its_variables_and_says_what_it_is(
    network: DeepLabV3Plus, folder: Path, segmenter: Any, extractor: Any
):
    trainable = len(network.trainable_weights)
    assert len(segmenter.trainable_variables) == trainable > len(extractor.trainable_variables) > trainable / 2
    assert len(segmenter.variables) == len(network.variables)
    assert list(segmenter.regularization_losses) == []
    assert load_label_map(folder / "segmenter") == LABELS
    description = load_description(folder / "feature_extractor")
    assert (description.model, description.preprocess) == (network.config, PREPROCESS)
    assert len(description.weights) == len(extractor.weights)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_holds_its_weights_once(folder: Path, module: HubModule, request: pytest.FixtureRequest):
    loaded = request.getfixturevalue({"segmenter": "segmenter", "feature_extractor": "extractor"}[module])
    (data,) = (folder / module / "variables").glob("*.data-*")
    assert data.stat().st_size < 1.2 * sum(variable.numpy().nbytes for variable in loaded.variables)


def fresh(classes: int = 3, **changes) -> DeepLabV3Plus:
    return build_model(NETWORK.model_copy(update=changes), classes)


def test_a_training_starts_from_a_segmenter_with_every_weight(network: DeepLabV3Plus, folder: Path):
    model = fresh(output_stride=8)
    report = load_initial_weights(model, str(folder / "segmenter"), label_names=NAMES)
    assert (report.loaded, report.kept_classes) == (len(model.weights), NAMES)
    for ours, theirs in zip(model.weights, network.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)


def test_a_training_starts_from_a_feature_extractor_with_equal_features(network: DeepLabV3Plus, folder: Path):
    model = fresh(7)
    head = [weight.numpy() for weight in (*model.aspp.weights, *model.decoder.weights, *model.classifier.weights)]
    report = load_initial_weights(model, str(folder / "feature_extractor"), label_names=[*NAMES, "a", "b", "c", "d"])
    assert report.loaded == report.total - len(head)
    assert str(report) == (
        f"initial weights: {report.loaded} of {report.total} from {folder / 'feature_extractor'}; a SavedModel is a "
        "program: its weights alone were read, and nothing of it ran"
    )
    image = blocks(3)[None]
    for name, values in model.features(image).items():
        np.testing.assert_array_equal(values, network.features(image)[name])
    after = (*model.aspp.weights, *model.decoder.weights, *model.classifier.weights)
    assert all(np.array_equal(old, new) for old, new in zip(head, after, strict=True))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"width": 0.5}, "do not fit the network"),
        ({"normalization": "backbone"}, "have no place in this one, such as normalization/mean"),
        ({"backbone": "mobilenet_v3_small", "width": 0.75}, "another configuration"),
    ],
)
def test_a_feature_extractor_of_another_backbone_is_refused(folder: Path, changes: dict, match: str):
    with pytest.raises(ConfigError, match=match):
        load_initial_weights(fresh(**changes), str(folder / "feature_extractor"), label_names=NAMES)


@pytest.mark.long
def test_hub_loads_both_and_legacy_keras_trains_them(network: DeepLabV3Plus, folder: Path):
    images = np.stack([blocks(5), blocks(6)])
    expected = {"images": unit(*images), "logits": network(images), "last": network.features(images)["last"]}
    np.savez(folder / "expected.npz", **{name: np.asarray(value) for name, value in expected.items()})
    script = Path(__file__).with_name("hub_process.py")
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    result = subprocess.run(
        [sys.executable, script, folder], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
