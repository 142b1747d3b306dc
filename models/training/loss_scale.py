"""The loss scale of float16 training."""

import tensorflow as tf

INITIAL, LOWEST, HIGHEST = 2.0**15, 1.0, 2.0**24
#: Finite steps in a row after which the scale doubles.
GROWTH_STEPS = 2000


class LossScale:
    """A factor that keeps small gradients above the least float16 (arXiv 1710.03740, section 3.2).

    A step whose gradients overflow is skipped and halves it; many good ones in a row double it.
    """

    def __init__(self) -> None:
        self.value = tf.Variable(INITIAL, trainable=False)
        self._good_steps = tf.Variable(0, trainable=False)

    @property
    def variables(self) -> list[tf.Variable]:
        """What the next steps depend on."""
        return [self.value, self._good_steps]

    def is_lowest(self) -> tf.Tensor:
        """Whether it cannot be lowered: gradients that overflow even so are not to be saved."""
        return self.value <= LOWEST

    def adapt(self, finite: tf.Tensor) -> None:
        """Takes in whether a step's gradients were finite."""
        good_steps = tf.where(finite, self._good_steps + 1, 0)
        grows = good_steps >= GROWTH_STEPS
        raised = tf.where(grows, tf.minimum(2.0 * self.value, HIGHEST), self.value)
        self.value.assign(tf.where(finite, raised, tf.maximum(0.5 * self.value, LOWEST)))
        self._good_steps.assign(tf.where(grows, 0, good_steps))
