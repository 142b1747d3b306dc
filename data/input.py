"""Transformed records to batches: endless, shuffled and augmented for training, one by one for evaluation.

The order of the images and every variation of them is a pure function of the seed and the step, so that a training
that resumes at step k sees the same data, bit for bit, as one that was never interrupted.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import tensorflow as tf

from data.augment import augment
from data.config import AugmentConfig, InputConfig
from data.errors import DataError
from data.features import IMAGE, MASK
from data.preprocess import decode_image, decode_mask

Windows = Callable[[tf.Tensor], tf.data.Dataset]
"""Function from the number of an epoch to its items, as vectors that follow each other."""


@dataclass(frozen=True)
class _Scan:
    """The result of one pass over the records."""

    count: int
    decoded: tf.Tensor | None
    """(count, 2) strings, image and mask as `tf.io.serialize_tensor` writes them; None where they do not fit."""


def training_batches(
    files: Sequence[str],
    config: InputConfig,
    augmentation: AugmentConfig,
    *,
    batch_size: int,
    channel_mean: Sequence[float],
    seed: int,
    start_step: int = 0,
    context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """Endless batches from step `start_step` on.

    The records are numbered through all epochs: step k takes the numbers k * batch_size and following. A set smaller
    than a batch fills it from several epochs. With several workers each takes its slice of these numbers, and with
    several replicas a batch here is what one replica takes, so that all together see what a single process would see.
    Each worker reads all records, where they do not fit in memory, and decodes its own.

    Args:
        files: TFRecord files of the training split, GZIP where the name ends in `.gz`.
        config: memory and buffers.
        augmentation: how images are cropped and varied.
        batch_size: images in a step, over all replicas; a multiple of their number.
        channel_mean: mean of the channels in [0, 255]; fills crops that reach outside the image.
        seed: seed of the order and the variations.
        start_step: number of steps that a former run has done.
        context: the replicas, and the number of this worker, as `distribute_datasets_from_function` passes them; None
            is one replica.

    Returns:
        Dataset of (batch, crop height, crop width, 3) float32 in [0, 255] and (batch, crop height, crop width) uint8,
        batch being `batch_size` over the number of replicas.

    Raises:
        DataError: there is no file or no record.
    """
    context = context or tf.distribute.InputContext()
    scan = _scan(files, config.cache_bytes)
    mean = tf.constant(channel_mean, tf.float32)
    windows: Windows
    read: Callable[..., tuple[tf.Tensor, tf.Tensor]]
    if scan.decoded is not None:
        windows, read = partial(_memory_windows, scan.count, seed), _unpack
    else:
        windows, read = partial(_disk_windows, files, seed, config.shuffle_buffer), decode_example

    def varied(number: tf.Tensor, *item: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return augment(*read(*item), tf.stack([tf.constant(seed, tf.int64), number]), augmentation, mean)

    items = _numbered(scan.count, batch_size * start_step, windows)
    if context.num_input_pipelines > 1:
        # Each worker takes an equal slice of each global batch, in the order of the workers.
        size = batch_size // context.num_input_pipelines
        items = items.filter(lambda number, _: number % batch_size // size == context.input_pipeline_id)
    if scan.decoded is not None:
        # All items share the table. A function would capture it as a constant of its graph if it had 128 elements or
        # fewer: many copies of all images.
        table = tf.data.Dataset.from_tensors(scan.decoded).repeat()
        items = tf.data.Dataset.zip(items, table).map(lambda numbered, decoded: (*numbered, decoded))
    examples = items.map(varied, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batches = examples.batch(batch_size // context.num_replicas_in_sync, drop_remainder=True)
    # Otherwise several workers would ask each other at each step whether any of them has run out of data.
    batches = batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    replicas_here = context.num_replicas_in_sync // context.num_input_pipelines
    return batches.prefetch(config.prefetch * replicas_here)


def evaluation_examples(files: Sequence[str]) -> tf.data.Dataset:
    """The images of a split, each once, in the order of the files, at their own sizes.

    Returns:
        Dataset of (height, width, 3) uint8 images and (height, width) uint8 masks.

    Raises:
        DataError: there is no file or no record.
    """
    records = _records(files)
    if not list(records.take(1)):
        raise _empty(files)
    return records.map(decode_example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2)


def count_records(files: Sequence[str]) -> int:
    """The number of records in TFRecord files, GZIP where the name ends in `.gz`; nothing is decoded."""
    return sum(1 for _ in _records(files))


def decode_example(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A serialized tf.Example to its (height, width, 3) uint8 image and (height, width) uint8 mask."""
    keys = {key: tf.io.FixedLenFeature([], tf.string) for key in (IMAGE, MASK)}
    example = tf.io.parse_single_example(serialized, keys)
    return decode_image(example[IMAGE]), decode_mask(example[MASK])


def _records(files: Sequence[str] | tf.Tensor) -> tf.data.Dataset:
    """The serialized records of the files, in order."""

    def opened(file: tf.Tensor) -> tf.data.Dataset:
        zipped = tf.strings.regex_full_match(file, r".*\.gz")
        return tf.data.TFRecordDataset(file, compression_type=tf.where(zipped, "GZIP", ""))

    return tf.data.Dataset.from_tensor_slices(tf.convert_to_tensor(files, tf.string)).flat_map(opened)


def _empty(files: Sequence[str]) -> DataError:
    if not files:
        return DataError("a split has no record files; at least one is needed")
    folder = os.path.dirname(files[0])
    split = os.path.basename(folder).removeprefix("Split-")
    return DataError(f"split {split!r} is empty: no record in the {len(files)} file(s) of {folder}")


def _scan(files: Sequence[str], cache_bytes: int) -> _Scan:
    """Counts the records and keeps their decoded pixels if all of them fit in `cache_bytes`."""

    def pack(serialized: tf.Tensor) -> tf.Tensor:
        """Image and mask as a vector of two strings, whatever their sizes."""
        return tf.stack([tf.io.serialize_tensor(pixels) for pixels in decode_example(serialized)])

    packed = _records(files).map(pack, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    kept: list[np.ndarray] = []
    size = 0
    for record in packed.as_numpy_iterator():
        size += sum(map(len, record))
        if size > cache_bytes:
            # Counting needs no decoding.
            return _Scan(count_records(files), None)
        kept.append(record)
    if not kept:
        raise _empty(files)
    return _Scan(len(kept), tf.constant(np.stack(kept)))


def _unpack(index: tf.Tensor, table: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The (height, width, 3) image and (height, width) mask of a record in the table of packed ones."""
    record = tf.gather(table, index)
    image = tf.ensure_shape(tf.io.parse_tensor(record[0], tf.uint8), (None, None, 3))
    return image, tf.ensure_shape(tf.io.parse_tensor(record[1], tf.uint8), (None, None))


def _numbered(count: int, start: int, windows: Windows) -> tf.data.Dataset:
    """(number, item) of all epochs, `count` items in each, from item number `start` on."""
    epochs = tf.data.Dataset.range(start // count, np.iinfo(np.int64).max)
    # The next window is read while this one is processed, also across the end of an epoch.
    items = epochs.flat_map(windows).prefetch(1).unbatch()
    return items.skip(start % count).enumerate(start)


def _memory_windows(count: int, seed: int, epoch: tf.Tensor) -> tf.data.Dataset:
    """The indices of the records in memory, in the order of an epoch: one window."""
    return tf.data.Dataset.from_tensors(_shuffled(tf.range(count), seed, epoch, 0))


def _disk_windows(files: Sequence[str], seed: int, size: int, epoch: tf.Tensor) -> tf.data.Dataset:
    """The records on disk in the order of an epoch: files shuffled, and records within each window of them.

    `Dataset.shuffle` would depend on TensorFlow's global seed and on how many records were drawn before.
    """
    records = _records(_shuffled(tf.constant(list(files)), seed, epoch, 0)).batch(size).enumerate()
    return records.map(lambda number, window: _shuffled(window, seed, epoch, number + 1))


def _shuffled(values: tf.Tensor, seed: int, epoch: tf.Tensor, part: int | tf.Tensor) -> tf.Tensor:
    """The values in an order that depends on seed, epoch and part alone."""
    key = tf.random.fold_in(tf.stack([tf.constant(seed, tf.int64), epoch]), part)
    return tf.random.experimental.stateless_shuffle(values, key)
