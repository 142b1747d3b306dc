"""How examples reach the model that is judged."""

from collections.abc import Iterator
from itertools import pairwise

import apache_beam as beam
import pyarrow as pa
import tensorflow_model_analysis as tfma

from data.features import HEIGHT, WIDTH
from models.export.saved_model import EXAMPLES

#: Pixels of an image above which it is a batch of its own: the signature `evaluate` has several images of a batch under
#: way, and memory would be short sooner than the time would be long.
LARGE = 4_000_000


def large_apart(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cuts a batch of examples so that each image of more than `LARGE` pixels stands alone; keeps the order."""
    height, width = (batch.column(name).flatten().to_numpy() for name in (HEIGHT, WIDTH))
    around = (edge for row in (height * width > LARGE).nonzero()[0] for edge in (row, row + 1))
    for start, end in pairwise(sorted({0, *around, batch.num_rows})):
        yield batch.slice(start, end - start)


def examples_by_name() -> tfma.extractors.Extractor:
    """The extractor that goes after that of the columns: the examples, under the name of the signature's input.

    TFMA hands over by position what it does not find by name. A signature takes names alone; TensorFlow tries, writes
    the whole batch into the text of an error that nobody reads, and tries again.
    """
    return tfma.extractors.Extractor("ExamplesByName", beam.Map(_with_examples))


def _with_examples(extracts: tfma.Extracts) -> tfma.Extracts:
    return {**extracts, tfma.FEATURES_KEY: {**extracts[tfma.FEATURES_KEY], EXAMPLES: extracts[tfma.INPUT_KEY]}}
