"""The accuracy of models for other targets: their mean IoU on test images, compared with the SavedModel's."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from models.export.saved_model import CLASS_IDS, PIXELS, PIXELS_SIGNATURE
from models.metrics.confusion import confusion_matrix, mean_iou

Predict = Callable[[np.ndarray], np.ndarray]
"""From (height, width, 3) uint8 RGB to (height, width) uint8 class ids."""


class Pair(NamedTuple):
    """An image and its labels, as the models receive them."""

    image: np.ndarray
    """(height, width, 3) uint8."""
    mask: np.ndarray
    """(height, width) uint8 class ids, or the ignore label."""


class AccuracyCheck(NamedTuple):
    """Whether a model is accurate enough to be kept, and why."""

    kept: bool
    reason: str
    mean_iou: float
    drop: float
    """By how much `mean_iou` falls behind the SavedModel's."""


def saved_model_predictor(path: str) -> Predict:
    """The SavedModel's prediction."""
    signature = tf.saved_model.load(path).signatures[PIXELS_SIGNATURE]
    return lambda image: signature(**{PIXELS: tf.constant(image[None])})[CLASS_IDS][0].numpy()


def score(predict: Predict, pairs: Sequence[Pair], num_classes: int) -> float:
    """Mean IoU over all pairs; NaN if no pixel is labelled."""
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for pair in pairs:
        matrix += np.asarray(confusion_matrix(pair.mask, predict(pair.image), num_classes))
    return mean_iou(matrix)


def compare_accuracy(found: float, expected: float, max_drop: float, key: str) -> AccuracyCheck:
    """Compares the mean IoU of a model with the SavedModel's; `key` names `max_drop` in the configuration."""
    drop = expected - found
    kept = drop <= max_drop  # False for NaN: a model without a labelled pixel is not known to be accurate
    relation = "keeps" if kept else "breaks"
    return AccuracyCheck(kept, f"mean IoU {found:.4f}, {-drop:+z.4f}, {relation} {key}={max_drop:g}", found, drop)
