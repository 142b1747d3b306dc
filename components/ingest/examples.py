"""Writes labelled images as tf.Examples: one record an image, records by split, and the manifest of the image files."""

import os
from collections.abc import Iterable, Mapping

import apache_beam as beam
import numpy as np
import tensorflow as tf
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from data import features
from data.labels import LabelMap
from data.layouts.base import SPLITS, Sample
from data.manifest import ImageFile, image_file, pack_part, part_name


def make_example(sample: Sample, encoded: bytes, image: np.ndarray, mask: np.ndarray, labels: LabelMap) -> bytes:
    """Serialises one labelled image as `data.features` describes.

    Args:
        sample: Where it comes from.
        encoded: The encoded image.
        image: (height, width, 3) uint8 RGB, decoded.
        mask: (height, width) uint8 class ids, `IGNORE_LABEL` where void.
        labels: Names the classes.
    """
    luma = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255.0
    pixels = np.bincount(mask.ravel(), minlength=256)
    columns: dict[str, bytes | int | float] = {
        features.IMAGE: encoded,
        features.MASK: tf.io.encode_png(mask[:, :, None]).numpy(),
        features.KEY: sample.key.encode(),
        features.SOURCE: sample.source.encode(),
        features.HEIGHT: mask.shape[0],
        features.WIDTH: mask.shape[1],
        features.BRIGHTNESS: float(luma.mean()),
        features.CONTRAST: float(luma.std()),
        features.VOID_FRACTION: float(pixels[features.IGNORE_LABEL] / mask.size),
        **{features.pixels_key(name): int(pixels[class_id]) for class_id, name in enumerate(labels.names)},
    }
    feature = {name: _feature(value) for name, value in columns.items()}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(deterministic=True)


def _feature(value: bytes | int | float) -> tf.train.Feature:
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    if isinstance(value, int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))


def split_folder(examples_uri: str, split: str) -> str:
    """Where TFX looks for the records of a split."""
    return os.path.join(examples_uri, f"Split-{split}")


def write_examples(serialized: Mapping[str, beam.PCollection], examples_uri: str) -> None:
    """Adds to a Beam pipeline what writes the records of each split, and their manifest (see `data.manifest`).

    For the manifest a worker holds the entries of one part at once, a sixteenth of them; never an image.

    Args:
        serialized: Split -> serialized examples.
        examples_uri: The folder of an `Examples` artifact.
    """
    entries = []
    for split in SPLITS:
        _ = serialized[split] | f"Write[{split}]" >> beam.io.WriteToTFRecord(
            os.path.join(split_folder(examples_uri, split), "examples"), file_name_suffix=".gz"
        )
        entries.append(serialized[split] | f"Describe[{split}]" >> beam.Map(_manifest_entry, split=split))
    _ = (
        entries
        | "AllEntries" >> beam.Flatten()
        | "ByDigit" >> beam.WithKeys(lambda entry: entry.sha256[0])
        | "Parts" >> beam.GroupByKey()
        | "WriteParts" >> beam.Map(_write_manifest_part, examples_uri=examples_uri)
    )


def _manifest_entry(serialized: bytes, split: str) -> ImageFile:
    feature = tf.train.Example.FromString(serialized).features.feature
    (encoded,), (key,) = feature[features.IMAGE].bytes_list.value, feature[features.KEY].bytes_list.value
    return image_file(encoded, key.decode(), split)


def _write_manifest_part(part: tuple[str, Iterable[ImageFile]], examples_uri: str) -> None:
    """Writes the entries whose digests begin with the same digit; if Beam tries again, it writes the same again."""
    digit, entries = part
    path = FileSystems.join(examples_uri, part_name(digit))
    with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(pack_part(entries))
