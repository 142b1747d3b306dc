"""The loss scale of float16."""

import tensorflow as tf

from models.training.optimizers import GROWTH_STEPS, HIGHEST_SCALE, INITIAL_SCALE, LOWEST_SCALE, LossScale


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
