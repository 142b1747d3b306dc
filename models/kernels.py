"""TensorFlow's own kernels for two operations; the only place of the network that looks behind Keras.

- Keras 3 spells batch normalisation as a dozen elementwise operations, which took more than half of a training step on
  a CPU; oneDNN and cuDNN have one kernel for it.
- `keras.ops.image.resize` refuses sizes that are known only when the graph runs, and a SavedModel takes any size.

Other backends take Keras' own way, and the numbers are the same.
"""

from typing import Any

import keras
from keras import layers, ops


def resize_bilinear(images: keras.KerasTensor, size: tuple[Any, Any]) -> keras.KerasTensor:
    """Bilinear interpolation with half-pixel centres of (batch, height, width, channels) to `size`, same dtype.

    Half-pixel centres as in tf-models-official and KerasHub; research/deeplab aligns corners instead.

    Args:
        images: features or logits, any float dtype.
        size: (height, width), integers or scalar tensors.
    """
    if keras.config.backend() != "tensorflow":
        return ops.image.resize(images, size, interpolation="bilinear")
    import tensorflow as tf

    return ops.cast(tf.image.resize(images, size), images.dtype)


@keras.saving.register_keras_serializable("deeplab")
class BatchNormalization(layers.BatchNormalization):
    """`keras.layers.BatchNormalization` over the last axis of (batch, height, width, channels), same numbers.

    Statistics that are synchronised across replicas take Keras' own way.
    """

    def call(self, inputs: keras.KerasTensor, training: bool | None = None, mask: Any = None) -> keras.KerasTensor:
        if keras.config.backend() != "tensorflow" or self.synchronized:
            return super().call(inputs, training=training, mask=mask)
        if training and self.trainable:
            outputs, mean, variance = self._fused(inputs, (), ())
            # The kernel returns the unbiased variance; Keras keeps the biased one.
            count = ops.cast(ops.size(inputs) // inputs.shape[-1], "float32")
            variance = variance * ops.maximum(count - 1.0, 1.0) / count
            self.moving_mean.assign(self.moving_mean * self.momentum + mean * (1.0 - self.momentum))
            self.moving_variance.assign(self.moving_variance * self.momentum + variance * (1.0 - self.momentum))
        else:
            outputs, _, _ = self._fused(inputs, self.moving_mean, self.moving_variance)
        return outputs

    def _fused(self, inputs: Any, mean: Any, variance: Any) -> tuple[Any, Any, Any]:
        """Normalised inputs in their dtype, and float32 mean and variance; empty statistics mean the batch's own."""
        import tensorflow as tf

        training = isinstance(mean, tuple)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=tf.zeros((0,)) if training else mean,
            variance=tf.zeros((0,)) if training else variance,
            epsilon=self.epsilon,
            is_training=training,
        )
        return outputs, mean, variance
