"""Real requests for a model: images and examples, most from the test split."""

from collections.abc import Iterator
from itertools import islice

import tensorflow as tf
from tfx import types
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils

from components.evaluation.evaluator import TEST_SPLIT
from data import features


def test_examples(examples: types.Artifact, count: int) -> list[bytes]:
    """The first `count` serialized examples of the test split."""
    return first_examples(examples, TEST_SPLIT, count)


def first_examples(examples: types.Artifact, split: str, count: int) -> list[bytes]:
    """The first `count` serialized examples of a split."""
    return list(islice(all_examples(examples, split), count))


def all_examples(examples: types.Artifact, split: str) -> Iterator[bytes]:
    """Streams the serialized examples of a split."""
    pattern = io_utils.all_files_pattern(artifact_utils.get_split_uri([examples], split))
    records = tf.data.TFRecordDataset(sorted(fileio.glob(pattern)), compression_type="GZIP")
    yield from records.as_numpy_iterator()


def encoded_images(serialized: list[bytes]) -> Iterator[bytes]:
    """The encoded images of serialized examples."""
    for record in serialized:
        yield tf.train.Example.FromString(record).features.feature[features.IMAGE].bytes_list.value[0]
