"""Losses over the labelled pixels, and their sum, which training minimises.

Labels are (batch, height, width) of any integer dtype; pixels with the ignore label (void), `IGNORE_LABEL`, change
neither losses nor gradients. Logits are (batch, height, width, classes) float32. Where no pixel has a label, loss and
gradient are 0. All shapes are fixed, so that XLA compiles the losses for a TPU.
"""

from collections.abc import Sequence

import keras
from keras import ops

from data.features import IGNORE_LABEL
from models.config import LossConfig
from models.network.kernels import softmax_cross_entropy

#: Dice and Lovasz use one pixel of so many in each direction. For 16 images of 192x192 pixels and 11 classes, on
#: 2 cores where the whole step takes 750 ms, Lovasz and its gradient then take 38 ms, and 270 ms at every second pixel;
#: Dice takes 16 ms, and 60 ms at every pixel.
STRIDE = 4


def weighted_cross_entropy(
    labels: keras.KerasTensor,
    logits: keras.KerasTensor,
    class_weights: Sequence[float] | keras.KerasTensor | None = None,
    *,
    label_smoothing: float = 0.0,
    fraction: float | keras.KerasTensor | None = None,
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Softmax cross-entropy as a numerator and a denominator, for the mean over the pixels of several replicas.

    With a fraction only the hardest pixels count (online hard example mining; `top_k_percent_pixels` of
    research/deeplab, `utils/train_utils.py`), which are those with the largest weighted loss. The references differ in
    detail: both take the fraction of all pixels, ignored ones included, so that many ignored pixels leave nothing out;
    here it is the fraction of the pixels that count. And with class weights they divide by a number of pixels -
    research/deeplab by the chosen ones with a loss above 0, tf-models-official by the lesser of the chosen and the
    labelled - here the divisor is the sum of the weights of the chosen, as without a fraction.

    Args:
        labels: class ids.
        logits: logits of the classes.
        class_weights: (classes,) weight of the pixels of each class; None weighs all alike.
        label_smoothing: probability in [0, 1) that the target spreads evenly over all classes.
        fraction: fraction of the pixels with a label and a positive weight that is chosen, in (0, 1]: at least one, and
            all that tie with the last one. A number or a scalar; None chooses all without looking for the hardest.

    Returns:
        Two float32 scalars: the weighted sum of the losses of the chosen pixels, in nats, and the sum of their weights.
    """
    labels = ops.cast(labels, "int32")
    valid = ops.not_equal(labels, IGNORE_LABEL)
    labels = ops.where(valid, labels, 0)
    weights = ops.cast(valid, "float32")
    if class_weights is not None:
        weights = weights * ops.take(ops.cast(class_weights, "float32"), labels)
    losses = softmax_cross_entropy(labels, logits, label_smoothing)  # (batch, height, width)
    if fraction is not None:
        # A product, unlike a selection, lets a loss that is not a number show.
        weights = weights * hardest(ops.stop_gradient(losses * weights), weights > 0.0, fraction)
    return ops.sum(losses * weights), ops.sum(weights)


def hardest(
    losses: keras.KerasTensor, counted: keras.KerasTensor, fraction: float | keras.KerasTensor
) -> keras.KerasTensor:
    """Marks the given fraction of the counted pixels, those with the largest losses, without sorting.

    The bits of non-negative floats, read as integers, have the order of the floats. So the smallest loss that is chosen
    is found exactly, bit by bit, by counting: 14 ms for 590,000 pixels on 2 cores, where a sort took 53 ms.

    Args:
        losses: (batch, height, width) float32, not negative.
        counted: (batch, height, width) bool.
        fraction: fraction of the counted pixels, in (0, 1].

    Returns:
        (batch, height, width) float32: 1 where chosen, else 0.
    """
    number = ops.cast(fraction, "float32") * ops.sum(ops.cast(counted, "float32"))
    number = ops.maximum(ops.cast(number, "int32"), 1)
    # The logarithm of 1 may have come with a minus sign.
    bits = ops.where(counted, ops.view(ops.abs(losses), "int32"), -1)
    threshold = ops.zeros((), "int32")
    for bit in reversed(range(31)):
        candidate = threshold + (1 << bit)
        enough = ops.sum(ops.cast(bits >= candidate, "int32")) >= number
        threshold = ops.where(enough, candidate, threshold)
    return ops.cast(bits >= threshold, "float32")


def dice_loss(labels: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """Soft Dice loss: the mean of 1 - Dice over the classes that occur in the labels, in [0, 1].

    Dice is twice the overlap of probability and label over the sum of both, over all pixels of the batch together
    (V-Net, arXiv 1606.04797, section 3, without the squares in its denominator).

    Returns:
        Scalar float32.
    """
    probabilities, truth, _ = _per_pixel(labels, logits)
    # As in a confusion matrix, rows are labels and columns predictions; an ignored pixel adds to no row.
    matrix = ops.einsum("pl,pc->lc", truth, probabilities)  # (classes, classes)
    pixels = ops.sum(truth, axis=0)
    dice = 2.0 * ops.diagonal(matrix) / _or_one(pixels + ops.sum(matrix, axis=0))
    return _mean_of_present(1.0 - dice, pixels)


def lovasz_softmax(labels: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """Lovasz-softmax loss (arXiv 1705.08790, equation 11): a surrogate of 1 - mean IoU, in [0, 1].

    Over all pixels of the batch together, and the mean over the classes that occur in the labels: the paper's
    "per_image=False, classes='present'". It sorts the pixels once for each class.

    Returns:
        Scalar float32.
    """
    probabilities, truth, valid = (ops.transpose(values) for values in _per_pixel(labels, logits))  # (classes, pixels)
    # Ignored pixels come last and take no part.
    errors = ops.where(valid, ops.abs(truth - probabilities), -1.0)
    errors, order = ops.top_k(errors, ops.shape(errors)[-1])
    slopes = _jaccard_slopes(ops.take_along_axis(truth, order, axis=-1))
    losses = ops.sum(ops.relu(errors) * ops.stop_gradient(slopes), axis=-1)  # (classes,)
    return _mean_of_present(losses, ops.sum(truth, axis=-1))


def _jaccard_slopes(truth: keras.KerasTensor) -> keras.KerasTensor:
    """By how much 1 - IoU grows with each pixel that is wrong, in this order: algorithm 1 of arXiv 1705.08790.

    Args:
        truth: (classes, pixels) float32, 1 where the pixel has the class, else 0.

    Returns:
        (classes, pixels) float32.
    """
    union = ops.sum(truth, axis=-1, keepdims=True) + ops.cumsum(1.0 - truth, axis=-1)
    intersection = ops.sum(truth, axis=-1, keepdims=True) - ops.cumsum(truth, axis=-1)
    losses = 1.0 - intersection / _or_one(union)
    return losses - ops.pad(losses[:, :-1], ((0, 0), (1, 0)))


def _per_pixel(
    labels: keras.KerasTensor, logits: keras.KerasTensor
) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor]:
    """For each pixel: probabilities and truth, (pixels, classes) float32, and whether it has a label, (pixels, 1) bool.

    The truth is 1 for the class of the label and else 0; 0 for all classes where the pixel is ignored.
    """
    classes = logits.shape[-1]
    labels = ops.reshape(ops.cast(labels, "int32"), (-1, 1))
    truth = ops.cast(ops.equal(labels, ops.arange(classes, dtype="int32")), "float32")
    return ops.reshape(ops.softmax(logits), (-1, classes)), truth, ops.not_equal(labels, IGNORE_LABEL)


def _or_one(values: keras.KerasTensor) -> keras.KerasTensor:
    """The values as a denominator: 1 where they are 0."""
    return ops.where(values > 0.0, values, 1.0)


def _mean_of_present(losses: keras.KerasTensor, pixels: keras.KerasTensor) -> keras.KerasTensor:
    """Mean of the losses (classes,) of the classes that have pixels; 0 when none has."""
    present = ops.cast(pixels > 0.0, "float32")
    return ops.sum(losses * present) / _or_one(ops.sum(present))


class Objective:
    """Cross-entropy over the labelled pixels, plus Dice and Lovasz-softmax if they are configured.

    Args:
        config: what is minimised.
        class_weights: (classes,) weights of the cross-entropy; Dice and Lovasz weigh all classes alike by themselves.
    """

    def __init__(self, config: LossConfig, class_weights: Sequence[float]) -> None:
        self._config = config
        self._class_weights = ops.convert_to_tensor(class_weights, "float32")

    def __call__(
        self, logits: keras.KerasTensor, masks: keras.KerasTensor, step: int | keras.KerasTensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor]:
        """The loss in three parts; `sum / weight + extra` is the loss where one device sees the whole batch.

        Several replicas, or several parts of a batch, add up all sums and divide by the sum of all weights, which makes
        each pixel count alike wherever it was seen; of the extras they take the mean, weighted by the same weights. The
        hardest pixels are chosen, and the regions of Dice and Lovasz measured, by each replica and part among its own
        pixels.

        Args:
            logits: (batch, height, width, classes) float32.
            masks: (batch, height, width) class ids, or `IGNORE_LABEL`.
            step: updates done so far, for the ramp of `ohem_fraction`.

        Returns:
            Three float32 scalars: weighted sum of the cross-entropies; sum of their weights, 0 when no pixel has a
            label; what is added to the mean.
        """
        fraction: float | keras.KerasTensor = self._config.ohem_fraction
        if ramp := self._config.ohem_ramp_steps:
            fraction = 1.0 - (1.0 - fraction) * ops.minimum(ops.cast(step, "float32") / ramp, 1.0)
        total, weight = weighted_cross_entropy(
            masks,
            logits,
            self._class_weights,
            label_smoothing=self._config.label_smoothing,
            fraction=None if self._config.ohem_fraction == 1.0 else fraction,
        )
        masks, logits = (tensor[:, ::STRIDE, ::STRIDE] for tensor in (masks, logits))
        extra = ops.zeros((), "float32")
        for factor, loss in ((self._config.dice, dice_loss), (self._config.lovasz, lovasz_softmax)):
            if factor:
                extra = extra + factor * loss(masks, logits)
        return total, weight, extra
