"""The moving average of a model's weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import tensorflow as tf


class MovingAverage:
    """An exponential moving average of variables.

    Early on the decay is (1 + step) / (10 + step), if that is less, as in TensorFlow's `ExponentialMovingAverage`: else
    the random initial weights would weigh for thousands of steps. Moving statistics of batch normalisation are
    averaged too, so that they belong to the averaged weights.

    Args:
        variables: floating-point variables.
        decay: weight of the average so far, in [0, 1).
    """

    def __init__(self, variables: Sequence[tf.Variable], decay: float) -> None:
        self._variables = list(variables)
        self._decay = decay
        self.averages = [tf.Variable(variable, trainable=False) for variable in self._variables]

    def restart(self) -> None:
        """Begins again at the variables' values."""
        for average, variable in zip(self.averages, self._variables, strict=True):
            average.assign(variable)

    def update(self, step: tf.Tensor) -> None:
        """Takes in the variables' values after `step` (from 1) steps."""
        step = tf.cast(step, tf.float32)
        rate = 1.0 - tf.minimum(self._decay, (1.0 + step) / (10.0 + step))
        for average, variable in zip(self.averages, self._variables, strict=True):
            average.assign_sub(rate * (average - variable))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the variables hold their averages; afterwards each has its own value again."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def apply(self) -> None:
        """Gives the variables their averages for good."""
        for average, variable in zip(self.averages, self._variables, strict=True):
            variable.assign(average)

    def _swap(self) -> None:
        for average, variable in zip(self.averages, self._variables, strict=True):
            value = variable.numpy()
            variable.assign(average)
            average.assign(value)
