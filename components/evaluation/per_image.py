"""The evaluation of each image: made in Beam on the way to the metrics, written beside them.

`per_image.jsonl.gz`: one JSON object a line, in no order; "baseline" is the served model:

    {"key", "height", "width", "slices": ["source:dusk", ...],
     "candidate": {"mean_iou", "confusion": [[label, prediction, pixels], ...]}, "baseline": the same or null}
"""

import copy
import json
import os
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from apache_beam.io.filesystem import CompressionTypes

from components.config import EvaluationConfig
from components.evaluation.metrics import counts_of
from components.ingest.sample_images import scalar_columns
from components.slicing import slice_values, wanted_values
from data import features
from models.metrics.confusion import mean_iou

IMAGES_FILE = "per_image.jsonl.gz"
_STAGE = "Images"


def slice_name(slice_key: tuple[tuple[str, str], ...]) -> str:
    """TFMA's key of a slice as `column:value`."""
    return ", ".join(f"{column}:{value}" for column, value in slice_key)


class DescribeImages(beam.DoFn):
    """TFMA extracts of one image -> the same with other features: the image's key, its size and its slices.

    The image itself is dropped, because nothing that follows needs it.
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
        # All values are text: TFMA would convert what looks like a number.
        described[tfma.FEATURES_KEY] = {
            name: np.array([value.encode() for value in values], dtype=object)
            for name, values in columns.items()
            if values
        }
        return [described]


def describe_images(config: EvaluationConfig) -> tfma.extractors.Extractor:
    """The extractor that precedes that of the slices."""
    return tfma.extractors.Extractor("DescribeImages", beam.ParDo(DescribeImages(config)))


def image_line(element: tfma.Extracts, num_classes: int) -> str:
    """The line of one image."""

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
    """The evaluator that makes the lines; TFMA runs it beside its metrics."""

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
