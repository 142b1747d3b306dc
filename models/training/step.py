"""One update of the weights: forward, backward, clip, update, average; on one replica or many."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from models.config import TrainingConfig
from models.network.kernels import BatchNormalization
from models.training.losses import Objective
from models.training.optimizers import (
    LossScale,
    MovingAverage,
    Parameter,
    PolySchedule,
    build_optimizer,
    decayed_kernels,
)
from models.training.strategies import Distribution, distribute

Gradients = list[tf.Tensor]


class StepResult(NamedTuple):
    """The result of a step: scalars, equal on all workers."""

    loss: tf.Tensor
    """float32 loss over the global batch."""
    gradient_norm: tf.Tensor
    """float32 global norm before clipping; not finite where float16 overflowed and the step was skipped."""
    diverged: tf.Tensor
    """bool: whether the training cannot continue."""


def freeze(model: keras.Model, config: TrainingConfig) -> None:
    """Makes untrainable what `batch_norm` and `backbone_rate_factor` leave alone.

    A network without an attribute `backbone` is taken to have no backbone.
    """
    backbone = getattr(model, "backbone", None)
    frozen = {"train": None, "freeze_backbone": backbone, "freeze": model}[config.batch_norm]
    for layer in _layers(frozen):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    if config.backbone_rate_factor == 0.0:
        for layer in _layers(backbone):
            for variable in layer.trainable_variables:
                variable.trainable = False


def _layers(model: keras.Model | None) -> list[keras.layers.Layer]:
    return model._flatten_layers(include_self=False, recursive=True) if model is not None else []


def trained_parameters(model: keras.Model, backbone_rate_factor: float) -> list[Parameter]:
    """The weights that are trained, each with its learning rate factor and whether it decays."""
    backbone = getattr(model, "backbone", None)
    of_backbone = {id(variable) for variable in backbone.trainable_variables} if backbone is not None else set()
    decayed = {id(kernel) for kernel in decayed_kernels(model)}
    return [
        Parameter(variable.value, backbone_rate_factor if id(variable) in of_backbone else 1.0, id(variable) in decayed)
        for variable in model.trainable_variables
    ]


class TrainStep:
    """One update of a model's weights, and all that it depends on: optimizer, loss scale, moving average.

    The loss is the mean over the labelled pixels of the whole global batch, each with the weight of its class: replicas
    and accumulated parts give sums, and one division follows. So the numbers do not depend on how many replicas there
    are, but for the order of additions and for dropout, which drops alike on all replicas. Batch normalisation takes
    the statistics of a part over all replicas.

    Args:
        model: (batch, height, width, 3) images in [0, 255] to (batch, height, width, classes) float32 logits, built in
            the scope of the distribution. What the configuration freezes becomes untrainable.
        config: how the weights are updated.
        class_weights: (classes,) weights in the loss.
        distribution: the replicas.

    Raises:
        ConfigError: the replicas cannot train this configuration.
    """

    def __init__(
        self,
        model: keras.Model,
        config: TrainingConfig,
        class_weights: np.ndarray,
        distribution: Distribution | None = None,
    ) -> None:
        self._distribution = distribution or distribute("one_device")
        self._distribution.check(config)
        self.model = model
        self._config = config
        freeze(model, config)
        for layer in _layers(model):
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = self._distribution.replicas > 1
            if isinstance(layer, BatchNormalization):
                layer.compiled = config.jit_compile or self._distribution.name == "tpu"
        self._objective = Objective(config.loss, class_weights.tolist())
        self._schedule = PolySchedule(config.learning_rate, config.steps, config.power, config.warmup_steps)
        with self._distribution.scope():
            self._parameters = trained_parameters(model, config.backbone_rate_factor)
            self._steps = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._optimizer = build_optimizer(self._parameters, config)
            self._scale = LossScale() if config.precision == "mixed_float16" else None
            self._average = MovingAverage(self.weights, config.ema_decay) if config.ema_decay else None
        # A TPU's strategy compiles what it runs in any case.
        compiles = config.jit_compile and self._distribution.name == "one_device"
        self.run = tf.function(self._run, autograph=False, jit_compile=compiles or None)

    @property
    def weights(self) -> list[tf.Variable]:
        """The model's weights: trained ones and the moving statistics of batch normalisation."""
        return [weight.value for weight in self.model.weights]

    @property
    def variables(self) -> list[tf.Variable]:
        """Everything that the next steps depend on: weights, seeds, step count, optimizer, loss scale, averages."""
        model = [variable.value for variable in self.model.variables]
        scale = self._scale.variables if self._scale else []
        averages = self._average.averages if self._average else []
        return [*model, self._steps, *self._optimizer.variables, *scale, *averages]

    def is_finite(self) -> bool:
        """Whether the weights are finite, which a finite gradient does not guarantee."""
        return all(np.isfinite(weight.numpy()).all() for weight in self.weights)

    def learning_rate(self, step: int) -> float:
        """The learning rate after `step` steps."""
        return float(self._schedule(step))

    def scalars(self, step: int) -> dict[str, float]:
        """The scalars of the state after `step` steps that are logged."""
        scale = {"loss_scale": float(self._scale.value.numpy())} if self._scale else {}
        return {"learning_rate": self.learning_rate(step), **scale}

    def restart_average(self) -> None:
        """Restarts the moving average at the model's weights, which were set from outside."""
        if self._average:
            self._average.restart()

    def averaged(self) -> AbstractContextManager[None]:
        """A context in which the model holds the averaged weights, if an average is kept."""
        return self._average.applied() if self._average else nullcontext()

    def keep_average(self) -> None:
        """Sets the model's weights to the averaged ones, if an average is kept."""
        if self._average:
            self._average.apply()

    def _run(self, images: tf.Tensor, masks: tf.Tensor) -> StepResult:
        """Updates the weights by one global batch.

        Args:
            images: each replica's share: (share, height, width, 3) float32 in [0, 255].
            masks: (share, height, width) uint8 class ids.
        """
        strategy = self._distribution.strategy
        result = strategy.run(self._replica_step, (images, masks))
        return StepResult(*(strategy.experimental_local_results(value)[0] for value in result))

    def _replica_step(self, images: tf.Tensor, masks: tf.Tensor) -> StepResult:
        gradients, loss = self._gradients(images, masks)
        gradients = self._sum_over_replicas(gradients)
        scale = self._scale.value if self._scale else tf.ones(())
        norm = tf.linalg.global_norm(gradients) / scale
        finite = tf.math.is_finite(norm)
        diverged = ~tf.math.is_finite(loss) | ~finite & (self._scale.is_lowest() if self._scale else True)
        clip_norm = self._config.clip_norm
        if clip_norm or self._scale:
            factor = (clip_norm / tf.maximum(norm, clip_norm) if clip_norm else 1.0) / scale
            gradients = [gradient * factor for gradient in gradients]
        if self._scale:
            tf.cond(finite, lambda: self._update(gradients), lambda: tf.constant(False))
            self._scale.adapt(finite)
        else:
            self._update(gradients)
        self._steps.assign_add(1)
        if self._average:
            self._average.update(self._steps)
        return StepResult(loss, norm, diverged)

    def _update(self, gradients: Gradients) -> tf.Tensor:
        self._optimizer.update(gradients, self._schedule(self._steps))
        return tf.constant(True)

    def _gradients(self, images: tf.Tensor, masks: tf.Tensor) -> tuple[Gradients, tf.Tensor]:
        """This replica's share of the gradients, times the loss scale, and the loss over all replicas.

        The parts come one after the other. A part weighs as much as its labelled pixels.
        """
        parts = self._config.accumulation
        images, masks = tf.split(images, parts), tf.split(masks, parts)
        gradients, loss, total = self._part(images[0], masks[0])
        for part in range(1, parts):
            # Else TensorFlow would compute all parts at once, and keep the activations of all.
            with tf.control_dependencies(gradients):
                image_part, mask_part = tf.identity(images[part]), tf.identity(masks[part])
            more, part_loss, weight = self._part(image_part, mask_part)
            total += weight
            share = tf.math.divide_no_nan(weight, total)
            gradients = [before + share * (new - before) for before, new in zip(gradients, more, strict=True)]
            loss += share * (part_loss - loss)
        return gradients, loss

    def _part(self, images: tf.Tensor, masks: tf.Tensor) -> tuple[Gradients, tf.Tensor, tf.Tensor]:
        """This replica's share of the gradients of a part; its loss and its weight over all replicas."""
        with tf.GradientTape() as tape:
            crossed, weight, extra = self._objective(self.model(images, training=True), masks, self._steps)
            weight = tf.stop_gradient(weight)
            # The extra is a mean: it weighs as much as the pixels that it is about.
            share = crossed + weight * extra
        loss, total = tf.unstack(self._sum_over_replicas(tf.stack([share, weight])))
        upstream = tf.math.divide_no_nan(self._scale.value if self._scale else 1.0, total)
        variables: Sequence[tf.Variable] = [parameter.variable for parameter in self._parameters]
        gradients = tape.gradient(
            share, variables, output_gradients=upstream, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return gradients, tf.math.divide_no_nan(loss, total), total

    def _sum_over_replicas(self, values: tf.Tensor | Gradients) -> tf.Tensor | Gradients:
        if self._distribution.replicas == 1:
            return values
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)
