"""TensorFlow's own kernels where they are much faster than Keras' operations; only here does the network bypass Keras.

- Keras 3 computes batch normalisation in a dozen elementwise operations, which took more than half of a training step
  on a CPU; oneDNN and cuDNN have one kernel for it.
- `keras.ops.image.resize` refuses sizes that are known only when the graph runs, and a SavedModel takes any size.
- In bfloat16 some of oneDNN's gradients are many times slower than others that give the same numbers.
- TensorFlow's softmax cross-entropy runs on one core for as few classes as a segmentation has.

Other backends use Keras' operations, and the numbers are the same. Figures: `docs/performance.md`.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

#: Smallest probability whose logarithm is taken; the gradient does not pass through it.
_LEAST_PROBABILITY = 1e-37
#: oneDNN's bfloat16 batch normalisation takes the slow reference path for other channel counts.
_BATCH_NORM_CHANNELS = 16


def _on_tensorflow() -> bool:
    return keras.config.backend() == "tensorflow"


def _is_bfloat16(tensor: Any) -> bool:
    return keras.backend.standardize_dtype(tensor.dtype) == "bfloat16"


def resize_bilinear(images: keras.KerasTensor, size: tuple[Any, Any], align_corners: bool = False) -> keras.KerasTensor:
    """Bilinear interpolation of (batch, height, width, channels) to `size`, same dtype.

    Args:
        images: features or logits, any float dtype.
        size: (height, width), integers or, on TensorFlow, scalar tensors.
        align_corners: False samples at half-pixel centres, as tf-models-official and KerasHub do; True makes the corner
            pixels coincide, as research/deeplab and deeplab2 do.
    """
    if _on_tensorflow():
        import tensorflow as tf

        resized = tf.raw_ops.ResizeBilinear(
            images=images, size=tf.stack(size), align_corners=align_corners, half_pixel_centers=not align_corners
        )
        return ops.cast(resized, images.dtype)
    if not align_corners:
        return ops.image.resize(images, size, interpolation="bilinear")
    rows, columns = (_aligned_weights(images.shape[axis], size[axis - 1]) for axis in (1, 2))
    return ops.cast(ops.einsum("oh,bhwc,pw->bopc", rows, ops.cast(images, "float32"), columns), images.dtype)


def _aligned_weights(inputs: int, outputs: int) -> keras.KerasTensor:
    """(outputs, inputs) float32: the share of each input in each output of a linear interpolation between corners."""
    positions = ops.arange(outputs, dtype="float32") * ((inputs - 1) / max(outputs - 1, 1))
    distances = ops.abs(positions[:, None] - ops.arange(inputs, dtype="float32")[None, :])
    return ops.maximum(1.0 - distances, 0.0)


def softmax_cross_entropy(
    labels: keras.KerasTensor, logits: keras.KerasTensor, label_smoothing: float = 0.0
) -> keras.KerasTensor:
    """The cross-entropy of each pixel, in nats.

    Args:
        labels: (batch, height, width) int32 class ids in [0, classes).
        logits: (batch, height, width, classes) float32.
        label_smoothing: probability in [0, 1) that the target spreads evenly over all classes.

    Returns:
        (batch, height, width) float32. On TensorFlow a class adds at most 85, since smaller probabilities than 1e-37
        count as 1e-37; the gradient is exact even there.
    """
    if _on_tensorflow():
        return _tensorflow_cross_entropy(labels, logits, label_smoothing)
    losses = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    if not label_smoothing:
        return losses
    uniform = ops.logsumexp(logits, axis=-1) - ops.mean(logits, axis=-1)
    return (1.0 - label_smoothing) * losses + label_smoothing * uniform


def _tensorflow_cross_entropy(labels: Any, logits: Any, smoothing: float) -> Any:
    import tensorflow as tf

    classes = logits.shape[-1]
    on, off = 1.0 - smoothing + smoothing / classes, smoothing / classes

    @tf.custom_gradient
    def compute(logits: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        probabilities = tf.nn.softmax(logits)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return (probabilities - tf.one_hot(labels, classes, on, off)) * upstream[..., None]

        true = tf.gather(probabilities, labels, batch_dims=3)
        losses = -(on - off) * tf.math.log(tf.maximum(true, _LEAST_PROBABILITY))
        if smoothing:
            losses -= off * tf.reduce_sum(tf.math.log(tf.maximum(probabilities, _LEAST_PROBABILITY)), axis=-1)
        return losses, gradient

    return compute(logits)


@keras.saving.register_keras_serializable("deeplab")
class Conv2D(layers.Conv2D):
    """`keras.layers.Conv2D`; the kernel's gradient of a 1x1 convolution in bfloat16 is a product of matrices."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        pointwise = self.kernel_size == (1, 1) and self.strides == (1, 1) and self.groups == 1
        if _on_tensorflow() and pointwise and _is_bfloat16(inputs):
            return _pointwise(inputs, ops.cast(kernel, inputs.dtype))
        return super().convolution_op(inputs, kernel)


def _pointwise(inputs: Any, kernel: Any) -> Any:
    import tensorflow as tf

    strides, padding = [1, 1, 1, 1], "VALID"

    @tf.custom_gradient
    def compute(inputs: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[Any, Any]]]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            to_inputs = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(inputs), filter=kernel, out_backprop=upstream, strides=strides, padding=padding
            )
            *_, before, after = kernel.shape
            pixels, errors = tf.reshape(inputs, [-1, before]), tf.reshape(upstream, [-1, after])
            return to_inputs, tf.reshape(tf.matmul(pixels, errors, transpose_a=True), kernel.shape)

        return tf.nn.conv2d(inputs, kernel, strides, padding), gradient

    return compute(inputs, kernel)


@keras.saving.register_keras_serializable("deeplab")
class DepthwiseConv2D(layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D`; with strides, the inputs' gradient in bfloat16 is computed in float32."""

    def call(self, inputs: Any) -> Any:
        plain = not self.use_bias and self.activation is keras.activations.linear and self.depth_multiplier == 1
        if _on_tensorflow() and plain and self.strides != (1, 1) and _is_bfloat16(inputs):
            kernel = ops.cast(self.kernel, inputs.dtype)
            return _strided_depthwise(inputs, kernel, [1, *self.strides, 1], self.padding.upper())
        return super().call(inputs)


def _strided_depthwise(inputs: Any, kernel: Any, strides: list[int], padding: str) -> Any:
    import tensorflow as tf

    @tf.custom_gradient
    def compute(inputs: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[Any, Any]]]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            to_inputs = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(inputs),
                filter=tf.cast(kernel, tf.float32),
                out_backprop=tf.cast(upstream, tf.float32),
                strides=strides,
                padding=padding,
            )
            to_kernel = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                input=inputs, filter_sizes=kernel.shape, out_backprop=upstream, strides=strides, padding=padding
            )
            return tf.cast(to_inputs, inputs.dtype), to_kernel

        return tf.nn.depthwise_conv2d(inputs, kernel, strides, padding), gradient

    return compute(inputs, kernel)


@keras.saving.register_keras_serializable("deeplab")
class BatchNormalization(layers.BatchNormalization):
    """`keras.layers.BatchNormalization` over the last axis of (batch, height, width, channels), same numbers.

    Statistics of a batch are computed by Keras where they are synchronised across replicas, and where XLA compiles: XLA
    computes the variance of the fused kernel as the mean of the squares less the square of the mean, which leaves 2
    digits of float32 where the mean is 100 times the standard deviation, and may be negative at 1000 times.
    """

    #: Whether XLA compiles the step of training.
    compiled = False

    def call(self, inputs: keras.KerasTensor, training: bool | None = None, mask: Any = None) -> keras.KerasTensor:
        learns = training and self.trainable
        if not _on_tensorflow() or (learns and (self.synchronized or self.compiled)):
            return super().call(inputs, training=training, mask=mask)
        if learns:
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
        through_float32 = _is_bfloat16(inputs) and inputs.shape[-1] % _BATCH_NORM_CHANNELS
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=tf.cast(inputs, tf.float32) if through_float32 else inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=tf.zeros((0,)) if training else mean,
            variance=tf.zeros((0,)) if training else variance,
            epsilon=self.epsilon,
            is_training=training,
        )
        return tf.cast(outputs, inputs.dtype), mean, variance
