"""Scores from counts of pixels: the one definition for training, evaluation and reports.

A confusion matrix is (classes, classes), rows the label and columns the prediction, in pixels. Matrices are added up,
and the scores of a dataset are those of the sum, never means over images. The same holds for the other counts, which
`models.metrics.counts` makes.

A score whose denominator is 0 is NaN: IoU and Dice of a class that occurs in neither labels nor predictions, precision
of a class that is never predicted, recall of a class without labels. Means leave NaN out.
"""

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from data.features import IGNORE_LABEL


def confusion_matrix(labels: keras.KerasTensor, predictions: keras.KerasTensor, num_classes: int) -> keras.KerasTensor:
    """Counts the pixels of each (label, prediction) pair; works eagerly and in a graph.

    Args:
        labels: class ids below `num_classes`, or `IGNORE_LABEL`: such pixels are not counted.
        predictions: class ids below `num_classes`, same shape.
        num_classes: number of classes.

    Returns:
        (num_classes, num_classes) int64.
    """
    labels, predictions = (ops.reshape(ops.cast(ids, "int32"), (-1,)) for ids in (labels, predictions))
    cells = num_classes**2
    # Ignored pixels go to one more cell, which is cut off.
    index = ops.where(ops.equal(labels, IGNORE_LABEL), cells, labels * num_classes + predictions)
    counts = ops.bincount(index, minlength=cells + 1)[:cells]
    return ops.cast(ops.reshape(counts, (num_classes, num_classes)), "int64")


def _ratio(numerator: ArrayLike, denominator: ArrayLike) -> NDArray[np.float64]:
    """Quotient in float64; NaN where the denominator is 0, without a warning."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator > 0)


def _mean_of_present(scores: NDArray[np.float64]) -> float:
    """Mean of the scores that are not NaN; NaN if all are."""
    present = scores[~np.isnan(scores)]
    return float(present.mean()) if present.size else float("nan")


def iou(matrix: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of each class, (classes,) in [0, 1]; NaN for one in neither labels nor predictions."""
    matrix = np.asarray(matrix)
    hits = np.diag(matrix)
    return _ratio(hits, matrix.sum(axis=0) + matrix.sum(axis=1) - hits)


def mean_iou(matrix: ArrayLike) -> float:
    """Mean of `iou` over the classes that occur in labels or predictions; NaN when there is no pixel."""
    return _mean_of_present(iou(matrix))


def constant_prediction(pixels: ArrayLike) -> tuple[int, float]:
    """The commonest class, and the mean IoU that predicting it for every pixel reaches; NaN when there is no pixel.

    Its IoU is its share of the labelled pixels, and that of every other class that occurs is 0. No other constant
    prediction has a higher mean IoU.

    Args:
        pixels: (classes,) labelled pixels of each class.
    """
    pixels = np.asarray(pixels)
    commonest = int(pixels.argmax())
    matrix = np.zeros((len(pixels), len(pixels)), pixels.dtype)
    matrix[:, commonest] = pixels
    return commonest, mean_iou(matrix)


def dice(matrix: ArrayLike) -> NDArray[np.float64]:
    """Dice coefficient (F1) of each class, (classes,) in [0, 1]; NaN for one in neither labels nor predictions."""
    matrix = np.asarray(matrix)
    return _ratio(2 * np.diag(matrix), matrix.sum(axis=0) + matrix.sum(axis=1))


def precision(matrix: ArrayLike) -> NDArray[np.float64]:
    """Fraction of the pixels predicted as each class that have it, (classes,) in [0, 1]; NaN if never predicted."""
    matrix = np.asarray(matrix)
    return _ratio(np.diag(matrix), matrix.sum(axis=0))


def recall(matrix: ArrayLike) -> NDArray[np.float64]:
    """Fraction of each class's pixels that are predicted as it, (classes,) in [0, 1]; NaN where there are no labels."""
    matrix = np.asarray(matrix)
    return _ratio(np.diag(matrix), matrix.sum(axis=1))


def pixel_accuracy(matrix: ArrayLike) -> float:
    """Fraction of the labelled pixels that are predicted right; NaN when there is none."""
    matrix = np.asarray(matrix)
    return float(_ratio(np.trace(matrix), matrix.sum()))


def mean_accuracy(matrix: ArrayLike) -> float:
    """Mean of `recall` over the classes that occur in labels; NaN when there is no pixel."""
    return _mean_of_present(recall(matrix))


def frequency_weighted_iou(matrix: ArrayLike) -> float:
    """Mean of `iou` weighted by the classes' shares of the labelled pixels; NaN when there is none."""
    matrix = np.asarray(matrix)
    shares = _ratio(matrix.sum(axis=1), np.full(len(matrix), matrix.sum()))
    # A class that does not occur has no IoU and a share of 0.
    return float(np.sum(shares * np.nan_to_num(iou(matrix))))


def boundary_iou(boundary: ArrayLike) -> NDArray[np.float64]:
    """IoU of each class between the pixels near its boundaries in label and in prediction, (classes,) in [0, 1].

    Cheng et al., arXiv 2103.16562, equation 4.

    Args:
        boundary: (3, classes) pixels near the boundary: in both label and prediction, in the label, in the prediction.
    """
    both, label, prediction = np.asarray(boundary)
    return _ratio(both, label + prediction - both)


def mean_boundary_iou(boundary: ArrayLike) -> float:
    """Mean of `boundary_iou` over the classes that occur in labels or predictions; NaN when there is no pixel."""
    return _mean_of_present(boundary_iou(boundary))


def calibration_error(pixels: ArrayLike, right: ArrayLike, confidence: ArrayLike) -> float:
    """Expected calibration error: the distance of confidence from accuracy, in [0, 1]; NaN when there is no pixel.

    Guo et al., arXiv 1706.04599, equation 3: the mean over bins, weighted by their pixels, of the distance between
    mean confidence and the fraction of right pixels.

    Args:
        pixels: (bins,) number of pixels whose confidence falls into each bin.
        right: (bins,) how many of them are right.
        confidence: (bins,) sum of their confidences.
    """
    distance = np.abs(np.asarray(right, np.float64) - np.asarray(confidence, np.float64)).sum()
    return float(_ratio(distance, np.sum(pixels)))
