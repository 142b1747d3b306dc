"""All scores of a set of images, from their counts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.metrics import confusion as metrics
from models.metrics.counts import CONFIDENCE_UNIT, Counts


@dataclass(frozen=True)
class SliceScores:
    """The scores of one slice of a split, each in [0, 1]; NaN where nothing was counted.

    `models.metrics.confusion` defines each score.
    """

    mean_iou: float
    pixel_accuracy: float
    mean_accuracy: float
    frequency_weighted_iou: float
    mean_boundary_iou: float
    trimap_mean_iou: float
    """Mean IoU over the pixels within `models.metrics.counts.TRIMAP_RADIUS` of a boundary of the label map."""
    calibration_error: float
    iou: dict[str, float]
    """Class name -> IoU."""
    dice: dict[str, float]
    precision: dict[str, float]
    recall: dict[str, float]
    boundary_iou: dict[str, float]
    confusion_matrix: NDArray[np.int64]
    """(classes, classes) pixels; rows are labels, columns predictions."""

    @classmethod
    def of(cls, counts: Counts, class_names: Sequence[str]) -> Self:
        """Computes the scores from counts; the class names are in the order of the class ids."""

        def by_class(score: Callable[..., NDArray[np.float64]], counted: NDArray[np.int64]) -> dict[str, float]:
            return dict(zip(class_names, score(counted).tolist(), strict=True))

        pixels, right, confidence = counts.calibration
        return cls(
            mean_iou=metrics.mean_iou(counts.confusion),
            pixel_accuracy=metrics.pixel_accuracy(counts.confusion),
            mean_accuracy=metrics.mean_accuracy(counts.confusion),
            frequency_weighted_iou=metrics.frequency_weighted_iou(counts.confusion),
            mean_boundary_iou=metrics.mean_boundary_iou(counts.boundary),
            trimap_mean_iou=metrics.mean_iou(counts.trimap),
            calibration_error=metrics.calibration_error(pixels, right, confidence * CONFIDENCE_UNIT),
            iou=by_class(metrics.iou, counts.confusion),
            dice=by_class(metrics.dice, counts.confusion),
            precision=by_class(metrics.precision, counts.confusion),
            recall=by_class(metrics.recall, counts.confusion),
            boundary_iou=by_class(metrics.boundary_iou, counts.boundary),
            confusion_matrix=counts.confusion,
        )
