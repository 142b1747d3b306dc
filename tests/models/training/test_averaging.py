"""The moving average of weights, by hand."""

import pytest
import tensorflow as tf

from models.training.optimizers import MovingAverage


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
