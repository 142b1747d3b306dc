"""Reads examples back: records and images of a split, most of them as requests for a model."""

from collections.abc import Iterator
from itertools import islice

import tensorflow as tf
from tfx import types
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils

from components.slicing import Scalar
from data import features
from data.layouts.base import TEST


def test_examples(examples: types.Artifact, count: int) -> list[bytes]:
    """The first `count` serialized examples of the test split."""
    return first_examples(examples, TEST, count)


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


def scalar_columns(serialized: bytes) -> dict[str, Scalar]:
    """The columns of a serialized example, without the encoded image and mask."""
    columns: dict[str, Scalar] = {}
    for name, feature in tf.train.Example.FromString(serialized).features.feature.items():
        if name not in (features.IMAGE, features.MASK):
            (value,) = getattr(feature, feature.WhichOneof("kind")).value
            columns[name] = value.decode() if isinstance(value, bytes) else value
    return columns
