"""Reads what the Evaluator wrote."""

import gzip
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow_model_analysis as tfma
from numpy.typing import NDArray

from components.evaluation.metrics import counts_key
from components.evaluation.per_image import IMAGES_FILE
from components.storage.file_systems import file_system
from data.errors import WorkspaceError
from models.metrics.counts import CONFUSION, Counts
from models.metrics.scores import SliceScores

#: A slice, as ((column, value), ...); the empty tuple is the whole split.
SliceKey = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Scores:
    """Scores by slice of the candidate and of the served model (`baseline`; empty if none was comparable)."""

    candidate: dict[SliceKey, SliceScores]
    baseline: dict[SliceKey, SliceScores]


@dataclass(frozen=True)
class ImageScore:
    """How well a model predicted one image."""

    mean_iou: float
    """Mean over the classes in this image's label or prediction; NaN if every pixel has the ignore label (void)."""
    cells: NDArray[np.int64]
    """(cells, 3): label, prediction, pixels; the cells of the confusion matrix that are not 0."""

    def confusion(self, num_classes: int) -> NDArray[np.int64]:
        """(num_classes, num_classes) pixels; rows are labels, columns predictions."""
        matrix = np.zeros((num_classes, num_classes), np.int64)
        labels, predictions, pixels = self.cells.T
        matrix[labels, predictions] = pixels
        return matrix


@dataclass(frozen=True)
class ImageResult:
    """The evaluation of one test image."""

    key: str
    """Its path in the dataset."""
    height: int
    """In pixels."""
    width: int
    slices: tuple[str, ...]
    """The slices that it is in, as `column:value`."""
    candidate: ImageScore
    baseline: ImageScore | None
    """The served model's score; None if no served model was comparable."""


def read_images(evaluation_uri: str) -> list[ImageResult]:
    """The images of an evaluation artifact, sorted by their keys.

    Raises:
        WorkspaceError: The artifact has no file of them: an earlier version of this project made it, or it is gone.
    """
    files = file_system(evaluation_uri)
    path = files.join(evaluation_uri, IMAGES_FILE)
    try:
        with files.open(path) as stored, gzip.open(stored, "rt", encoding="utf-8") as lines:
            return sorted((_image(json.loads(line)) for line in lines), key=lambda image: image.key)
    except FileNotFoundError:
        raise WorkspaceError(f"{path}: no such file; an evaluation by this version writes it") from None


def _image(record: dict[str, Any]) -> ImageResult:
    baseline = record["baseline"]
    return ImageResult(
        key=record["key"],
        height=record["height"],
        width=record["width"],
        slices=tuple(record["slices"]),
        candidate=_image_score(record["candidate"]),
        baseline=None if baseline is None else _image_score(baseline),
    )


def _image_score(record: dict[str, Any]) -> ImageScore:
    mean_iou, cells = record["mean_iou"], record["confusion"]
    return ImageScore(float("nan") if mean_iou is None else mean_iou, np.array(cells, np.int64).reshape(-1, 3))


def read_scores(evaluation_uri: str, class_names: tuple[str, ...]) -> Scores:
    """The scores in an evaluation artifact."""
    by_model: dict[bool, dict[SliceKey, SliceScores]] = {False: {}, True: {}}
    for record in tfma.load_metrics(evaluation_uri):
        key = tuple((k.column, _slice_value(k)) for k in record.slice_key.single_slice_keys)
        for is_baseline in (False, True):
            arrays = _counts(record, is_baseline)
            if CONFUSION in arrays:
                by_model[is_baseline][key] = SliceScores.of(Counts.of(arrays, len(class_names)), class_names)
    return Scores(by_model[False], by_model[True])


def _slice_value(key: "tfma.proto.metrics_for_slice_pb2.SingleSliceKey") -> str:
    value = getattr(key, key.WhichOneof("kind"))
    return value.decode() if isinstance(value, bytes) else str(value)


def _counts(record: "tfma.proto.metrics_for_slice_pb2.MetricsForSlice", is_baseline: bool) -> dict[str, np.ndarray]:
    """The arrays of `Counts` by name, of the candidate or of the served model; empty if there are none."""
    prefix = counts_key("")
    return {
        item.key.name.removeprefix(prefix): np.array(item.value.array_value.float64_values)
        for item in record.metric_keys_and_values
        if item.key.name.startswith(prefix)
        and not item.key.is_diff
        and (item.key.model_name == tfma.BASELINE_KEY) == is_baseline
    }
