"""Beam's part of the manifest: lists the images that ExampleGen put into examples. See `data.manifest`."""

from collections.abc import Iterable, Mapping

import apache_beam as beam
import tensorflow as tf
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from data import features
from data.manifest import ImageFile, image_file, pack_part, part_name


def describe(serialized: bytes, split: str) -> ImageFile:
    """The manifest's entry for one example."""
    feature = tf.train.Example.FromString(serialized).features.feature
    (encoded,), (key,) = feature[features.IMAGE].bytes_list.value, feature[features.KEY].bytes_list.value
    return image_file(encoded, key.decode(), split)


def write_part(part: str, entries: Iterable[ImageFile], examples_uri: str) -> None:
    """Writes the entries whose digests begin with `part`; a retry of Beam's writes the same again."""
    path = FileSystems.join(examples_uri, part_name(part))
    with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(pack_part(entries))


def write_manifest(examples: Mapping[str, beam.PCollection], examples_uri: str) -> None:
    """Adds the writing of the manifest to a pipeline.

    A worker holds the entries of one part at once, a sixteenth of them; never a picture.

    Args:
        examples: Split -> serialized examples.
        examples_uri: Where the examples are written.
    """
    entries = [
        serialized | f"Describe[{split}]" >> beam.Map(describe, split=split) for split, serialized in examples.items()
    ]
    _ = (
        entries
        | "AllEntries" >> beam.Flatten()
        | "ByDigit" >> beam.WithKeys(lambda entry: entry.sha256[0])
        | "Parts" >> beam.GroupByKey()
        | "WriteParts" >> beam.MapTuple(lambda part, found: write_part(part, found, examples_uri))
    )
