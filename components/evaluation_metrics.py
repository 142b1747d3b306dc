"""TFMA metrics from the confusion matrices that the model's `evaluate` signature returns.

The matrix of each image is computed in the model's graph, so that no logits reach Arrow; here Beam only adds
matrices up, slice by slice, and the scores are taken from the sum.
"""

from collections.abc import Iterable

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_types, metric_util

from models import metrics

MEAN_IOU = "mean_iou"
PIXEL_ACCURACY = "pixel_accuracy"
FREQUENCY_WEIGHTED_IOU = "frequency_weighted_iou"
CONFUSION_MATRIX = "confusion_matrix"


def iou_key(class_name: str) -> str:
    """The metric that holds one class's IoU."""
    return f"iou/{class_name}"


class SegmentationMetrics(tfma.metrics.Metric):
    """Mean IoU (the metric's own key, so that thresholds may name it) and all that comes from the same matrix."""

    def __init__(self, class_names: list[str], name: str = MEAN_IOU):
        """Makes the metric.

        Args:
            class_names: In the order of the class ids.
            name: The key of mean IoU.
        """
        super().__init__(
            metric_util.merge_per_key_computations(segmentation_computations), class_names=class_names, name=name
        )


metric_types.register_metric(SegmentationMetrics)


def segmentation_computations(
    class_names: list[str], name: str, model_name: str = "", output_name: str = ""
) -> list[metric_types.MetricComputation]:
    """One computation with many keys: TFMA runs its combiner once a slice."""
    combiner = ConfusionMatrixCombiner(tuple(class_names), name, model_name, output_name)
    return [metric_types.MetricComputation(keys=list(combiner.keys.values()), preprocessors=None, combiner=combiner)]


class ConfusionMatrixCombiner(beam.CombineFn):
    """Adds up (classes * classes,) matrices and turns the sum into scores."""

    def __init__(self, class_names: tuple[str, ...], name: str, model_name: str, output_name: str):
        self._class_names = class_names
        self._name = name
        self._model_name = model_name
        self._output_name = output_name
        scores = [name, PIXEL_ACCURACY, FREQUENCY_WEIGHTED_IOU, CONFUSION_MATRIX, *map(iou_key, class_names)]
        self.keys = {
            score: metric_types.MetricKey(name=score, model_name=model_name, output_name=output_name)
            for score in scores
        }

    def create_accumulator(self) -> np.ndarray:
        """A (classes, classes) int64 zero."""
        return np.zeros((len(self._class_names),) * 2, np.int64)

    def add_input(self, accumulator: np.ndarray, element: metric_types.StandardMetricInputs) -> np.ndarray:
        """Adds one image's matrix."""
        prediction = element.get_predictions(self._model_name, self._output_name)
        matrix = next(iter(prediction.values())) if isinstance(prediction, dict) else prediction
        return accumulator + np.asarray(matrix).reshape(accumulator.shape).astype(np.int64)

    def merge_accumulators(self, accumulators: Iterable[np.ndarray]) -> np.ndarray:
        """Adds matrices."""
        return sum(accumulators, self.create_accumulator())

    def extract_output(self, accumulator: np.ndarray) -> dict[metric_types.MetricKey, float | np.ndarray]:
        """The scores of the sum; the IoU of a class that is nowhere is NaN."""
        ious = metrics.iou(accumulator)
        scores: dict[str, float | np.ndarray] = {
            self._name: metrics.mean_iou(accumulator),
            PIXEL_ACCURACY: metrics.pixel_accuracy(accumulator),
            FREQUENCY_WEIGHTED_IOU: metrics.frequency_weighted_iou(accumulator),
            CONFUSION_MATRIX: accumulator.astype(np.float64),
            **{iou_key(name): float(value) for name, value in zip(self._class_names, ious, strict=True)},
        }
        return {self.keys[score]: value for score, value in scores.items()}
