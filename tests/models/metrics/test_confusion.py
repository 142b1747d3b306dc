"""Scores by hand, against scikit-learn, and their laws."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as sklearn_metrics

from models.metrics import confusion as metrics
from models.metrics.confusion import confusion_matrix

# Label 0: 3 pixels, 2 of them right; label 1: 1 pixel, right; class 2 is nowhere.
MATRIX = np.array([[2, 1, 0], [0, 1, 0], [0, 0, 0]])

NUM_CLASSES = 4
SHAPE = arrays.array_shapes(min_dims=2, max_dims=2, max_side=6)


@st.composite
def labels_and_predictions(draw):
    shape = draw(SHAPE)
    labels = draw(arrays.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 3, 255])))
    return labels, draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, NUM_CLASSES - 1)))


def matrices():
    return arrays.arrays(np.int64, (NUM_CLASSES, NUM_CLASSES), elements=st.integers(0, 50))


def test_rows_are_labels_columns_are_predictions_and_void_is_not_counted():
    labels, predictions = np.uint8([[0, 0], [1, 255]]), np.uint8([[0, 1], [1, 1]])
    matrix = confusion_matrix(labels, predictions, 2)
    assert matrix.dtype == tf.int64
    np.testing.assert_array_equal(matrix, [[1, 1], [0, 1]])


def test_an_image_of_void_counts_nothing():
    np.testing.assert_array_equal(confusion_matrix(np.full((2, 2), 255), np.ones((2, 2)), 2), np.zeros((2, 2)))


def test_scores_by_hand():
    np.testing.assert_allclose(metrics.iou(MATRIX), [2 / 3, 1 / 2, np.nan])
    assert metrics.mean_iou(MATRIX) == pytest.approx((2 / 3 + 1 / 2) / 2)
    np.testing.assert_allclose(metrics.dice(MATRIX), [4 / 5, 2 / 3, np.nan])
    assert metrics.pixel_accuracy(MATRIX) == pytest.approx(3 / 4)
    assert metrics.mean_accuracy(MATRIX) == pytest.approx((2 / 3 + 1) / 2)
    assert metrics.frequency_weighted_iou(MATRIX) == pytest.approx(3 / 4 * 2 / 3 + 1 / 4 * 1 / 2)


def test_precision_and_recall_by_hand():
    # Predicted as 0: 2 pixels, both right; as 1: 2 pixels, 1 right. Class 2 is nowhere.
    np.testing.assert_allclose(metrics.precision(MATRIX), [1, 1 / 2, np.nan])
    np.testing.assert_allclose(metrics.recall(MATRIX), [2 / 3, 1, np.nan])


def test_boundary_iou_by_hand():
    # Class 0: 2 pixels in both bands, 3 in the label's, 4 in the prediction's; class 1 only predicted; 2 nowhere.
    boundary = [[2, 0, 0], [3, 0, 0], [4, 5, 0]]
    np.testing.assert_allclose(metrics.boundary_iou(boundary), [2 / 5, 0, np.nan])
    assert metrics.mean_boundary_iou(boundary) == pytest.approx(1 / 5)


def test_calibration_error_by_hand():
    # 4 pixels of mean confidence 0.3 of which half are right; 6 of mean confidence 0.9, all right.
    assert metrics.calibration_error([4, 0, 6], [2, 0, 6], [1.2, 0.0, 5.4]) == pytest.approx(0.4 * 0.2 + 0.6 * 0.1)
    assert np.isnan(metrics.calibration_error([0, 0], [0, 0], [0, 0]))


def test_a_class_that_is_predicted_but_nowhere_labelled_lowers_the_mean():
    assert metrics.mean_iou([[3, 1], [0, 0]]) == pytest.approx((3 / 4 + 0) / 2)
    assert metrics.mean_accuracy([[3, 1], [0, 0]]) == pytest.approx(3 / 4)


def test_without_a_pixel_every_score_is_nan():
    nothing = np.zeros((2, 2), np.int64)
    scores = [metrics.mean_iou, metrics.pixel_accuracy, metrics.mean_accuracy, metrics.frequency_weighted_iou]
    assert all(np.isnan(score(nothing)) for score in scores)


def test_a_constant_prediction_by_hand():
    """Class 1 has 60 of 80 pixels, class 2 none: its IoU is 0.75, that of class 0 is 0, and class 2 has none."""
    assert metrics.constant_prediction([20, 60, 0]) == (1, 0.375)
    assert np.isnan(metrics.constant_prediction([0, 0])[1])


@given(st.lists(st.integers(0, 50), min_size=NUM_CLASSES, max_size=NUM_CLASSES).filter(any))
def test_no_constant_prediction_is_better_than_the_commonest_class(pixels):
    every = np.stack([np.outer(pixels, np.eye(NUM_CLASSES, dtype=int)[class_id]) for class_id in range(NUM_CLASSES)])
    best = max(map(metrics.mean_iou, every))

    commonest, constant = metrics.constant_prediction(pixels)

    assert constant == metrics.mean_iou(every[commonest]) == best


def test_counts_beyond_float32_are_exact():
    assert metrics.pixel_accuracy([[2**53 - 2, 1], [0, 1]]) == (2**53 - 1) / 2**53


@settings(max_examples=40)
@given(labels_and_predictions())
def test_counts_equal_those_of_sklearn(pair):
    labels, predictions = pair
    valid = labels != 255
    expected = np.zeros((NUM_CLASSES, NUM_CLASSES))
    if valid.any():
        expected = sklearn_metrics.confusion_matrix(labels[valid], predictions[valid], labels=range(NUM_CLASSES))
    np.testing.assert_array_equal(confusion_matrix(labels, predictions, NUM_CLASSES), expected)


@settings(max_examples=40)
@given(labels_and_predictions())
def test_scores_equal_those_of_sklearn(pair):
    labels, predictions = pair
    valid = labels != 255
    if not valid.any():
        return
    labels, predictions = labels[valid], predictions[valid]
    matrix = np.asarray(confusion_matrix(labels, predictions, NUM_CLASSES))
    present = np.union1d(labels, predictions)
    expected = sklearn_metrics.jaccard_score(labels, predictions, labels=present, average=None)
    np.testing.assert_allclose(metrics.iou(matrix)[present], expected)
    assert metrics.mean_iou(matrix) == pytest.approx(expected.mean())
    f1 = sklearn_metrics.f1_score(labels, predictions, labels=present, average=None)
    np.testing.assert_allclose(metrics.dice(matrix)[present], f1)
    by_name = {"labels": range(NUM_CLASSES), "average": None, "zero_division": np.nan}
    precision = sklearn_metrics.precision_score(labels, predictions, **by_name)
    np.testing.assert_allclose(metrics.precision(matrix), precision)
    np.testing.assert_allclose(metrics.recall(matrix), sklearn_metrics.recall_score(labels, predictions, **by_name))
    labelled = np.unique(labels)
    balanced = sklearn_metrics.recall_score(labels, predictions, labels=labelled, average="macro")
    assert metrics.mean_accuracy(matrix) == pytest.approx(balanced)
    assert metrics.pixel_accuracy(matrix) == pytest.approx(sklearn_metrics.accuracy_score(labels, predictions))


@given(matrices())
def test_renaming_the_classes_renames_their_scores(matrix):
    order = [2, 0, 3, 1]
    renamed = matrix[np.ix_(order, order)]
    np.testing.assert_allclose(metrics.iou(renamed), metrics.iou(matrix)[order])
    np.testing.assert_allclose(metrics.mean_iou(renamed), metrics.mean_iou(matrix))


@given(matrices())
def test_dice_follows_from_iou(matrix):
    iou = metrics.iou(matrix)
    np.testing.assert_allclose(metrics.dice(matrix), 2 * iou / (1 + iou))


@given(arrays.arrays(np.int64, (NUM_CLASSES,), elements=st.integers(0, 50)).filter(np.any))
def test_a_perfect_prediction_scores_one(pixels):
    matrix = np.diag(pixels)
    assert metrics.mean_iou(matrix) == metrics.pixel_accuracy(matrix) == metrics.mean_accuracy(matrix) == 1.0
    assert metrics.frequency_weighted_iou(matrix) == pytest.approx(1.0)
