"""Large images are batches of their own, nothing is lost or moved, and the model gets examples by name."""

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from apache_beam.testing.util import assert_that
from tensorflow_model_analysis.utils import model_util

from components.evaluation import batches as evaluation_batches
from components.evaluation.batches import examples_by_name, large_apart
from data.features import HEIGHT, KEY, WIDTH
from models.export.saved_model import EXAMPLES


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([1, 2, 3], [[1, 2, 3]]),
        ([9], [[9]]),
        ([9, 8], [[9], [8]]),
        ([1, 2, 9, 3, 4], [[1, 2], [9], [3, 4]]),
        ([9, 1, 8, 2], [[9], [1], [8], [2]]),
        ([1, 5, 2], [[1, 5, 2]]),
        ([], []),
    ],
)
def test_a_batch_is_cut_around_each_large_image(
    heights: list[int], expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation_batches, "LARGE", 50)
    sides = [pa.array([[side] for side in column], pa.list_(pa.int64())) for column in (heights, [10] * len(heights))]
    keys = pa.array([[f"{height}".encode()] for height in heights], pa.list_(pa.binary()))
    whole = pa.RecordBatch.from_arrays([*sides, keys], [HEIGHT, WIDTH, KEY])
    found = [part.to_pydict() for part in large_apart(whole)]
    assert [[row[0] for row in part[HEIGHT]] for part in found] == expected
    assert [[int(row[0]) for row in part[KEY]] for part in found] == expected


def test_tfma_finds_the_examples_under_the_name_of_the_input() -> None:
    examples = [b"one", b"other"]
    extracts = {
        tfma.FEATURES_KEY: {KEY: np.array([b"a.jpg", b"b.jpg"])},
        tfma.INPUT_KEY: np.array(examples, dtype=object),
    }

    def check(found: list[tfma.Extracts]) -> None:
        (features,) = (element[tfma.FEATURES_KEY] for element in found)
        inputs = model_util.get_inputs(features, {EXAMPLES: tf.TensorSpec((None,), tf.string, name=EXAMPLES)})
        assert list(inputs) == [EXAMPLES]
        assert inputs[EXAMPLES].numpy().tolist() == examples
        assert list(features[KEY]) == [b"a.jpg", b"b.jpg"]

    with beam.Pipeline() as pipeline:
        assert_that(pipeline | beam.Create([extracts]) | examples_by_name().ptransform, check)
