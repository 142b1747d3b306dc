"""Transform: the statistics of the training split, and the images as the network will see them.

`preprocessing_fn` runs TensorFlow Transform's analyzers over the training split (exact int64 sums, so that the result
does not depend on their order) and applies the preprocessing that serving applies, too. The materialised images stay
encoded: one that needs no shrinking keeps its bytes, a shrunk one becomes a PNG, which is lossless, so that training
decodes exactly the pixels that serving computes. `docs/design.md` has the measurement behind this choice.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx import types
from tfx.components.transform import component as transform
from tfx.components.transform import executor
from tfx.dsl.components.base import executor_spec
from tfx.proto import transform_pb2

from components.code_hash import code_hash
from data import features
from data.config import PreprocessConfig
from data.labels import LabelMap
from data.layouts.base import TRAIN, VAL
from data.preprocess import decode_image, decode_mask, shrink_image, shrink_mask

#: Results of the analyzers, the same in every record: (3,) float32 in [0, 255], (3,) float32, (classes,) int64.
CHANNEL_MEAN = "channel_mean"
CHANNEL_VARIANCE = "channel_variance"
CLASS_PIXELS = "class_pixels"

#: Images in one call of the graph. Without a limit Beam lets batches grow to hundreds of decoded images in memory.
BATCH_SIZE = 8


@dataclass(frozen=True)
class DatasetStatistics:
    """The statistics of the training split."""

    channel_mean: np.ndarray
    """(3,) float32, RGB in [0, 255]."""
    channel_variance: np.ndarray
    """(3,) float32."""
    class_pixels: np.ndarray
    """(classes,) int64."""


def _network_image(encoded: tf.Tensor, config: PreprocessConfig) -> tuple[tf.Tensor, ...]:
    """Encoded image -> the bytes to keep; number of pixels, int64; sums of x and of x^2 over pixels, (3,) int64."""
    decoded = decode_image(encoded)  # (height, width, 3) uint8
    image = shrink_image(decoded, config)
    kept = tf.cond(_same_size(image, decoded), lambda: encoded, lambda: tf.io.encode_png(image))
    pixels = tf.reshape(tf.cast(image, tf.int64), (-1, 3))
    count = tf.shape(pixels, out_type=tf.int64)[0]
    return kept, count, tf.reduce_sum(pixels, axis=0), tf.reduce_sum(pixels * pixels, axis=0)


def _network_mask(encoded: tf.Tensor, num_classes: int, config: PreprocessConfig) -> tuple[tf.Tensor, tf.Tensor]:
    """Encoded mask -> the bytes to keep; pixels of each class, (classes,) int64."""
    decoded = decode_mask(encoded)  # (height, width) uint8
    mask = shrink_mask(decoded, config)
    kept = tf.cond(_same_size(mask, decoded), lambda: encoded, lambda: tf.io.encode_png(mask[:, :, None]))
    values = tf.cast(tf.reshape(mask, [-1]), tf.int32)
    counts = tf.math.bincount(values, minlength=256, maxlength=256, dtype=tf.int32)
    return kept, tf.ensure_shape(tf.cast(counts[:num_classes], tf.int64), (num_classes,))


def _same_size(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    return tf.reduce_all(tf.equal(tf.shape(one), tf.shape(other)))


def _repeat(value: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """(n,) -> (rows, n): Transform's outputs are columns."""
    return tf.tile(value[None, :], (rows, 1))


def preprocessing_fn(inputs: dict[str, tf.Tensor], custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """TensorFlow Transform's entry point.

    Args:
        inputs: Batched columns of the examples; see `data.features`.
        custom_config: `preprocess` and `label_map`, the JSON of their sections.

    Returns:
        IMAGE and MASK at the network's size, encoded, and the three statistics, repeated in each row.
    """
    config = PreprocessConfig.model_validate_json(custom_config["preprocess"])
    num_classes = LabelMap.model_validate_json(custom_config["label_map"]).num_classes
    channels = tf.TensorSpec((3,), tf.int64)
    images, counts, sums, squares = tf.map_fn(
        lambda encoded: _network_image(encoded, config),
        inputs[features.IMAGE],
        fn_output_signature=(tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.int64), channels, channels),
    )
    masks, class_pixels = tf.map_fn(
        lambda encoded: _network_mask(encoded, num_classes, config),
        inputs[features.MASK],
        fn_output_signature=(tf.TensorSpec((), tf.string), tf.TensorSpec((num_classes,), tf.int64)),
    )
    pixels = tf.cast(tft.sum(counts), tf.float64)
    mean = tf.cast(tft.sum(sums, reduce_instance_dims=False), tf.float64) / pixels
    variance = tf.cast(tft.sum(squares, reduce_instance_dims=False), tf.float64) / pixels - mean * mean
    rows = tf.shape(images)[0]
    return {
        features.IMAGE: images,
        features.MASK: masks,
        CHANNEL_MEAN: _repeat(tf.cast(mean, tf.float32), rows),
        CHANNEL_VARIANCE: _repeat(tf.cast(variance, tf.float32), rows),
        CLASS_PIXELS: _repeat(tft.sum(class_pixels, reduce_instance_dims=False), rows),
    }


def read_statistics(transformed_file: str, num_classes: int) -> DatasetStatistics:
    """Reads the analyzers' results from the first record of a transformed file (gzipped TFRecord)."""
    record = next(iter(tf.data.TFRecordDataset(transformed_file, compression_type="GZIP").take(1)))
    parsed = tf.io.parse_single_example(
        record,
        {
            CHANNEL_MEAN: tf.io.FixedLenFeature((3,), tf.float32),
            CHANNEL_VARIANCE: tf.io.FixedLenFeature((3,), tf.float32),
            CLASS_PIXELS: tf.io.FixedLenFeature((num_classes,), tf.int64),
        },
    )
    return DatasetStatistics(
        parsed[CHANNEL_MEAN].numpy(), parsed[CHANNEL_VARIANCE].numpy(), parsed[CLASS_PIXELS].numpy()
    )


class Executor(executor.Executor):
    """TFX's executor with bounded batches (see tensorflow/tfx issue 5777: batches of images grow without bound)."""

    def _GetDesiredBatchSize(self, data_format: int, schema: Any) -> int:
        return BATCH_SIZE


class ImageTransform(transform.Transform):
    """TFX's Transform over `preprocessing_fn`: analyzes train, transforms train and val.

    The test split stays raw: the Evaluator sends it through the exported model's own preprocessing.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self, examples: types.BaseChannel, schema: types.BaseChannel, preprocess: PreprocessConfig, labels: LabelMap
    ):
        super().__init__(
            examples=examples,
            schema=schema,
            preprocessing_fn=f"{preprocessing_fn.__module__}.{preprocessing_fn.__name__}",
            splits_config=transform_pb2.SplitsConfig(analyze=[TRAIN], transform=[TRAIN, VAL]),
            custom_config={
                "preprocess": preprocess.model_dump_json(),
                "label_map": labels.model_dump_json(),
                "code_hash": code_hash(__name__),
            },
            disable_statistics=True,
            disable_analyzer_cache=True,
        )
