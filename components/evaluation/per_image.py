"""The evaluation image by image: made in Beam on the way to the metrics, written beside them.

`per_image.jsonl.gz`: a JSON object a line, in no order:

    {"key", "height", "width", "slices": ["source:dusk", ...],
     "candidate": {"mean_iou", "confusion": [[label, prediction, pixels], ...]}, "baseline": the same or null}
"""

import copy
import json
import os
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_model_analysis as tfma
from apache_beam.io.filesystem import CompressionTypes

from components.config import EvaluationConfig
from components.evaluation.metrics import counts_of
from components.slicing import Scalar, slice_values, wanted_values
from data import features
from models.metrics.confusion import mean_iou

IMAGES_FILE = "per_image.jsonl.gz"
_STAGE = "Images"


def slice_name(slice_key: tuple[tuple[str, str], ...]) -> str:
    """A slice of TFMA's as `column:value`."""
    return ", ".join(f"{column}:{value}" for column, value in slice_key)


def scalar_columns(serialized: bytes) -> dict[str, Scalar]:
    """The columns of an example but for the encoded image and mask."""
    found: dict[str, Scalar] = {}
    for name, feature in tf.train.Example.FromString(serialized).features.feature.items():
        if name not in (features.IMAGE, features.MASK):
            (value,) = getattr(feature, feature.WhichOneof("kind")).value
            found[name] = value.decode() if isinstance(value, bytes) else value
    return found


class DescribeImages(beam.DoFn):
    """TFMA extracts of one image -> the same, its features replaced by what it is sliced by and called.

    The picture itself stays behind: what comes later needs it no more.
    """

    def __init__(self, config: EvaluationConfig):
        self._wanted = wanted_values((*config.slice_by, *config.slices))
        self._buckets = config.buckets

    def process(self, element: tfma.Extracts) -> list[tfma.Extracts]:
        """Called by Beam."""
        (serialized,) = element[tfma.INPUT_KEY]
        image = scalar_columns(serialized)
        columns = {name: [str(image[name])] for name in (features.KEY, features.HEIGHT, features.WIDTH)}
        columns |= slice_values(image, self._wanted, self._buckets)
        described = copy.copy(element)
        del described[tfma.INPUT_KEY]
        # Text alone: TFMA would take what looks like a number for one.
        described[tfma.FEATURES_KEY] = {
            name: np.array([value.encode() for value in values], dtype=object)
            for name, values in columns.items()
            if values
        }
        return [described]


def describe_images(config: EvaluationConfig) -> tfma.extractors.Extractor:
    """The extractor that goes before that of the slices."""
    return tfma.extractors.Extractor("DescribeImages", beam.ParDo(DescribeImages(config)))


def image_line(element: tfma.Extracts, num_classes: int) -> str:
    """One image's line."""

    def text(name: str) -> str:
        return str(element[tfma.FEATURES_KEY][name][0].decode())

    predictions = element[tfma.PREDICTIONS_KEY]
    both = isinstance(predictions, dict) and tfma.BASELINE_KEY in predictions
    record = {
        "key": text(features.KEY),
        "height": int(text(features.HEIGHT)),
        "width": int(text(features.WIDTH)),
        "slices": sorted(slice_name(key) for key in element[tfma.SLICE_KEY_TYPES_KEY] if key),
        "candidate": _counted(predictions[tfma.CANDIDATE_KEY] if both else predictions, num_classes),
        "baseline": _counted(predictions[tfma.BASELINE_KEY], num_classes) if both else None,
    }
    return json.dumps(record, ensure_ascii=False)


def _counted(prediction: Any, num_classes: int) -> dict[str, Any]:
    confusion = counts_of(prediction, num_classes).confusion
    score = mean_iou(confusion)
    cells = [[int(label), int(seen), int(confusion[label, seen])] for label, seen in np.argwhere(confusion)]
    return {"mean_iou": None if np.isnan(score) else score, "confusion": cells}


def images_evaluator(num_classes: int) -> tfma.evaluators.Evaluator:
    """What TFMA runs beside its metrics: the lines."""

    @beam.ptransform_fn
    def lines(extracts: beam.PCollection) -> dict[str, beam.PCollection]:
        return {IMAGES_FILE: extracts | beam.Map(image_line, num_classes)}

    return tfma.evaluators.Evaluator(_STAGE, tfma.extractors.SLICE_KEY_EXTRACTOR_STAGE_NAME, lines())


def images_writer(evaluation_uri: str) -> tfma.writers.Writer:
    """Writes the lines into one file."""
    sink = beam.io.WriteToText(
        os.path.join(evaluation_uri, IMAGES_FILE),
        num_shards=1,
        shard_name_template="",
        compression_type=CompressionTypes.GZIP,
    )
    return tfma.writers.Writer(_STAGE, tfma.writers.Write(IMAGES_FILE, sink))
