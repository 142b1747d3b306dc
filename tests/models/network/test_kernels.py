"""TensorFlow's kernels give Keras' numbers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from models.network.kernels import BatchNormalization, Conv2D, DepthwiseConv2D, resize_bilinear, softmax_cross_entropy


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


@pytest.mark.parametrize("align", [False, True])
def test_aligned_corners_coincide(align):
    row = np.float32([0.0, 3.0, 6.0]).reshape(1, 1, 3, 1)
    resized = np.ravel(resize_bilinear(row, (1, 7), align_corners=align))
    expected = [0, 1, 2, 3, 4, 5, 6] if align else [0, 0.42857, 1.71429, 3, 4.28571, 5.57143, 6]
    np.testing.assert_allclose(resized, expected, atol=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_has_the_values_and_gradients_of_keras(smoothing):
    logits = tf.constant(inputs(2, 3, 4, 5))
    labels = tf.constant(np.random.default_rng(1).integers(0, 5, (2, 3, 4)), tf.int32)
    weights = tf.constant(inputs(2, 3, 4))
    target = tf.one_hot(labels, 5) * (1 - smoothing) + smoothing / 5
    results = []
    for function in (
        lambda: softmax_cross_entropy(labels, logits, smoothing),
        lambda: ops.categorical_crossentropy(target, logits, from_logits=True),
    ):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            losses = function()
            loss = tf.reduce_sum(losses * weights)
        results.append((losses, tape.gradient(loss, logits)))
    for ours, keras_own in zip(*results, strict=True):
        np.testing.assert_allclose(ours, keras_own, rtol=1e-4, atol=1e-5)


def test_cross_entropy_of_a_hopeless_pixel_still_has_a_gradient():
    logits = tf.constant([[[[0.0, 500.0]]]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = softmax_cross_entropy(tf.zeros((1, 1, 1), tf.int32), logits)
    assert np.isfinite(loss).all()
    np.testing.assert_allclose(np.ravel(tape.gradient(loss, logits)), [-1.0, 1.0])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("ours", "keras_own"),
    [
        (Conv2D(6, 1, name="c"), layers.Conv2D(6, 1, name="c")),
        (Conv2D(6, 3, strides=2, padding="same"), layers.Conv2D(6, 3, strides=2, padding="same")),
        (
            DepthwiseConv2D(3, strides=2, padding="same", use_bias=False),
            layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False),
        ),
        (
            DepthwiseConv2D(3, padding="same", dilation_rate=2),
            layers.DepthwiseConv2D(3, padding="same", dilation_rate=2),
        ),
    ],
)
def test_convolutions_have_the_values_and_gradients_of_keras(ours, keras_own, dtype):
    x = tf.constant(inputs(2, 7, 6, 4))
    results = []
    for original in (ours, keras_own):
        layer = type(original).from_config(
            {**original.get_config(), "dtype": f"mixed_{dtype}" if dtype != "float32" else dtype}
        )
        layer.build(x.shape)
        layer.set_weights([np.random.default_rng(2).normal(size=weight.shape) for weight in layer.get_weights()])
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(tf.cast(y, tf.float32) ** 2)
        results.append([y, *tape.gradient(loss, [x, *(weight.value for weight in layer.trainable_weights)])])
    for pair in zip(*results, strict=True):
        one, other = (np.asarray(value, np.float32) for value in pair)
        np.testing.assert_allclose(
            one, other, rtol=1e-5, atol=(3e-2 if dtype == "bfloat16" else 1e-5) * np.abs(other).max()
        )


def test_batch_normalization_of_any_number_of_channels_agrees_in_bfloat16():
    for channels in (16, 24):
        x = inputs(4, 5, 5, channels)
        layer = BatchNormalization(dtype="mixed_bfloat16")
        normalized = np.asarray(layer(x, training=True), np.float32)
        expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-3)
        np.testing.assert_allclose(normalized, expected, atol=0.05)
