"""The scores of a run as a page shows them, beside those of another model if there is one."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from components.config import IntervalConfig
from pipeline.records.summary import BaselineSummary, MetricsSummary, Summary

MOST_CONFUSIONS = 8
MOST_SLICES = 30

#: Field of `ScoreSummary` -> its name in the page.
NAMES = {
    "mean_iou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean class accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "mean_boundary_iou": "mean boundary IoU",
    "trimap_mean_iou": "mean IoU in the trimap",
    "calibration_error": "calibration error; lower is better",
}

Judged = MetricsSummary | BaselineSummary


@dataclass(frozen=True)
class Pair:
    """One score of two models; None if it is undefined, or if there is no other model."""

    name: str
    ours: float | None
    theirs: float | None


@dataclass(frozen=True)
class ClassScore:
    """The score of one class on the test split."""

    name: str
    iou: float | None
    share: float | None
    """Share of the labelled pixels, in [0, 1]; None for a class that only the other model has."""
    other: float | None = None
    """IoU of the other model."""


@dataclass(frozen=True)
class Confusion:
    """Pixels of one class that were predicted as another."""

    label: str
    prediction: str
    share: float
    """Share of the pixels with that label, in [0, 1]."""
    pixels: int


def interval_config(summary: Summary) -> IntervalConfig:
    """The configuration of a run's confidence intervals."""
    return IntervalConfig.model_validate(summary.config["evaluation"].get("intervals", {}))


def overall(ours: Judged, theirs: Judged | None) -> list[Pair]:
    """The scores over all classes that either model has; records of earlier versions have fewer."""
    pairs = [Pair(name, _score(ours, score), _score(theirs, score)) for score, name in NAMES.items()]
    return [pair for pair in pairs if (pair.ours, pair.theirs) != (None, None)]


def _score(judged: Judged | None, score: str) -> float | None:
    return getattr(judged.scores or judged, score, None) if judged else None


def class_scores(ours: MetricsSummary, theirs: Judged | None = None) -> list[ClassScore]:
    """The classes by ascending IoU, those without one last; then the classes that only the other model has."""
    pixels = np.sum(ours.confusion_matrix, axis=1)  # (classes,)
    shares = pixels / max(pixels.sum(), 1)
    others = class_ious(theirs) if theirs else {}
    own = [
        ClassScore(name, iou, float(share), others.get(name))
        for (name, iou), share in zip(ours.iou.items(), shares, strict=True)
    ]
    missing = [ClassScore(name, None, None, iou) for name, iou in others.items() if name not in ours.iou]
    return [*sorted(own, key=lambda score: 2.0 if score.iou is None else score.iou), *missing]


def class_changes(ours: MetricsSummary, theirs: MetricsSummary) -> list[str]:
    """Texts about the classes that only one of two runs has; empty if both have the same."""
    sides = {"this run": (ours, theirs), "the other run": (theirs, ours)}
    alone = {who: [name for name in some.iou if name not in rest.iou] for who, (some, rest) in sides.items()}
    return [f"only {who} has {', '.join(names)}" for who, names in alone.items() if names]


def class_ious(judged: Judged) -> Mapping[str, float | None]:
    """The IoU of each class: class -> IoU."""
    if isinstance(judged, MetricsSummary):
        return judged.iou
    return {name: scores.iou for name, scores in judged.scores.classes.items()} if judged.scores else {}


def lowest_slices(ours: MetricsSummary, theirs: Judged | None = None) -> list[Pair]:
    """The slices with the lowest mean IoU, lowest first."""
    others = slice_means(theirs) if theirs else {}
    ordered = sorted(ours.slices.items(), key=lambda item: 2.0 if item[1] is None else item[1])
    return [Pair(name, score, others.get(name)) for name, score in ordered[:MOST_SLICES]]


def slice_means(judged: Judged) -> Mapping[str, float | None]:
    """The mean IoU of each slice: slice -> mean IoU."""
    if isinstance(judged, MetricsSummary):
        return judged.slices
    return {name: scores.mean_iou for name, scores in judged.slice_scores.items()}


def row_shares(matrix: list[list[int]]) -> np.ndarray:
    """A confusion matrix as (classes, classes) shares of each label's pixels, in [0, 1]; zeros if it is absent."""
    counts = np.array(matrix, np.float64)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def confusions(metrics: MetricsSummary) -> list[Confusion]:
    """The pairs of classes that are confused in the most pixels, worst first."""
    counts, names = np.array(metrics.confusion_matrix), list(metrics.iou)
    shares = row_shares(metrics.confusion_matrix)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:MOST_CONFUSIONS]
    pairs = [divmod(int(position), len(names)) for position in order]
    return [
        Confusion(names[row], names[column], float(shares[row, column]), int(counts[row, column]))
        for row, column in pairs
        if counts[row, column]
    ]
