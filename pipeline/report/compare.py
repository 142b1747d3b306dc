"""`compare-<run>.html`: a run beside another one."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from components.evaluation.results import ImageResult
from components.storage.atomic import write_small
from data.errors import ConfigError
from data.masks import VOID_COLOR
from models.metrics.bootstrap import Interval, class_totals, mean_iou_intervals
from pipeline.report.figures import (
    ImageFigure,
    class_colors,
    class_names,
    css_color,
    image_results,
    input_tiles,
    load_model,
    prediction_tile,
    read_labelled,
)
from pipeline.report.render import headline, render
from pipeline.report.runs import ConfigDiff, RunRecord, config_diff
from pipeline.report.scores import class_changes, class_scores, interval_config, lowest_slices, overall

MOST_FIGURES = 8


class SharedImage(NamedTuple):
    """A test image that both runs evaluated against the same label."""

    ours: ImageResult
    theirs: ImageResult

    @property
    def change(self) -> float:
        """The difference in mean IoU."""
        return self.ours.candidate.mean_iou - self.theirs.candidate.mean_iou


def write_comparison(ours: RunRecord, theirs: RunRecord) -> Path:
    """Writes the page of a run beside another one into the folder of the first.

    Raises:
        ConfigError: Both are the same run.
    """
    if ours.folder == theirs.folder:
        raise ConfigError(f"{ours.summary.run_id} cannot be compared with itself; --compare names another run")
    shared = shared_images(ours, theirs)
    metrics, other = ours.summary.metrics, theirs.summary.metrics
    page = render(
        "compare.html",
        ours=ours.summary,
        theirs=theirs.summary,
        headlines=(headline(ours.summary), headline(theirs.summary)),
        shared=len(shared),
        interval=change_interval(shared, ours),
        scores=overall(metrics, other) if metrics and other else [],
        classes=class_scores(metrics, other) if metrics and other else [],
        class_changes=class_changes(metrics, other) if metrics and other else [],
        slices=lowest_slices(metrics, other) if metrics and other else [],
        diff=ConfigDiff(theirs.summary.run_id, config_diff(theirs.summary.config, ours.summary.config)),
        figures=figures(ours, theirs, shared) if ours.config.pictures and theirs.config.pictures else [],
        colors=class_colors(ours.summary),
        void_color=css_color(VOID_COLOR),
    )
    path = ours.folder / f"compare-{theirs.summary.run_id}.html"
    write_small(str(path), page.encode())
    return path


def shared_images(ours: RunRecord, theirs: RunRecord) -> list[SharedImage]:
    """The images that both runs evaluated: with the same key, and the same number of labelled pixels of each class."""
    if class_names(ours.summary) != class_names(theirs.summary):
        return []
    others = {result.key: result for result in image_results(theirs.stages)}
    classes = len(class_names(ours.summary))
    shared = []
    for result in image_results(ours.stages):
        if result.key in others:
            pair = SharedImage(result, others[result.key])
            labels, other_labels = (each.candidate.confusion(classes).sum(axis=1) for each in pair)
            if np.array_equal(labels, other_labels) and not math.isnan(pair.change):
                shared.append(pair)
    return shared


def change_interval(shared: Sequence[SharedImage], run: RunRecord) -> Interval | None:
    """Confidence interval of the difference in mean IoU on the shared images; None for fewer than two."""
    if not shared:
        return None
    config = interval_config(run.summary)
    classes = len(class_names(run.summary))
    ours, theirs = (
        np.stack([class_totals(pair[side].candidate.confusion(classes)) for pair in shared]) for side in (0, 1)
    )
    found = mean_iou_intervals(ours, theirs, resamples=config.resamples, level=config.level, seed=config.seed)
    return found.change if found else None


def figures(ours: RunRecord, theirs: RunRecord, shared: Sequence[SharedImage]) -> list[ImageFigure]:
    """The images on which the two models differ most, by mean IoU; empty if a model was deleted."""
    models = [model for model in (load_model(ours.stages), load_model(theirs.stages)) if model is not None]
    ordered = sorted((pair for pair in shared if pair.change), key=lambda pair: -abs(pair.change))
    chosen = ordered[:MOST_FIGURES]
    if len(models) < 2 or not chosen:
        return []
    labelled = read_labelled(ours.stages, {pair.ours.key for pair in chosen})
    found = []
    for pair in chosen:
        key = pair.ours.key
        if key in labelled:
            prediction, other = (model.predict([labelled[key].encoded])[0][0] for model in models)
            scores = f"IoU {pair.ours.candidate.mean_iou:.3f}", f"other run {pair.theirs.candidate.mean_iou:.3f}"
            tiles = [
                *input_tiles(key, labelled[key]),
                prediction_tile("prediction of the other run", key, other),
                prediction_tile("prediction", key, prediction, wipes=2),
            ]
            found.append(ImageFigure(key, [*scores, f"{pair.change:+.3f}"], tiles))
    return found
