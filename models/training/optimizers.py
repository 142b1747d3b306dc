"""How the weights are updated: SGD and AdamW, the learning rate, the loss scale, the moving average.

Each weight is updated by one of TensorFlow's own kernels. Keras spells AdamW as a dozen elementwise operations, which
took 158 ms for 20 million weights on 2 cores; the kernel takes 49 ms for the same numbers. Inside `strategy.run` each
replica updates its own copy of a weight and no value travels between them: given the same gradients, all copies stay
equal. `keras.optimizers` add up the gradients of the replicas once more, and cannot be called under a condition there.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import tensorflow as tf
from keras import layers, ops

from models.config import OptimizerConfig

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7

#: The loss scale of float16.
INITIAL_SCALE, LOWEST_SCALE, HIGHEST_SCALE = 2.0**15, 1.0, 2.0**24
#: Finite steps in a row after which the loss scale doubles.
GROWTH_STEPS = 2000


@dataclass(frozen=True)
class Parameter:
    """A weight and how it is trained."""

    variable: tf.Variable
    rate_factor: float = 1.0
    """Multiplies the learning rate."""
    decays: bool = False
    """Whether weight decay applies."""


class Optimizer(Protocol):
    """Updates the weights, in an order of parameters that is fixed when it is made."""

    @property
    def variables(self) -> list[tf.Variable]:
        """The state that former updates left."""

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
            its_rate = rate * parameter.rate_factor
            if parameter.decays and self._weight_decay:
                parameter.variable.assign(parameter.variable * (1.0 - its_rate * self._weight_decay))
            tf.raw_ops.ResourceApplyAdam(
                var=parameter.variable.handle,
                m=mean.handle,
                v=square.handle,
                beta1_power=powers[0],
                beta2_power=powers[1],
                lr=its_rate,
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


def decayed_kernels(model: keras.Model) -> list[keras.Variable]:
    """The weights that decay: kernels of convolutions, but no depthwise kernel, bias or batch normalisation.

    As in research/deeplab, where `regularize_depthwise` is off.
    """
    every = model._flatten_layers(include_self=False, recursive=True)
    # DepthwiseConv2D is not a Conv2D.
    return [layer.kernel for layer in every if isinstance(layer, layers.Conv2D) and layer.kernel.trainable]


@keras.saving.register_keras_serializable("deeplab")
class PolySchedule(keras.optimizers.schedules.LearningRateSchedule):
    """`peak * (1 - step / steps) ** power` ("poly", arXiv 1706.05587, section 4.1), times a linear warm-up.

    The warm-up multiplies the rate of step k (from 0) by `min(1, (k + 1) / warmup_steps)`.

    Args:
        peak: learning rate that the decay starts from.
        steps: number of steps of the whole training; the rate is 0 from there on.
        power: exponent of the decay.
        warmup_steps: steps until the warm-up is over; 0 for none.
    """

    def __init__(self, peak: float, steps: int, power: float = 0.9, warmup_steps: int = 0) -> None:
        super().__init__()
        self._arguments = {"peak": peak, "steps": steps, "power": power, "warmup_steps": warmup_steps}

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        remaining = ops.maximum(1.0 - step / self._arguments["steps"], 0.0)
        warmup = ops.minimum((step + 1.0) / max(self._arguments["warmup_steps"], 1), 1.0)
        return self._arguments["peak"] * warmup * remaining ** self._arguments["power"]

    def get_config(self) -> dict[str, Any]:
        return dict(self._arguments)


class LossScale:
    """A factor that keeps small gradients above the least float16 (arXiv 1710.03740, section 3.2).

    A step whose gradients overflow is skipped and halves it; many good ones in a row double it.
    """

    def __init__(self) -> None:
        self.value = tf.Variable(INITIAL_SCALE, trainable=False)
        self._good_steps = tf.Variable(0, trainable=False)

    @property
    def variables(self) -> list[tf.Variable]:
        """The state that the next steps depend on."""
        return [self.value, self._good_steps]

    def is_lowest(self) -> tf.Tensor:
        """Whether the scale cannot be lowered: a step whose gradients overflow even so has diverged."""
        return self.value <= LOWEST_SCALE

    def adapt(self, finite: tf.Tensor) -> None:
        """Lowers or raises the scale after a step; `finite` is whether its gradients were finite."""
        good_steps = tf.where(finite, self._good_steps + 1, 0)
        grows = good_steps >= GROWTH_STEPS
        raised = tf.where(grows, tf.minimum(2.0 * self.value, HIGHEST_SCALE), self.value)
        self.value.assign(tf.where(finite, raised, tf.maximum(0.5 * self.value, LOWEST_SCALE)))
        self._good_steps.assign(tf.where(grows, 0, good_steps))


class MovingAverage:
    """An exponential moving average of variables.

    Early on the decay is (1 + step) / (10 + step), if that is less, as in TensorFlow's `ExponentialMovingAverage`:
    otherwise the random initial weights would count for thousands of steps. Moving statistics of batch normalisation
    are averaged too, so that they match the averaged weights.

    Args:
        variables: floating-point variables.
        decay: weight of the average so far, in [0, 1).
    """

    def __init__(self, variables: Sequence[tf.Variable], decay: float) -> None:
        self._variables = list(variables)
        self._decay = decay
        self.averages = [tf.Variable(variable, trainable=False) for variable in self._variables]

    def restart(self) -> None:
        """Sets the averages to the variables' values."""
        for average, variable in zip(self.averages, self._variables, strict=True):
            average.assign(variable)

    def update(self, step: tf.Tensor) -> None:
        """Updates the averages with the variables' values after `step` (from 1) steps."""
        step = tf.cast(step, tf.float32)
        rate = 1.0 - tf.minimum(self._decay, (1.0 + step) / (10.0 + step))
        for average, variable in zip(self.averages, self._variables, strict=True):
            average.assign_sub(rate * (average - variable))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A context in which the variables hold their averages; afterwards each has its own value again."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def apply(self) -> None:
        """Sets the variables to their averages."""
        for average, variable in zip(self.averages, self._variables, strict=True):
            variable.assign(average)

    def _swap(self) -> None:
        for average, variable in zip(self.averages, self._variables, strict=True):
            value = variable.numpy()
            variable.assign(average)
            average.assign(value)
