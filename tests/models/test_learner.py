"""One training step: which weights decay, by how much, and what the optimizer and the average do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from data.features import IGNORE_LABEL
from models.config import OptimizerConfig
from models.learner import Learner

ALIKE = np.ones(2, np.float32)


def network() -> keras.Model:
    """A convolution, batch normalisation, a depthwise convolution and a classifier for two classes."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.layers.Input((None, None, 3)),
            keras.layers.Conv2D(4, 3, padding="same", name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise"),
            keras.layers.Conv2D(2, 1, name="classifier"),
        ]
    )


def batch(label: int = 1) -> tuple[tf.Tensor, tf.Tensor]:
    images = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    return tf.constant(images), tf.fill((2, 8, 8), tf.constant(label, tf.uint8))


def values(model: keras.Model) -> dict[str, np.ndarray]:
    return {f"{v.path.split('/')[-2]}/{v.name}": v.numpy() for v in model.trainable_variables}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_only_convolution_kernels_decay(optimizer: str) -> None:
    # With nothing but void the loss has no gradient, so what changes has decayed.
    model = network()
    before = values(model)
    config = OptimizerConfig(optimizer=optimizer, learning_rate=0.1, power=0.0, momentum=0.0, weight_decay=0.5)
    Learner(model, config, 10, ALIKE).step(*batch(IGNORE_LABEL))
    for name, value in values(model).items():
        # SGD: the gradient of wd / 2 |w|^2 is wd w. AdamW: w loses the fraction rate * wd. Both: 0.1 * 0.5.
        expected = 0.95 * before[name] if name in ("conv/kernel", "classifier/kernel") else before[name]
        np.testing.assert_allclose(value, expected, rtol=1e-5, err_msg=name)


def test_a_step_of_sgd_by_hand() -> None:
    # Two classes and a bias alone: the gradient is softmax - onehot = (.5, -.5) at logits (0, 0).
    model = keras.Sequential(
        [keras.layers.Input((None, None, 3)), keras.layers.Conv2D(2, 1, kernel_initializer="zeros", name="classifier")]
    )
    config = OptimizerConfig(optimizer="sgd", learning_rate=0.1, power=0.0, momentum=0.0, weight_decay=0.0)
    images, masks = tf.zeros((1, 2, 2, 3)), tf.ones((1, 2, 2), tf.uint8)
    loss, norm = Learner(model, config, 10, ALIKE).step(images, masks)
    assert float(loss) == pytest.approx(np.log(2))
    assert float(norm) == pytest.approx(np.sqrt(0.5))
    np.testing.assert_allclose(model.layers[-1].bias, [-0.05, 0.05], rtol=1e-5)


def test_a_clipped_step_has_the_length_of_the_limit() -> None:
    model = network()
    config = OptimizerConfig(
        optimizer="sgd", learning_rate=1.0, power=0.0, momentum=0.0, weight_decay=0.0, clip_norm=0.01
    )
    before = values(model)
    _, norm = Learner(model, config, 10, ALIKE).step(*batch())
    moved = [value - before[name] for name, value in values(model).items()]
    assert float(norm) > 0.01
    assert np.sqrt(sum(np.sum(move**2) for move in moved)) == pytest.approx(0.01, rel=1e-3)


def test_the_rate_follows_the_schedule() -> None:
    model = network()
    learner = Learner(model, OptimizerConfig(learning_rate=0.1, power=1.0), 2, ALIKE)
    for _ in range(2):
        learner.step(*batch())
    before = values(model)
    learner.step(*batch())
    # Two of two steps are done: the rate is 0.
    np.testing.assert_array_equal(values(model)["conv/kernel"], before["conv/kernel"])


def test_the_average_lags_behind_the_weights() -> None:
    model = network()
    learner = Learner(model, OptimizerConfig(learning_rate=0.1, ema_decay=0.5), 10, ALIKE)
    before = values(model)["classifier/kernel"]
    learner.step(*batch())
    after = values(model)["classifier/kernel"]
    with learner.averaged():
        # After one step the decay is (1 + 1) / (10 + 1).
        np.testing.assert_allclose(values(model)["classifier/kernel"], (2 * before + 9 * after) / 11, rtol=1e-4)
    np.testing.assert_array_equal(values(model)["classifier/kernel"], after)


def test_class_weights_shift_the_loss() -> None:
    images, masks = batch()
    masks = tf.concat([masks[:, :4], tf.zeros_like(masks[:, 4:])], axis=1)
    losses = [
        float(Learner(network(), OptimizerConfig(), 10, np.float32(w)).step(images, masks)[0])
        for w in ([1, 0], [0, 1], [1, 1])
    ]
    assert losses[2] == pytest.approx((losses[0] + losses[1]) / 2, rel=1e-4)
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)
