"""The optimizers: by hand, and as Keras has them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.config import ModelConfig, OptimizerConfig
from models.network.deeplab import build_model
from models.training.optimizers import Momentum, Parameter, build_optimizer, decayed_kernels

RATE = tf.constant(0.1)


def test_two_steps_of_momentum_by_hand() -> None:
    weight = tf.Variable([1.0])
    optimizer = Momentum([Parameter(weight, decays=True)], momentum=0.5, weight_decay=0.1)
    # gradient 2 + 0.1 * 1; velocity -0.21
    optimizer.update([tf.constant([2.0])], RATE)
    assert float(weight[0]) == pytest.approx(0.79)
    # gradient 0 + 0.1 * 0.79; velocity 0.5 * -0.21 - 0.0079
    optimizer.update([tf.constant([0.0])], RATE)
    assert float(weight[0]) == pytest.approx(0.79 - 0.1129)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_updates_are_those_of_keras(name: str) -> None:
    random_numbers = np.random.default_rng(0)
    start = random_numbers.normal(size=(3, 4)).astype(np.float32)
    ours, theirs = tf.Variable(start), keras.Variable(start)
    config = OptimizerConfig(optimizer=name, weight_decay=0.3 if name == "adamw" else 0.0)
    optimizer = build_optimizer([Parameter(ours, decays=True)], config)
    if name == "sgd":
        reference = keras.optimizers.SGD(0.1, momentum=config.momentum)
    else:
        reference = keras.optimizers.AdamW(0.1, weight_decay=config.weight_decay)
    for _ in range(5):
        gradient = tf.constant(random_numbers.normal(size=(3, 4)), tf.float32)
        optimizer.update([gradient], RATE)
        reference.apply([gradient], [theirs])
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_rate_factor_scales_rate_and_decay(name: str) -> None:
    slow, fast = tf.Variable([1.0]), tf.Variable([1.0])
    config = OptimizerConfig(optimizer=name, weight_decay=0.5)
    optimizer = build_optimizer([Parameter(slow, 0.1, decays=True), Parameter(fast, decays=True)], config)
    optimizer.update([tf.constant([3.0])] * 2, RATE)
    assert float(1 - fast[0]) > 0.1
    assert float(1 - slow[0]) == pytest.approx(0.1 * float(1 - fast[0]), rel=0.06)


def test_what_does_not_decay_stays_without_a_gradient() -> None:
    weights = tf.Variable([1.0]), tf.Variable([1.0])
    parameters = [Parameter(weights[0], decays=True), Parameter(weights[1])]
    build_optimizer(parameters, OptimizerConfig(weight_decay=0.5)).update([tf.constant([0.0])] * 2, RATE)
    assert [float(weight[0]) for weight in weights] == [pytest.approx(0.95), 1.0]


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
