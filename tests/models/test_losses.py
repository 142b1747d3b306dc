"""Losses by hand on 2x2 masks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.config import ModelConfig
from models.deeplab import build_model
from models.losses import cross_entropy, decayed_kernels, weight_penalty

# One image, 2x2 pixels, 2 classes. Probability of class 0: 1/4, 1/2, 3/4, 1/2.
ODDS = np.float32([[[1, 3], [1, 1]], [[3, 1], [1, 1]]])
LOGITS = np.log(ODDS)[None]  # (1, 2, 2, 2)
ALL_VOID = np.full((1, 2, 2), 255, np.uint8)


def masks(*ids: int) -> np.ndarray:
    return np.uint8(ids).reshape(1, 2, 2)


def test_every_pixel_counts_alike():
    expected = (np.log(4) + np.log(2) + np.log(4 / 3) + np.log(2)) / 4
    assert float(cross_entropy(masks(0, 1, 0, 0), LOGITS)) == pytest.approx(expected)


def test_void_pixels_count_neither_in_the_sum_nor_in_the_mean():
    assert float(cross_entropy(masks(0, 255, 255, 1), LOGITS)) == pytest.approx((np.log(4) + np.log(2)) / 2)


def test_class_weights_weigh_the_mean():
    expected = (1 * np.log(4) + 3 * np.log(2) + 1 * np.log(4 / 3)) / 5
    assert float(cross_entropy(masks(0, 1, 0, 255), LOGITS, [1.0, 3.0])) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "weights"), [(ALL_VOID, None), (ALL_VOID, [1.0, 2.0]), (masks(0, 0, 0, 255), [0.0, 1.0])]
)
def test_without_a_pixel_that_counts_loss_and_gradient_are_zero(labels, weights):
    logits = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = cross_entropy(labels, logits, weights)
    assert float(loss) == 0.0
    np.testing.assert_array_equal(tape.gradient(loss, logits), np.zeros(LOGITS.shape))


def test_label_smoothing_spreads_the_target_over_all_classes():
    target = np.float64([0.9, 0.1])  # 0.8 on the label, 0.2 shared by both classes
    expected = -(target @ np.log([0.25, 0.75]))
    assert float(cross_entropy(masks(0, 255, 255, 255), LOGITS, label_smoothing=0.2)) == pytest.approx(expected)


def test_huge_logits_give_a_finite_loss():
    assert float(cross_entropy(masks(0, 0, 0, 0), np.float32([[[[-1e4, 1e4]] * 2] * 2]))) == pytest.approx(2e4)


@pytest.mark.parametrize("separable", [True, False])
def test_kernels_decay_but_no_depthwise_kernel_bias_or_batch_normalisation(separable):
    model = build_model(
        ModelConfig(width=0.35, aspp_channels=8, decoder_channels=8, low_level_channels=4, separable=separable), 3
    )
    decayed = {kernel.path for kernel in decayed_kernels(model)}
    not_decayed = {weight.path for weight in model.trainable_weights} - decayed
    assert all(path.endswith("kernel") and "depthwise" not in path for path in decayed)
    assert all(path.endswith(("gamma", "beta", "bias")) or "depthwise" in path for path in not_decayed)
    assert any("atrous_branch" in path for path in decayed)
    assert any("Conv1" in path for path in decayed)


def test_frozen_kernels_do_not_decay():
    model = build_model(ModelConfig(width=0.35, aspp_channels=8, decoder_channels=8), 3)
    model.backbone.trainable = False
    frozen = {weight.path for weight in model.backbone.weights}
    decayed = {kernel.path for kernel in decayed_kernels(model)}
    assert decayed and not decayed & frozen


def test_penalty_is_half_the_decay_times_the_squared_norm():
    model = keras.Sequential([keras.layers.Conv2D(2, 1, kernel_initializer="ones", bias_initializer="ones")])
    model.build((None, None, None, 3))
    assert float(weight_penalty(model, 0.1)) == pytest.approx(0.1 / 2 * 6)
