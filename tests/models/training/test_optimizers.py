"""Optimizers, the poly schedule, the average of weights, the loss scale of float16: by hand, and as Keras has them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.config import ModelConfig, OptimizerConfig
from models.network.deeplab import build_model
from models.training.optimizers import (
    GROWTH_STEPS,
    HIGHEST_SCALE,
    INITIAL_SCALE,
    LOWEST_SCALE,
    LossScale,
    Momentum,
    MovingAverage,
    Parameter,
    PolySchedule,
    build_optimizer,
    decayed_kernels,
)

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


@pytest.mark.parametrize(("step", "rate"), [(0, 0.8), (50, 0.4), (75, 0.2), (100, 0.0), (120, 0.0)])
def test_a_power_of_one_falls_in_a_straight_line(step: int, rate: float) -> None:
    assert float(PolySchedule(0.8, steps=100, power=1.0)(step)) == pytest.approx(rate, abs=1e-7)


def test_the_power_bends_the_line() -> None:
    assert float(PolySchedule(0.007, steps=30_000)(15_000)) == pytest.approx(0.007 * 0.5**0.9)


@pytest.mark.parametrize(("step", "factor"), [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0)])
def test_the_warm_up_grows_from_its_first_fraction_to_one(step: int, factor: float) -> None:
    constant = PolySchedule(2.0, steps=1000, power=0.0, warmup_steps=10)
    assert float(constant(step)) == pytest.approx(2.0 * factor)


def test_the_schedule_can_be_made_from_its_config() -> None:
    schedule = PolySchedule(0.1, steps=10, power=0.5, warmup_steps=3)
    assert float(PolySchedule.from_config(schedule.get_config())(1)) == float(schedule(1))


def test_two_updates_by_hand() -> None:
    weight = tf.Variable([1.0, 2.0])
    average = MovingAverage([weight], decay=0.5)
    weight.assign([3.0, 4.0])
    average.update(tf.constant(100))
    assert average.averages[0].numpy().tolist() == [2.0, 3.0]
    weight.assign([6.0, 3.0])
    average.update(tf.constant(101))
    assert average.averages[0].numpy().tolist() == [4.0, 3.0]


def test_early_updates_forget_faster() -> None:
    weight = tf.Variable(0.0)
    average = MovingAverage([weight], decay=0.999)
    weight.assign(11.0)
    average.update(tf.constant(1))
    # decay (1 + 1) / (10 + 1): the average takes in 9/11 of the new value.
    assert float(average.averages[0]) == pytest.approx(9.0)


def test_averages_are_in_place_only_inside() -> None:
    weight = tf.Variable(1.0)
    average = MovingAverage([weight], decay=0.9)
    weight.assign(5.0)
    with average.applied():
        assert (float(weight), float(average.averages[0])) == (1.0, 5.0)
    assert (float(weight), float(average.averages[0])) == (5.0, 1.0)
    average.apply()
    assert (float(weight), float(average.averages[0])) == (1.0, 1.0)


def test_an_error_inside_gives_the_weights_back() -> None:
    weight = tf.Variable(1.0)
    average = MovingAverage([weight], decay=0.9)
    weight.assign(5.0)
    with pytest.raises(KeyError), average.applied():
        raise KeyError
    assert float(weight) == 5.0


def test_a_restart_forgets_the_values_before() -> None:
    weight = tf.Variable(1.0)
    average = MovingAverage([weight], decay=0.9)
    weight.assign(5.0)
    average.restart()
    assert float(average.averages[0]) == 5.0


def test_an_overflow_halves_it_down_to_the_lowest() -> None:
    scale = LossScale()
    scale.adapt(tf.constant(False))
    assert float(scale.value) == INITIAL_SCALE / 2 and not scale.is_lowest()
    for _ in range(30):
        scale.adapt(tf.constant(False))
    assert float(scale.value) == LOWEST_SCALE and scale.is_lowest()


def test_many_good_steps_in_a_row_double_it() -> None:
    scale = LossScale()
    adapt = tf.function(scale.adapt, autograph=False)
    for finite in [*([True] * (GROWTH_STEPS - 1)), False, *([True] * (GROWTH_STEPS - 1))]:
        adapt(tf.constant(finite))
    assert float(scale.value) == INITIAL_SCALE / 2
    adapt(tf.constant(True))
    assert float(scale.value) == INITIAL_SCALE


def test_it_does_not_grow_for_ever() -> None:
    scale = LossScale()
    scale.value.assign(HIGHEST_SCALE)
    scale.variables[1].assign(GROWTH_STEPS - 1)
    scale.adapt(tf.constant(True))
    assert float(scale.value) == HIGHEST_SCALE
