"""A program of somebody else: `python hub_process.py FOLDER`, with TF_USE_LEGACY_KERAS=1.

FOLDER has the modules `segmenter` and `feature_extractor`, and `expected.npz` with `images`, `logits` and `last`. They
are loaded by `hub.load`, and as layers of legacy Keras, one of which is trained.
"""

import sys
import types
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras
from packaging.version import parse

# tensorflow-hub compares versions with this one function of a module that setuptools had until version 81.
sys.modules["pkg_resources"] = types.SimpleNamespace(parse_version=parse)  # type: ignore[assignment]
import tensorflow_hub as hub  # noqa: E402


def trained(layer: hub.KerasLayer, images: np.ndarray) -> None:
    """Takes a step with the layer below a new convolution; its weights that may change do so."""
    model = tf_keras.Sequential([tf_keras.Input((None, None, 3)), layer, tf_keras.layers.Conv2D(2, 1)])
    before = [weight.numpy() for weight in layer.trainable_weights]
    shape = model(images[:1]).shape[1:3]
    targets = np.zeros((len(images), *shape, 1), np.int32)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.SGD(0.1), loss)
    model.fit(images, targets, epochs=1, verbose=0)
    changed = [not np.array_equal(old, new) for old, new in zip(before, layer.trainable_weights, strict=True)]
    assert np.mean(changed) > 0.9, f"{sum(changed)} of {len(changed)} trainable weights changed"


def main(folder: Path) -> None:
    assert tf.keras.layers.Layer is tf_keras.layers.Layer, "this process is to have legacy Keras"
    expected = np.load(folder / "expected.npz")
    images = expected["images"]

    segmenter = hub.load(str(folder / "segmenter"))
    np.testing.assert_allclose(segmenter(tf.constant(images)), expected["logits"], rtol=1e-3, atol=1e-2)
    trained(hub.KerasLayer(segmenter, trainable=True), images)

    layer = hub.KerasLayer(str(folder / "feature_extractor"), output_key="last")
    np.testing.assert_allclose(layer(images), expected["last"], rtol=1e-3, atol=1e-3)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
