"""What training minimises, as a distributed step needs it."""

from collections.abc import Sequence

import keras
from keras import ops

from models.config import LossConfig
from models.training.losses import dice_loss, lovasz_softmax, weighted_cross_entropy

#: Dice and Lovasz look at one pixel of so many in each direction. For 16 pictures of 192x192 pixels and 11 classes, on
#: 2 cores where the whole step takes 750 ms, Lovasz and its gradient then take 38 ms, and 270 ms at every second pixel;
#: Dice takes 16 ms, and 60 ms at every pixel.
STRIDE = 4


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
            masks: (batch, height, width) class ids, `IGNORE_LABEL` where void.
            step: updates done so far, for the ramp of `top_k_fraction`.

        Returns:
            Three float32 scalars: weighted sum of the cross-entropies; sum of their weights, 0 when no pixel has a
            label; what is added to the mean.
        """
        total, weight = weighted_cross_entropy(
            masks,
            logits,
            self._class_weights,
            label_smoothing=self._config.label_smoothing,
            fraction=self._fraction(step),
        )
        return total, weight, self._extra(logits, masks)

    def _fraction(self, step: int | keras.KerasTensor) -> float | keras.KerasTensor | None:
        """Of the pixels that count after `step` updates; None for all of them at any time."""
        last, ramp = self._config.top_k_fraction, self._config.top_k_ramp_steps
        if last == 1.0:
            return None
        if not ramp:
            return last
        return 1.0 - (1.0 - last) * ops.minimum(ops.cast(step, "float32") / ramp, 1.0)

    def _extra(self, logits: keras.KerasTensor, masks: keras.KerasTensor) -> keras.KerasTensor:
        weighted = ((self._config.dice, dice_loss), (self._config.lovasz, lovasz_softmax))
        masks, logits = (tensor[:, ::STRIDE, ::STRIDE] for tensor in (masks, logits))
        return sum((weight * loss(masks, logits) for weight, loss in weighted if weight), ops.zeros((), "float32"))
