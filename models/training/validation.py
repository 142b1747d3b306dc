"""Validation during training: whole images at their own sizes, one confusion matrix over all pixels."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from numpy.typing import NDArray
from pydantic import Field

from data.errors import DataError
from data.section import Section
from models.metrics.confusion import confusion_matrix, iou, mean_iou

Predict = Callable[[tf.Tensor], tf.Tensor]


class Evaluation(Section):
    """The scores of the model on the validation split after some step."""

    step: int = Field(ge=0)
    """Steps done."""
    mean_iou: float
    """Mean IoU over the classes that occur in labels or predictions, in [0, 1]."""
    iou: tuple[float | None, ...]
    """IoU of each class; None for a class that occurs in neither labels nor predictions."""


def predictor(model: keras.Model) -> Predict:
    """The function from a (height, width, 3) uint8 image of any size to its (height, width) uint8 class ids."""

    @tf.function(input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)], autograph=False)
    def predict(image: tf.Tensor) -> tf.Tensor:
        logits = model(tf.cast(image, tf.float32)[None], training=False)  # (1, height, width, classes)
        return tf.cast(ops.argmax(logits[0], axis=-1), tf.uint8)

    return predict


def count(predict: Predict, examples: tf.data.Dataset, num_classes: int) -> NDArray[np.int64]:
    """The confusion matrix over (image, mask) pairs, as `data.input.evaluation_examples` returns them.

    Returns:
        (classes, classes) in pixels, rows the label and columns the prediction.
    """
    total = np.zeros((num_classes, num_classes), np.int64)
    for image, mask in examples:
        total += np.asarray(confusion_matrix(mask, predict(image), num_classes), np.int64)
    return total


def validation_result(matrix: NDArray[np.int64], step: int) -> Evaluation:
    """Scores from the confusion matrix of the whole validation split.

    Raises:
        DataError: no pixel has a label.
    """
    if not matrix.any():
        raise DataError(
            "the validation split has no labelled pixel: its masks hold nothing but the ignore label (void); check "
            "data.label_map"
        )
    scores = iou(matrix)  # (classes,), NaN where a class does not occur
    return Evaluation(
        step=step,
        mean_iou=mean_iou(matrix),
        iou=tuple(None if np.isnan(score) else float(score) for score in scores),
    )
