"""One step of training: forward, backward, clip, update, average."""

from contextlib import AbstractContextManager, nullcontext

import keras
import numpy as np
import tensorflow as tf

from models.averaging import MovingAverage
from models.config import OptimizerConfig
from models.losses import cross_entropy, decayed_kernels, weight_penalty
from models.schedule import PolySchedule


def build_optimizer(
    model: keras.Model, config: OptimizerConfig, rate: keras.optimizers.schedules.LearningRateSchedule
) -> keras.optimizers.Optimizer:
    """The optimizer of a built model, with its slots."""
    if config.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(rate, momentum=config.momentum)
    else:
        optimizer = keras.optimizers.AdamW(rate, weight_decay=config.weight_decay)
        decayed = {id(kernel) for kernel in decayed_kernels(model)}
        optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if id(v) not in decayed])
    optimizer.build(model.trainable_variables)
    return optimizer


class Learner:
    """A model, its optimizer and the moving average of its weights.

    Args:
        model: a built model: (batch, height, width, 3) images in [0, 255] to (batch, height, width, classes) logits.
        config: how the weights are updated.
        steps: of the whole training.
        class_weights: (classes,) weights in the loss.
    """

    def __init__(self, model: keras.Model, config: OptimizerConfig, steps: int, class_weights: np.ndarray) -> None:
        self.model = model
        self._config = config
        self._class_weights = tf.constant(class_weights)
        self._schedule = PolySchedule(config.learning_rate, steps, config.power, config.warmup_steps)
        self._optimizer = build_optimizer(model, config, self._schedule)
        self._average = MovingAverage(self.weights, config.ema_decay) if config.ema_decay else None
        self.step = tf.function(self._step, autograph=False)

    @property
    def weights(self) -> list[tf.Variable]:
        """What the model is: trained weights and moving statistics of batch normalisation."""
        return [weight.value for weight in self.model.weights]

    @property
    def variables(self) -> list[tf.Variable]:
        """All that the next steps depend on: weights, seeds of dropout, optimizer slots and step count, averages."""
        model = [variable.value for variable in self.model.variables]
        optimizer = [variable.value for variable in self._optimizer.variables]
        return [*model, *optimizer, *(self._average.averages if self._average else [])]

    def learning_rate(self, step: int) -> float:
        """The rate after `step` steps."""
        return float(self._schedule(step))

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the model holds the averaged weights, if there are such."""
        return self._average.applied() if self._average else nullcontext()

    def keep_average(self) -> None:
        """Gives the model the averaged weights, if there are such, for good."""
        if self._average:
            self._average.apply()

    def _step(self, images: tf.Tensor, masks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Updates the weights by one batch.

        Args:
            images: (batch, height, width, 3) float32 in [0, 255].
            masks: (batch, height, width) uint8 class ids.

        Returns:
            Loss, and global norm of its gradient before clipping.
        """
        trained = self.model.trainable_variables
        with tf.GradientTape() as tape:
            loss = self._loss(self.model(images, training=True), masks)
        gradients = tape.gradient(loss, [variable.value for variable in trained])
        norm = tf.linalg.global_norm(gradients)
        if self._config.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self._config.clip_norm, use_norm=norm)
        self._optimizer.apply(gradients, trained)
        if self._average:
            self._average.update(self._optimizer.iterations.value)
        return loss, norm

    def _loss(self, logits: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
        loss = cross_entropy(masks, logits, self._class_weights)
        if self._config.optimizer == "sgd":
            loss += weight_penalty(self.model, self._config.weight_decay)
        return loss
