"""The objective of training: which losses it adds up, and that a TPU's compiler takes it."""

import numpy as np
import pytest
import tensorflow as tf

from data.features import IGNORE_LABEL
from models.config import LossConfig
from models.training.losses import STRIDE, Objective, dice_loss, lovasz_softmax, weighted_cross_entropy

WEIGHTS = [1.0, 2.0, 0.5]
EVERYTHING = LossConfig(label_smoothing=0.1, ohem_fraction=0.25, ohem_ramp_steps=10, dice=0.5, lovasz=2.0)


def batch(seed: int = 0) -> tuple[tf.Tensor, tf.Tensor]:
    """Logits and masks of 2 images of 8x8 pixels, 3 classes and some void."""
    random = np.random.default_rng(seed)
    masks = random.choice(np.uint8([0, 1, 2, IGNORE_LABEL]), (2, 8, 8))
    return tf.constant(random.normal(size=(2, 8, 8, 3)), tf.float32), tf.constant(masks)


def with_gradient(objective: Objective, logits: tf.Tensor, masks: tf.Tensor, step: tf.Tensor):
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total, weight, extra = objective(logits, masks, step)
        loss = tf.math.divide_no_nan(total, weight) + extra
    return loss, tape.gradient(loss, logits)


def test_the_default_is_the_weighted_cross_entropy_of_all_pixels() -> None:
    logits, masks = batch()
    total, weight = weighted_cross_entropy(masks, logits, WEIGHTS)
    parts = [float(part) for part in Objective(LossConfig(), WEIGHTS)(logits, masks, 0)]
    assert parts == [float(total), float(weight), 0.0]


def test_smoothing_is_passed_on() -> None:
    logits, masks = batch()
    total, _ = weighted_cross_entropy(masks, logits, WEIGHTS, label_smoothing=0.3)
    assert float(Objective(LossConfig(label_smoothing=0.3), WEIGHTS)(logits, masks, 0)[0]) == float(total)


@pytest.mark.parametrize(
    ("ramp", "step", "fraction"), [(0, 0, 0.2), (8, 0, 1.0), (8, 2, 0.8), (8, 8, 0.2), (8, 99, 0.2)]
)
def test_the_fraction_of_hard_pixels_falls_linearly_over_the_ramp(ramp: int, step: int, fraction: float) -> None:
    logits, masks = batch()
    objective = Objective(LossConfig(ohem_fraction=0.2, ohem_ramp_steps=ramp), [1.0, 1.0, 1.0])
    total, weight, _ = objective(logits, masks, tf.constant(step, tf.int64))
    expected, _ = weighted_cross_entropy(masks, logits, fraction=fraction)
    assert int(weight) == int(np.float32(fraction) * np.sum(masks != IGNORE_LABEL))
    assert float(total) == pytest.approx(float(expected))


def test_dice_and_lovasz_are_added_with_their_weights_and_see_a_part_of_the_pixels() -> None:
    logits, masks = batch()
    *_, extra = Objective(LossConfig(dice=0.5, lovasz=2.0), WEIGHTS)(logits, masks, 0)
    seen = masks[:, ::STRIDE, ::STRIDE], logits[:, ::STRIDE, ::STRIDE]
    assert float(extra) == pytest.approx(0.5 * float(dice_loss(*seen)) + 2.0 * float(lovasz_softmax(*seen)))


def test_sums_and_weights_of_parts_add_up_to_those_of_the_whole_batch() -> None:
    logits, masks = batch()
    objective = Objective(LossConfig(label_smoothing=0.1), WEIGHTS)
    whole = objective(logits, masks, 0)
    parts = [objective(logits[i : i + 1], masks[i : i + 1], 0) for i in range(2)]
    for index in range(2):
        assert float(parts[0][index] + parts[1][index]) == pytest.approx(float(whole[index]))


@pytest.mark.parametrize("config", [LossConfig(), EVERYTHING])
def test_a_batch_of_void_has_no_loss_and_no_gradient(config: LossConfig) -> None:
    logits, masks = batch()
    loss, gradient = with_gradient(
        Objective(config, WEIGHTS), logits, tf.fill(masks.shape, IGNORE_LABEL), tf.constant(5)
    )
    assert float(loss) == 0.0
    np.testing.assert_array_equal(gradient, np.zeros(logits.shape))


def test_images_smaller_than_the_stride_have_all_losses() -> None:
    logits, masks = (tensor[:, :1, :3] for tensor in batch())
    assert all(np.isfinite(part) for part in Objective(EVERYTHING, WEIGHTS)(logits, masks, 0))


def test_xla_compiles_all_of_it_once_and_the_numbers_stay() -> None:
    objective = Objective(EVERYTHING, WEIGHTS)
    traces = []

    @tf.function(jit_compile=True, autograph=False)
    def compiled(logits: tf.Tensor, masks: tf.Tensor, step: tf.Tensor):
        traces.append(logits.shape)
        return with_gradient(objective, logits, masks, step)

    for step in (0, 5, 20):
        logits, masks = batch(step)
        arguments = logits, masks, tf.constant(step)
        for ours, eager in zip(compiled(*arguments), with_gradient(objective, *arguments), strict=True):
            np.testing.assert_allclose(ours, eager, rtol=1e-4, atol=1e-6)
    assert len(traces) == 1
