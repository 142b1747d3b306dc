"""The verdict on a candidate: each threshold of section `evaluation`, whether it passes, and why."""

import math
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.config import EvaluationConfig, IntervalConfig
from components.evaluation.per_image import slice_name
from components.evaluation.results import ImageResult, ImageScore, Scores
from data.section import Section
from models.metrics.bootstrap import Interval, class_totals, mean_iou_intervals
from models.metrics.confusion import constant_prediction
from models.metrics.scores import SliceScores

VERDICT_FILE = "verdict.json"

NAN = float("nan")


class MeanIouIntervals(Section):
    """Confidence intervals of mean IoU on the test split, (lower, upper)."""

    candidate: Interval
    baseline: Interval | None = None
    """The served model's interval; None if no served model was comparable, and so is `change`."""
    change: Interval | None = None
    """The candidate's mean IoU minus the served model's, on the same draws of images."""


class Verdict(Section):
    """`verdict.json` of an evaluation artifact."""

    blessed: bool
    reasons: tuple[str, ...]
    """One for each threshold, passed or not."""
    intervals: MeanIouIntervals | None
    """None if fewer than two test images have a labelled pixel."""


class ThresholdCheck(NamedTuple):
    """The comparison of one score with one threshold."""

    passed: bool
    reason: str


class ThresholdedScore(NamedTuple):
    """A score of the candidate, and the thresholds that it must pass."""

    prefix: str
    """The beginning of the reasons: the class or slice that the score belongs to; empty for the whole test split."""
    name: str
    """Name of the score in the reasons."""
    score: float
    """The candidate's score; NaN if no pixel is labelled, which fails every threshold."""
    served: float
    """The served model's score; meaningless if none is comparable."""
    key: str
    """Key of the thresholds in the configuration."""
    floor: tuple[str, float]
    """Field and value of the least score that passes."""
    max_drop: float | None
    """By how much the score may fall behind the served model's; None: it is not compared."""


def evaluate_thresholds(
    scores: Scores, images: Sequence[ImageResult], config: EvaluationConfig, served_version: int | None
) -> Verdict:
    """Compares the scores with every threshold, and with a constant prediction; the model is blessed if all pass.

    Args:
        scores: The scores of the candidate and of the served model, by slice.
        images: The test images, for the confidence intervals.
        config: The thresholds.
        served_version: The version of the served model; None if no comparable model is served.
    """
    checks = list(_against_constant(scores.candidate[()], config.allow_degenerate))
    checks += [check for score in _thresholded_scores(scores, config) for check in _checks(score, served_version)]
    reasons = [check.reason for check in checks]
    if served_version is None:
        reasons.append("no comparable model is served: evaluated by the floors alone")
    return Verdict(
        blessed=all(check.passed for check in checks),
        reasons=tuple(reasons),
        intervals=intervals(images, config.intervals),
    )


def _against_constant(whole: SliceScores, allowed: bool) -> Iterator[ThresholdCheck]:
    """Whether the model has learned more than a constant prediction; nothing if no pixel is labelled."""
    names, matrix = list(whole.iou), whole.confusion_matrix
    commonest, constant = constant_prediction(matrix.sum(axis=1))
    if math.isnan(constant):
        return
    note = "; evaluation.allow_degenerate=true lets this pass" if allowed else ""
    predicted = np.flatnonzero(matrix.sum(axis=0))
    if len(predicted) == 1:
        yield ThresholdCheck(
            allowed,
            f"the model predicts class {names[predicted[0]]} for all {matrix.sum():,} labelled pixels of the test "
            f"split: it has not learned to tell classes apart{note}",
        )
    beats = whole.mean_iou > constant
    yield ThresholdCheck(
        beats or allowed,
        f"mean IoU {whole.mean_iou:.4f} is {'' if beats else 'not '}above {constant:.4f}, which always predicting "
        f"class {names[commonest]}, the commonest of the test split, reaches{'' if beats else note}",
    )


def _thresholded_scores(scores: Scores, config: EvaluationConfig) -> Iterator[ThresholdedScore]:
    whole, served = scores.candidate[()], scores.baseline.get((), scores.candidate[()])
    floor = ("min_mean_iou", config.min_mean_iou)
    yield ThresholdedScore("", "mean IoU", whole.mean_iou, served.mean_iou, "evaluation", floor, config.max_drop)
    for name, limit in config.classes.items():
        # Without a labelled pixel, predictions make an IoU of 0, which does not say how well the class is found.
        iou = NAN if math.isnan(whole.recall[name]) else whole.iou[name]
        key, floor = f"evaluation.classes.{name}", ("min_iou", limit.min_iou)
        yield ThresholdedScore(f"class {name}: ", "IoU", iou, served.iou[name], key, floor, limit.max_drop)
    candidate, baseline = (
        {slice_name(part): found.mean_iou for part, found in of.items()} for of in (scores.candidate, scores.baseline)
    )
    for name, bound in config.slices.items():
        ours, theirs = candidate.get(name, NAN), baseline.get(name, NAN)
        key, floor = f"evaluation.slices.{name}", ("min_mean_iou", bound.min_mean_iou)
        yield ThresholdedScore(f"slice {name}: ", "mean IoU", ours, theirs, key, floor, bound.max_drop)


def _checks(thresholded: ThresholdedScore, served_version: int | None) -> Iterator[ThresholdCheck]:
    prefix, name, score, served, key, (field, floor), max_drop = thresholded
    if math.isnan(score):
        yield ThresholdCheck(False, f"{prefix}no labelled pixel in the test split, so {key} cannot be evaluated")
        return
    passed = score >= floor
    yield ThresholdCheck(
        passed, f"{prefix}{name} {score:.4f} {'reaches' if passed else 'is below'} {key}.{field}={floor:g}"
    )
    if served_version is None or max_drop is None:
        return
    change = score - served
    passed = change >= -max_drop
    against = f"{change:+.4f} against served version {served_version} ({served:.4f})"
    yield ThresholdCheck(passed, f"{prefix}{against} {'keeps' if passed else 'breaks'} {key}.max_drop={max_drop:g}")


def intervals(images: Sequence[ImageResult], config: IntervalConfig) -> MeanIouIntervals | None:
    """Confidence intervals from the images; None if fewer than two of them have a labelled pixel."""
    scores = [image.candidate for image in images]
    if sum(not math.isnan(score.mean_iou) for score in scores) < 2:
        return None
    served = [image.baseline for image in images if image.baseline is not None]
    num_classes = 1 + max(int(score.cells[:, :2].max(initial=0)) for score in (*scores, *served))

    def totals(of: Sequence[ImageScore]) -> NDArray[np.int64]:
        return np.stack([class_totals(score.confusion(num_classes)) for score in of])

    found = mean_iou_intervals(
        totals(scores),
        totals(served) if served else None,
        resamples=config.resamples,
        level=config.level,
        seed=config.seed,
    )
    return MeanIouIntervals(**found._asdict()) if found else None


def write_verdict(evaluation_uri: str, verdict: Verdict) -> None:
    """Writes the verdict into an evaluation artifact."""
    io_utils.write_string_file(os.path.join(evaluation_uri, VERDICT_FILE), verdict.model_dump_json(indent=2))


def read_verdict(evaluation_uri: str) -> Verdict:
    """The verdict in an evaluation artifact."""
    with fileio.open(os.path.join(evaluation_uri, VERDICT_FILE)) as file:
        return Verdict.model_validate_json(file.read())
