"""The scores of a run as a page shows them, beside those of another model if there is one."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from components.config import IntervalConfig
from pipeline.records.summary import BaselineSummary, MetricsSummary, RunSummary

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

EvaluatedModel = MetricsSummary | BaselineSummary


@dataclass(frozen=True)
class ScorePair:
    """One score of two models; None if it is undefined, or if there is no other model."""

    name: str
    ours: float | None
    theirs: float | None


@dataclass(frozen=True)
class ClassIou:
    """The score of one class on the test split."""

    name: str
    iou: float | None
    share: float | None
    """Share of the labelled pixels, in [0, 1]; None for a class that only the other model has."""
    other: float | None = None
    """IoU of the other model."""


@dataclass(frozen=True)
class ClassConfusion:
    """Pixels of one class that were predicted as another."""

    label: str
    prediction: str
    share: float
    """Share of the pixels with that label, in [0, 1]."""
    pixels: int


def interval_config(summary: RunSummary) -> IntervalConfig:
    """The configuration of a run's confidence intervals."""
    return IntervalConfig.model_validate(summary.config["evaluation"].get("intervals", {}))


def overall(ours: EvaluatedModel, theirs: EvaluatedModel | None) -> list[ScorePair]:
    """The scores over all classes that either model has; records of earlier versions have fewer."""
    records = [(model.scores or model) if model else None for model in (ours, theirs)]
    pairs = [ScorePair(name, *(getattr(record, field, None) for record in records)) for field, name in NAMES.items()]
    return [pair for pair in pairs if (pair.ours, pair.theirs) != (None, None)]


def class_scores(ours: MetricsSummary, theirs: EvaluatedModel | None = None) -> list[ClassIou]:
    """The classes by ascending IoU, those without one last; then the classes that only the other model has."""
    pixels = np.sum(ours.confusion_matrix, axis=1)  # (classes,)
    shares = pixels / max(pixels.sum(), 1)
    others: Mapping[str, float | None] = {}
    if isinstance(theirs, MetricsSummary):
        others = theirs.iou
    elif theirs and theirs.scores:
        others = {name: scores.iou for name, scores in theirs.scores.classes.items()}
    own = [
        ClassIou(name, iou, float(share), others.get(name))
        for (name, iou), share in zip(ours.iou.items(), shares, strict=True)
    ]
    missing = [ClassIou(name, None, None, iou) for name, iou in others.items() if name not in ours.iou]
    return [*sorted(own, key=lambda score: 2.0 if score.iou is None else score.iou), *missing]


def class_changes(ours: MetricsSummary, theirs: MetricsSummary) -> list[str]:
    """Texts about the classes that only one of two runs has; empty if both have the same."""
    sides = {"this run": (ours, theirs), "the other run": (theirs, ours)}
    alone = {who: [name for name in some.iou if name not in rest.iou] for who, (some, rest) in sides.items()}
    return [f"only {who} has {', '.join(names)}" for who, names in alone.items() if names]


def lowest_slices(ours: MetricsSummary, theirs: EvaluatedModel | None = None) -> list[ScorePair]:
    """The slices with the lowest mean IoU, lowest first."""
    others: Mapping[str, float | None] = {}
    if isinstance(theirs, MetricsSummary):
        others = theirs.slices
    elif theirs:
        others = {name: scores.mean_iou for name, scores in theirs.slice_scores.items()}
    ordered = sorted(ours.slices.items(), key=lambda item: 2.0 if item[1] is None else item[1])
    return [ScorePair(name, score, others.get(name)) for name, score in ordered[:MOST_SLICES]]


def row_shares(matrix: list[list[int]]) -> np.ndarray:
    """A confusion matrix as (classes, classes) shares of each label's pixels, in [0, 1]; zeros if it is absent."""
    counts = np.array(matrix, np.float64)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def confusions(metrics: MetricsSummary) -> list[ClassConfusion]:
    """The pairs of classes that are confused in the most pixels, worst first."""
    counts, names = np.array(metrics.confusion_matrix), list(metrics.iou)
    shares = row_shares(metrics.confusion_matrix)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:MOST_CONFUSIONS]
    pairs = [divmod(int(position), len(names)) for position in order]
    return [
        ClassConfusion(names[row], names[column], float(shares[row, column]), int(counts[row, column]))
        for row, column in pairs
        if counts[row, column]
    ]
