"""TensorFlow's kernels give Keras' numbers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from models.kernels import BatchNormalization, resize_bilinear


def inputs(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(3.0, 2.0, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(3, 5, 4, 7), (4, 1, 1, 3), (1, 1, 1, 2)])
def test_batch_normalization_trains_as_that_of_keras(shape):
    x = tf.constant(inputs(*shape))
    results = []
    for layer in (BatchNormalization(momentum=0.9), layers.BatchNormalization(momentum=0.9)):
        layer.build(shape)
        layer.gamma.assign(np.linspace(0.5, 2.0, shape[-1]))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(y**3)
        gradients = tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])
        results.append([y, *gradients, *layer.non_trainable_weights, layer(x, training=False)])
    for ours, keras_own in zip(*results, strict=True):
        np.testing.assert_allclose(ours, keras_own, rtol=2e-4, atol=2e-3)


def test_batch_normalization_keeps_float32_statistics_of_bfloat16_features():
    layer = BatchNormalization(momentum=0.0, dtype="mixed_bfloat16")
    x = inputs(8, 4, 4, 3)
    assert layer(x, training=True).dtype == tf.bfloat16
    assert layer.moving_mean.dtype == "float32"
    np.testing.assert_allclose(layer.moving_mean, x.mean((0, 1, 2)), rtol=1e-2)


def test_frozen_batch_normalization_keeps_its_statistics():
    layer = BatchNormalization(trainable=False)
    y = layer(inputs(2, 3, 3, 1), training=True)
    np.testing.assert_array_equal(layer.moving_mean, [0.0])
    np.testing.assert_allclose(y, inputs(2, 3, 3, 1) / np.sqrt(1.001), rtol=1e-5)


def test_interpolation_is_bilinear_between_pixel_centres():
    row = np.float32([0.0, 4.0]).reshape(1, 1, 2, 1)
    np.testing.assert_allclose(np.ravel(resize_bilinear(row, (1, 4))), [0.0, 1.0, 3.0, 4.0])


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (20, 33)])
def test_interpolation_equals_that_of_keras_at_sizes_known_only_in_the_graph(size):
    x = inputs(2, 5, 9, 3)
    resize = tf.function(
        resize_bilinear, input_signature=[tf.TensorSpec((None,) * 4), (tf.TensorSpec((), tf.int32),) * 2]
    )
    np.testing.assert_allclose(resize(x, size), ops.image.resize(x, size), atol=1e-6)


def test_interpolation_keeps_the_dtype():
    assert (
        keras.backend.standardize_dtype(resize_bilinear(tf.zeros((1, 2, 2, 1), tf.bfloat16), (4, 4)).dtype)
        == "bfloat16"
    )
