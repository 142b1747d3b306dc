"""How a model for another target is judged: by its mean IoU on test images, beside that of the SavedModel."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from models.export.saved_model import CLASS_IDS, PIXELS, PIXELS_SIGNATURE
from models.metrics.confusion import confusion_matrix, mean_iou

Predict = Callable[[np.ndarray], np.ndarray]
"""From (height, width, 3) uint8 RGB to (height, width) uint8 class ids."""


class Pair(NamedTuple):
    """An image and its labels, as models see them."""

    image: np.ndarray
    """(height, width, 3) uint8."""
    mask: np.ndarray
    """(height, width) uint8 class ids, or the ignore label."""


class Verdict(NamedTuple):
    """Whether a model is good enough, and why."""

    kept: bool
    reason: str
    mean_iou: float
    drop: float


def saved_model_predictor(path: str) -> Predict:
    """The SavedModel's own answer."""
    signature = tf.saved_model.load(path).signatures[PIXELS_SIGNATURE]
    return lambda image: signature(**{PIXELS: tf.constant(image[None])})[CLASS_IDS][0].numpy()


def score(predict: Predict, pairs: Sequence[Pair], num_classes: int) -> float:
    """Mean IoU over all pairs; NaN where no pixel is labelled."""
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for pair in pairs:
        matrix += np.asarray(confusion_matrix(pair.mask, predict(pair.image), num_classes))
    return mean_iou(matrix)


def judge(found: float, expected: float, max_drop: float, key: str) -> Verdict:
    """Holds the mean IoU of a model to the SavedModel's; `key` names the bound in the configuration."""
    drop = expected - found
    kept = drop <= max_drop  # NaN is no proof of accuracy
    relation = "keeps" if kept else "breaks"
    return Verdict(kept, f"mean IoU {found:.4f}, {-drop:+z.4f}, {relation} {key}={max_drop:g}", found, drop)
