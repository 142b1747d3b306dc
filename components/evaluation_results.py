"""Reads back what the Evaluator wrote."""

from dataclasses import dataclass

import numpy as np
import tensorflow_model_analysis as tfma

from components.evaluation_metrics import CONFUSION_MATRIX, FREQUENCY_WEIGHTED_IOU, MEAN_IOU, PIXEL_ACCURACY, iou_key

#: A slice, as ((column, value), ...); the empty tuple is the whole split.
SliceKey = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class SliceScores:
    """The scores of one slice."""

    mean_iou: float
    pixel_accuracy: float
    frequency_weighted_iou: float
    iou: dict[str, float]
    """Class name -> IoU, NaN where the class is neither in labels nor in predictions."""
    confusion_matrix: np.ndarray
    """(classes, classes) pixels; rows are labels, columns predictions."""


@dataclass(frozen=True)
class Scores:
    """Candidate's and baseline's scores by slice; the baseline's are empty where there was none."""

    candidate: dict[SliceKey, SliceScores]
    baseline: dict[SliceKey, SliceScores]


def read_scores(evaluation_uri: str, class_names: tuple[str, ...]) -> Scores:
    """Scores of an evaluation artifact."""
    by_model: dict[bool, dict[SliceKey, SliceScores]] = {False: {}, True: {}}
    for record in tfma.load_metrics(evaluation_uri):
        key = tuple((k.column, _slice_value(k)) for k in record.slice_key.single_slice_keys)
        for is_baseline in (False, True):
            values = _values(record, is_baseline)
            if MEAN_IOU in values:
                by_model[is_baseline][key] = _slice_scores(values, class_names)
    return Scores(by_model[False], by_model[True])


def _slice_value(key: "tfma.proto.metrics_for_slice_pb2.SingleSliceKey") -> str:
    value = getattr(key, key.WhichOneof("kind"))
    return value.decode() if isinstance(value, bytes) else str(value)


def _values(record: "tfma.proto.metrics_for_slice_pb2.MetricsForSlice", is_baseline: bool) -> dict[str, np.ndarray]:
    values: dict[str, np.ndarray] = {}
    for item in record.metric_keys_and_values:
        if item.key.is_diff or (item.key.model_name == tfma.BASELINE_KEY) != is_baseline:
            continue
        if item.value.HasField("array_value"):
            array = item.value.array_value
            values[item.key.name] = np.array(array.float64_values or array.int64_values).reshape(array.shape)
        else:
            values[item.key.name] = np.array(item.value.double_value.value)
    return values


def _slice_scores(values: dict[str, np.ndarray], class_names: tuple[str, ...]) -> SliceScores:
    return SliceScores(
        mean_iou=float(values[MEAN_IOU]),
        pixel_accuracy=float(values[PIXEL_ACCURACY]),
        frequency_weighted_iou=float(values[FREQUENCY_WEIGHTED_IOU]),
        iou={name: float(values[iou_key(name)]) for name in class_names},
        confusion_matrix=values[CONFUSION_MATRIX],
    )
