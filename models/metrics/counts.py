"""The counts of an evaluation: arrays of integers for each image, whose sums all scores are computed from.

Beam may add them up in any order and grouping; the sums, and so the scores, are the same to the last bit.

=============  ====================  ==================================================================================
output         shape                 what is counted
=============  ====================  ==================================================================================
confusion      (classes, classes)    pixels; rows are labels, columns predictions
boundary       (3, classes)          pixels near the boundary of their segment: in label and prediction alike, in the
                                     label, in the prediction
trimap         (classes, classes)    as confusion, near boundaries of the label map alone
calibration    (3, `BINS`)           pixels by confidence: all, right ones, sum of the confidences in millionths
=============  ====================  ==================================================================================

Pixels with the ignore label (`IGNORE_LABEL`, void) count nowhere, whatever is predicted there, and bound the segments
beside them. For boundary IoU they do so in label and prediction alike: the prediction is taken as ignored wherever the
label is. It is unknown where in a ring of ignored pixels the true outline is, so it must not matter where in it one is
predicted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from data.features import IGNORE_LABEL
from models.metrics.boundaries import boundary_radius, inner_boundaries, near_other_label
from models.metrics.confusion import confusion_matrix

CONFUSION = "confusion"
BOUNDARY = "boundary"
TRIMAP = "trimap"
CALIBRATION = "calibration"

#: Bins of confidence, equally wide (Guo et al., arXiv 1706.04599, section 4).
BINS = 15

#: Width of the trimap in pixels, on either side of a boundary. The papers draw curves over widths (Chen et al., arXiv
#: 1606.00915 and, section 4.4, 1802.02611); networks differ most where it is narrow.
TRIMAP_RADIUS = 5

#: Confidences are added up as integer multiples of this.
CONFIDENCE_UNIT = 1e-6


def count_pixels(
    labels: tf.Tensor, predictions: tf.Tensor, confidences: tf.Tensor, num_classes: int
) -> dict[str, tf.Tensor]:
    """Compares an image's prediction with its label, in a graph or eagerly.

    Args:
        labels: (height, width) uint8: class ids, or `IGNORE_LABEL`.
        predictions: (height, width) uint8 class ids.
        confidences: (height, width) float32: the probability of the predicted class, in [0, 1].
        num_classes: number of classes.

    Returns:
        The outputs of the table above, int64.
    """
    near = near_other_label(labels[None], tf.constant(TRIMAP_RADIUS))[0]
    return {
        CONFUSION: confusion_matrix(labels, predictions, num_classes),
        BOUNDARY: _boundaries(labels, predictions, num_classes),
        TRIMAP: confusion_matrix(tf.where(near, labels, IGNORE_LABEL), predictions, num_classes),
        CALIBRATION: _calibration(labels, predictions, confidences),
    }


def _boundaries(labels: tf.Tensor, predictions: tf.Tensor, num_classes: int) -> tf.Tensor:
    """(3, num_classes) int64."""
    maps = tf.stack([labels, tf.where(tf.equal(labels, IGNORE_LABEL), labels, predictions)])
    bands = tf.where(inner_boundaries(maps, boundary_radius(tf.shape(labels))), maps, IGNORE_LABEL)
    of_label, of_prediction = tf.unstack(bands)
    both = tf.where(tf.equal(of_label, of_prediction), of_label, IGNORE_LABEL)
    return tf.stack([_bincount(ids, IGNORE_LABEL + 1)[:num_classes] for ids in (both, of_label, of_prediction)])


def _calibration(labels: tf.Tensor, predictions: tf.Tensor, confidences: tf.Tensor) -> tf.Tensor:
    """(3, BINS) int64."""
    counted, right = tf.not_equal(labels, IGNORE_LABEL), tf.equal(labels, predictions)
    bins = tf.where(counted, tf.minimum(tf.cast(confidences * BINS, tf.int32), BINS - 1), BINS)
    units = tf.cast(tf.round(confidences / CONFIDENCE_UNIT), tf.int64)
    sums = [_bincount(bins, BINS + 1), _bincount(tf.where(right, bins, BINS), BINS + 1)]
    sums.append(_bincount(bins, BINS + 1, weights=units))
    return tf.stack(sums)[:, :BINS]


def _bincount(values: tf.Tensor, bins: int, weights: tf.Tensor | None = None) -> tf.Tensor:
    """How often each integer below `bins` occurs, or the sum of the weights where it does, (bins,) int64."""
    flat = tf.reshape(tf.cast(values, tf.int32), (-1,))
    weights = None if weights is None else tf.reshape(weights, (-1,))
    return tf.cast(tf.math.bincount(flat, weights, minlength=bins, maxlength=bins), tf.int64)


@dataclass(frozen=True)
class Counts:
    """The counts of one or more images, int64, as in the table above."""

    confusion: NDArray[np.int64]
    boundary: NDArray[np.int64]
    trimap: NDArray[np.int64]
    calibration: NDArray[np.int64]

    @classmethod
    def of(cls, outputs: Mapping[str, ArrayLike], num_classes: int) -> Self:
        """Counts from arrays of any shape by name; zeros for those that are missing.

        A served model of an earlier version may give the confusion matrix alone.
        """
        shapes = {
            CONFUSION: (num_classes, num_classes),
            BOUNDARY: (3, num_classes),
            TRIMAP: (num_classes, num_classes),
            CALIBRATION: (3, BINS),
        }
        arrays = {name: np.asarray(outputs.get(name, np.zeros(shape))) for name, shape in shapes.items()}
        return cls(**{name: arrays[name].reshape(shape).astype(np.int64) for name, shape in shapes.items()})

    @classmethod
    def zeros(cls, num_classes: int) -> Self:
        """The counts of no image, all 0."""
        return cls.of({}, num_classes)

    def __add__(self, other: Self) -> Self:
        return type(self)(**{name: counts + getattr(other, name) for name, counts in vars(self).items()})
