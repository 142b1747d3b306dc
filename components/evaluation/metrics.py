"""TFMA metrics from the counts that the model's `evaluate` signature returns.

The counts of each image are made in the model's graph, so that no logits reach Arrow; here Beam only sums them for each
slice, and the scores are computed from the sums.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_types, metric_util

from models.metrics.counts import CONFUSION, Counts
from models.metrics.scores import SliceScores

MEAN_IOU = "mean_iou"

#: The scores that are metrics of their own in TFMA; fields of `SliceScores`.
SCORES = (
    MEAN_IOU,
    "pixel_accuracy",
    "mean_accuracy",
    "frequency_weighted_iou",
    "mean_boundary_iou",
    "trimap_mean_iou",
    "calibration_error",
)


def iou_key(class_name: str) -> str:
    """The metric that holds one class's IoU."""
    return f"iou/{class_name}"


def counts_key(name: str) -> str:
    """The metric that holds an array of `Counts`."""
    return f"counts/{name}"


def counts_of(prediction: Any, num_classes: int) -> Counts:
    """Counts from what TFMA passes as a model's prediction: arrays by name, or the only one."""
    return Counts.of(prediction if isinstance(prediction, Mapping) else {CONFUSION: prediction}, num_classes)


class SegmentationMetrics(tfma.metrics.Metric):
    """Mean IoU (the metric's own key) and all other scores from the same counts."""

    def __init__(self, class_names: list[str], name: str = MEAN_IOU):
        """Makes the metric.

        Args:
            class_names: Names in the order of the class ids.
            name: The key of mean IoU.
        """
        super().__init__(
            metric_util.merge_per_key_computations(segmentation_computations), class_names=class_names, name=name
        )


metric_types.register_metric(SegmentationMetrics)


def segmentation_computations(
    class_names: list[str], name: str, model_name: str = "", output_name: str = ""
) -> list[metric_types.MetricComputation]:
    """One computation with many keys, so that TFMA runs one combiner for each slice."""
    combiner = CountsCombiner(tuple(class_names), name, model_name, output_name)
    return [metric_types.MetricComputation(keys=list(combiner.keys.values()), preprocessors=None, combiner=combiner)]


class CountsCombiner(beam.CombineFn):
    """Sums counts and computes the scores of the sums."""

    def __init__(self, class_names: tuple[str, ...], name: str, model_name: str, output_name: str):
        self._class_names = class_names
        self._name = name
        self._model_name = model_name
        self._output_name = output_name
        arrays = [counts_key(array) for array in vars(self.create_accumulator())]
        self.keys = {
            score: metric_types.MetricKey(
                name=name if score == MEAN_IOU else score, model_name=model_name, output_name=output_name
            )
            for score in (*SCORES, *arrays, *map(iou_key, class_names))
        }

    def create_accumulator(self) -> Counts:
        """Counts of zero."""
        return Counts.zeros(len(self._class_names))

    def add_input(self, accumulator: Counts, element: metric_types.StandardMetricInputs) -> Counts:
        """Adds the counts of one image."""
        prediction = element.get_predictions(self._model_name, self._output_name)
        return accumulator + counts_of(prediction, len(self._class_names))

    def merge_accumulators(self, accumulators: Iterable[Counts]) -> Counts:
        """The sum of counts."""
        return sum(accumulators, self.create_accumulator())

    def extract_output(self, accumulator: Counts) -> dict[metric_types.MetricKey, float | np.ndarray]:
        """The scores of the sums, and the sums themselves; a score without a pixel is NaN."""
        scores = SliceScores.of(accumulator, self._class_names)
        values: dict[str, float | np.ndarray] = {
            **{score: getattr(scores, score) for score in SCORES},
            **{counts_key(name): array.astype(np.float64) for name, array in vars(accumulator).items()},
            **{iou_key(name): value for name, value in scores.iou.items()},
        }
        return {self.keys[score]: value for score, value in values.items()}
