"""Losses over the pixels that have a label."""

from collections.abc import Sequence

import keras
from keras import layers, ops

from data.features import IGNORE_LABEL


def cross_entropy(
    labels: keras.KerasTensor,
    logits: keras.KerasTensor,
    class_weights: Sequence[float] | keras.KerasTensor | None = None,
    *,
    label_smoothing: float = 0.0,
) -> keras.KerasTensor:
    """Softmax cross-entropy: the weighted mean over valid pixels, 0 when there are none.

    Args:
        labels: (batch, height, width) integer class ids, `IGNORE_LABEL` where void.
        logits: (batch, height, width, classes) float32.
        class_weights: (classes,) weight of the pixels of each class; None weighs all alike.
        label_smoothing: probability in [0, 1) that the target spreads evenly over all classes.

    Returns:
        Scalar float32, in nats.
    """
    labels = ops.cast(labels, "int32")
    valid = ops.not_equal(labels, IGNORE_LABEL)
    labels = ops.where(valid, labels, 0)
    weights = ops.cast(valid, "float32")
    if class_weights is not None:
        weights = weights * ops.take(ops.cast(class_weights, "float32"), labels)
    losses = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)  # (batch, height, width)
    if label_smoothing:
        uniform = ops.logsumexp(logits, axis=-1) - ops.mean(logits, axis=-1)
        losses = (1.0 - label_smoothing) * losses + label_smoothing * uniform
    total = ops.sum(weights)
    return ops.sum(losses * weights) / ops.where(total > 0.0, total, 1.0)


def decayed_kernels(model: keras.Model) -> list[keras.Variable]:
    """The weights that decay: kernels of convolutions, but no depthwise kernel, bias or batch normalisation.

    As in research/deeplab, where `regularize_depthwise` is off.
    """
    every = model._flatten_layers(include_self=False, recursive=True)
    # DepthwiseConv2D is no Conv2D.
    return [layer.kernel for layer in every if isinstance(layer, layers.Conv2D) and layer.kernel.trainable]


def weight_penalty(model: keras.Model, weight_decay: float) -> keras.KerasTensor:
    """`weight_decay / 2 * |w|^2` over `decayed_kernels`, scalar float32: the loss term of TF1's `l2_regularizer`."""
    squares = [ops.sum(ops.square(ops.cast(kernel, "float32"))) for kernel in decayed_kernels(model)]
    return 0.5 * weight_decay * sum(squares)
