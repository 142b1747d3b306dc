"""Confidence intervals of mean IoU: the percentile bootstrap over images.

As many images as there are in the test set are drawn with replacement, again and again (Efron); the scores of the draws
spread as those of other test sets of this size would. Images are drawn, not pixels, whose errors are correlated.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Number of draws that are in memory at once; each takes a weight for every image.
_DRAWS_AT_ONCE = 16

Interval = tuple[float, float]


class Intervals(NamedTuple):
    """Confidence intervals of mean IoU, each (lower, upper)."""

    candidate: Interval
    baseline: Interval | None
    """None where there is no baseline."""
    change: Interval | None
    """Interval of the candidate's mean IoU less the baseline's in the same draws, which is much narrower than the other
    two suggest; None where there is no baseline."""


def class_totals(confusion: ArrayLike) -> NDArray[np.int64]:
    """The counts that IoU is made of: (3, classes) pixels that are right, in the label, in the prediction."""
    confusion = np.asarray(confusion)
    return np.stack([np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)])


def mean_iou_intervals(
    candidate: ArrayLike, baseline: ArrayLike | None, *, resamples: int, level: float, seed: int
) -> Intervals | None:
    """Intervals from the `class_totals` of each image.

    A class that is absent from a draw is left out of that draw's mean, as it would be from a test set without it.

    Args:
        candidate: (images, 3, classes), `class_totals` of each image.
        baseline: the same of another model on the same images in the same order, or None.
        resamples: number of draws.
        level: share of the draws that an interval contains, in (0, 1).
        seed: seed of the draws; the same seed, order and images give the same intervals.

    Returns:
        The intervals; None if there are fewer than two images, since all draws would be the same.
    """
    if len(np.asarray(candidate)) < 2:
        return None
    models = [np.asarray(totals, np.float64) for totals in (candidate, baseline) if totals is not None]
    draws = np.concatenate(list(_draws(models, resamples, np.random.default_rng(seed))), axis=1)  # (models, resamples)

    def interval(scores: NDArray[np.float64]) -> Interval:
        outside = (1 - level) / 2
        lower, upper = np.nanquantile(scores, (outside, 1 - outside))
        return float(lower), float(upper)

    if baseline is None:
        return Intervals(interval(draws[0]), None, None)
    return Intervals(interval(draws[0]), interval(draws[1]), interval(draws[0] - draws[1]))


def _draws(
    models: list[NDArray[np.float64]], resamples: int, random: np.random.Generator
) -> Iterator[NDArray[np.float64]]:
    """Mean IoU of each model in some draws at a time, (models, draws)."""
    images = len(models[0])
    for start in range(0, resamples, _DRAWS_AT_ONCE):
        count = min(_DRAWS_AT_ONCE, resamples - start)
        times = random.multinomial(images, np.full(images, 1 / images), size=count).astype(np.float64)
        yield np.stack([_mean_iou(np.tensordot(times, totals, axes=1)) for totals in models])


def _mean_iou(totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """(draws, 3, classes) totals to the (draws,) mean over the classes that occur."""
    right, label, prediction = np.moveaxis(totals, 1, 0)
    union = label + prediction - right
    present = union > 0
    iou = np.divide(right, union, out=np.zeros_like(union), where=present)
    classes = present.sum(axis=1)
    return np.divide(iou.sum(axis=1), classes, out=np.full(len(iou), np.nan), where=classes > 0)
