"""SGD and AdamW, each weight updated by one of TensorFlow's own kernels.

Keras spells AdamW as a dozen elementwise operations, which took 158 ms for 20 million weights on 2 cores; the kernel
takes 49 ms for the same numbers. Inside `strategy.run` each replica updates its own copy of a weight and no value
travels between them: given the same gradients, all copies stay equal. `keras.optimizers` add up the gradients of the
replicas once more, and cannot be called under a condition there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import tensorflow as tf

from models.config import OptimizerConfig

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7


@dataclass(frozen=True)
class Parameter:
    """A weight and how it is trained."""

    variable: tf.Variable
    rate_factor: float = 1.0
    """Multiplies the learning rate."""
    decays: bool = False
    """Whether weight decay applies."""


class Optimizer(Protocol):
    """What changes the weights."""

    @property
    def variables(self) -> list[tf.Variable]:
        """What it remembers of the former updates."""

    def update(self, gradients: Sequence[tf.Tensor], rate: tf.Tensor) -> None:
        """Updates the weights by one step.

        Args:
            gradients: float32, one for each parameter.
            rate: scalar float32 learning rate.
        """


def _zeros(parameters: Sequence[Parameter]) -> list[tf.Variable]:
    return [tf.Variable(tf.zeros(p.variable.shape), trainable=False) for p in parameters]


class Momentum:
    """SGD with momentum: `velocity = momentum * velocity - rate * gradient; weight += velocity`.

    The gradient of a weight that decays is that of the loss plus `weight_decay * weight`: TF1's `l2_regularizer`, as
    research/deeplab uses it.
    """

    def __init__(self, parameters: Sequence[Parameter], *, momentum: float, weight_decay: float) -> None:
        self._parameters = list(parameters)
        self._momentum = momentum
        self._weight_decay = weight_decay
        self._velocities = _zeros(parameters)

    @property
    def variables(self) -> list[tf.Variable]:
        return self._velocities

    def update(self, gradients: Sequence[tf.Tensor], rate: tf.Tensor) -> None:
        for parameter, velocity, gradient in zip(self._parameters, self._velocities, gradients, strict=True):
            if parameter.decays and self._weight_decay:
                gradient = gradient + self._weight_decay * parameter.variable  # noqa: PLW2901
            tf.raw_ops.ResourceApplyKerasMomentum(
                var=parameter.variable.handle,
                accum=velocity.handle,
                lr=rate * parameter.rate_factor,
                grad=gradient,
                momentum=self._momentum,
            )


class AdamW:
    """Adam with decoupled weight decay (arXiv 1711.05101), as `keras.optimizers.AdamW`: the decay comes first."""

    def __init__(self, parameters: Sequence[Parameter], *, weight_decay: float) -> None:
        self._parameters = list(parameters)
        self._weight_decay = weight_decay
        self._means, self._squares = _zeros(parameters), _zeros(parameters)
        self._updates = tf.Variable(0, dtype=tf.int64, trainable=False)

    @property
    def variables(self) -> list[tf.Variable]:
        return [self._updates, *self._means, *self._squares]

    def update(self, gradients: Sequence[tf.Tensor], rate: tf.Tensor) -> None:
        self._updates.assign_add(1)
        updates = tf.cast(self._updates, tf.float32)
        powers = tf.pow(BETA_1, updates), tf.pow(BETA_2, updates)
        for parameter, mean, square, gradient in zip(
            self._parameters, self._means, self._squares, gradients, strict=True
        ):
            self._update(parameter, mean, square, gradient, rate * parameter.rate_factor, powers)

    def _update(
        self,
        parameter: Parameter,
        mean: tf.Variable,
        square: tf.Variable,
        gradient: tf.Tensor,
        rate: tf.Tensor,
        powers: tuple[tf.Tensor, tf.Tensor],
    ) -> None:
        if parameter.decays and self._weight_decay:
            parameter.variable.assign(parameter.variable * (1.0 - rate * self._weight_decay))
        tf.raw_ops.ResourceApplyAdam(
            var=parameter.variable.handle,
            m=mean.handle,
            v=square.handle,
            beta1_power=powers[0],
            beta2_power=powers[1],
            lr=rate,
            beta1=BETA_1,
            beta2=BETA_2,
            epsilon=EPSILON,
            grad=gradient,
        )


def build_optimizer(parameters: Sequence[Parameter], config: OptimizerConfig) -> Optimizer:
    """The optimizer that the configuration names, at its first step."""
    if config.optimizer == "sgd":
        return Momentum(parameters, momentum=config.momentum, weight_decay=config.weight_decay)
    return AdamW(parameters, weight_decay=config.weight_decay)
