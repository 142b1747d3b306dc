"""`predict` writes the masks that evaluation counts."""

import io
from datetime import UTC, datetime
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.serving_directory import Published, Record
from data.config import PreprocessConfig
from data.features import IMAGE, MASK
from data.labels import ClassLabel, LabelMap
from models.config import InferenceConfig, ModelConfig
from models.deeplab import build_model
from models.export import EVALUATE_SIGNATURE, export_saved_model
from models.metrics import confusion_matrix
from pipeline.prediction import predict

LABELS = LabelMap(classes=tuple(ClassLabel(name=name) for name in ("sky", "road", "tree")))
NETWORK = ModelConfig(width=0.35, aspp_channels=8, decoder_channels=8, low_level_channels=4, batch_norm_momentum=0.0)


def blocks(seed: int) -> np.ndarray:
    """Random blocks of 8 x 8, (56, 72, 3) uint8."""
    colors = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), np.uint8)
    return colors.repeat(8, axis=0).repeat(8, axis=1)


def encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A model that slides windows over pictures, and sees them mirrored, too."""
    keras.utils.set_random_seed(0)
    model = build_model(NETWORK, 3, mean=[120, 110, 100], variance=[3000, 2900, 3100])
    model(np.stack([blocks(seed) for seed in range(4)]), training=True)
    model.classifier.kernel.assign(model.classifier.kernel * 100.0)
    path = tmp_path_factory.mktemp("serving") / "1"
    inference = InferenceConfig(window=32, flip=True)
    export_saved_model(model, path, label_map=LABELS, preprocess=PreprocessConfig(), inference=inference)
    published = Record(version=1, model_fingerprint="", class_names=list(LABELS.names), published_at=datetime.now(UTC))
    return Published(1, str(path), published)


def test_predicted_masks_are_those_that_evaluation_counts(served: Published, tmp_path: Path):
    encoded = {"one.png": encode(blocks(1)), "two.jpg": encode(blocks(2), "JPEG")}
    for name, content in encoded.items():
        (tmp_path / name).write_bytes(content)
    labels = np.random.default_rng(3).choice([0, 1, 2, 255], (56, 72)).astype(np.uint8)

    predictions = list(predict([tmp_path / name for name in encoded], served, tmp_path / "out"))

    evaluate = tf.saved_model.load(served.path).signatures[EVALUATE_SIGNATURE]
    for prediction, content in zip(predictions, encoded.values(), strict=True):
        feature = {
            key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
            for key, value in ((IMAGE, content), (MASK, encode(labels)))
        }
        example = tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
        counted = evaluate(examples=tf.constant([example]))["confusion"].numpy().reshape(3, 3)
        mask = np.asarray(Image.open(prediction.mask))
        assert len(np.unique(mask)) > 1
        np.testing.assert_array_equal(counted, confusion_matrix(labels, mask, 3))
        shares = {LABELS.names[i]: float(np.mean(mask == i)) for i in np.unique(mask)}
        assert prediction.fractions == pytest.approx(shares)
