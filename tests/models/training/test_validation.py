"""Evaluation on whole images, by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from data.errors import DataError
from data.features import IGNORE_LABEL
from models.training.validation import count, predictor, validation_result


def examples(*masks: list[list[int]]) -> tf.data.Dataset:
    """Images with these masks."""

    def pairs():  # type: ignore[no-untyped-def]
        for mask in masks:
            yield np.zeros((*np.shape(mask), 3), np.uint8), np.array(mask, np.uint8)

    specs = tf.TensorSpec((None, None, 3), tf.uint8), tf.TensorSpec((None, None), tf.uint8)
    return tf.data.Dataset.from_generator(pairs, output_signature=specs)


def all_first(image: tf.Tensor) -> tf.Tensor:
    """Predicts class 0 everywhere."""
    return tf.zeros(tf.shape(image)[:2], tf.uint8)


def test_images_of_any_size_count_by_their_pixels() -> None:
    # Labels: 3 of class 0, 2 of class 1, none of class 2.
    matrix = count(all_first, examples([[0, 0, 1]], [[0, IGNORE_LABEL], [1, IGNORE_LABEL]]), num_classes=3)
    assert matrix.tolist() == [[3, 0, 0], [2, 0, 0], [0, 0, 0]]
    found = validation_result(matrix, step=7)
    assert found.step == 7
    assert found.iou == (pytest.approx(3 / 5), 0.0, None)
    assert found.mean_iou == pytest.approx(3 / 10)


def test_shares_of_a_split_add_up_to_the_whole() -> None:
    split = examples([[0, 0, 1]], [[0, 1]], [[1, 1]])
    shares = [count(all_first, split.shard(2, worker), 2) for worker in range(2)]
    np.testing.assert_array_equal(sum(shares), count(all_first, split, 2))


def test_a_split_without_a_labelled_pixel_is_an_error() -> None:
    with pytest.raises(DataError, match="no labelled pixel"):
        validation_result(count(all_first, examples([[IGNORE_LABEL]]), 2), 0)


def test_the_predictor_gives_the_class_with_the_highest_logit_at_any_size() -> None:
    # Logits (0, red - 100): class 1 where red is above 100.
    model = keras.Sequential([keras.layers.Input((None, None, 3)), keras.layers.Conv2D(2, 1, name="classifier")])
    model.layers[-1].set_weights([np.array([[[[0, 1], [0, 0], [0, 0]]]]), np.array([0, -100])])
    predict = predictor(model)
    for size in ((3, 5), (4, 2)):
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        np.testing.assert_array_equal(predict(tf.constant(image)), image[:, :, 0] > 100)
