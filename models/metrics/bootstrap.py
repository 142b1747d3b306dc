"""How sure mean IoU is: bootstrap confidence intervals over images.

Efron's percentile bootstrap: as many images as there are, drawn with replacement, again and again; the scores of the
draws spread as those of other test sets of this size would. Images are drawn, not pixels, whose errors go together.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Draws that are in memory at once: a weight for each image in each.
_DRAWS_AT_ONCE = 16

Interval = tuple[float, float]


class Intervals(NamedTuple):
    """Confidence intervals of mean IoU, each (lower, upper)."""

    candidate: Interval
    baseline: Interval | None
    """None without a baseline, and so is `change`."""
    change: Interval | None
    """Of the candidate's mean IoU less the baseline's in the same draws: much narrower than the two apart suggest."""


def class_totals(confusion: ArrayLike) -> NDArray[np.int64]:
    """What IoU needs of one confusion matrix: (3, classes) pixels that are right, of the label, of the prediction."""
    confusion = np.asarray(confusion)
    return np.stack([np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)])


def mean_iou_intervals(
    candidate: ArrayLike, baseline: ArrayLike | None, *, resamples: int, level: float, seed: int
) -> Intervals | None:
    """Intervals from the totals of each image.

    A class that is absent from a draw is left out of that draw's mean, as it would be from a test set without it.

    Args:
        candidate: (images, 3, classes), `class_totals` of each image.
        baseline: the same of another model on the same images in the same order, or None.
        resamples: number of draws.
        level: share of the draws that an interval holds, in (0, 1).
        seed: of the draws: the same seed, order and images give the same intervals.

    Returns:
        None if there are fewer than two images: every draw is the same then, which says nothing of other images.
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
