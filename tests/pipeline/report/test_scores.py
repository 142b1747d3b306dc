"""Scores side by side: worked by hand on three classes."""

import numpy as np
import pytest

from pipeline.report.scores import ClassIou, ScorePair, class_scores, confusions, lowest_slices, overall, row_shares
from tests.pipeline.report.hand_made import BASELINE, EVIL, METRICS, make_metrics


def test_classes_stand_lowest_iou_first_and_absent_ones_last():
    scores = class_scores(METRICS)
    assert [(score.name, score.share) for score in scores] == [(EVIL, 5 / 15), ("sky", 10 / 15), ("void deck", 0)]


def test_classes_stand_beside_those_of_the_served_model():
    assert [score.other for score in class_scores(METRICS, BASELINE)] == [5 / 7, 0.6, None]


def test_a_class_that_another_run_did_not_know_stands_alone():
    scores = class_scores(METRICS, make_metrics("road"))
    assert [(score.name, score.other) for score in scores[:3]] == [(EVIL, None), ("sky", 0.8), ("void deck", None)]


def test_a_class_that_only_the_other_run_knows_stands_last():
    assert class_scores(METRICS, make_metrics("road"))[3:] == [ClassIou("road", None, None, 5 / 7)]


def test_slices_stand_lowest_first_and_empty_ones_last():
    assert lowest_slices(METRICS, BASELINE) == [
        ScorePair("source:<b>b", 0.25, None),
        ScorePair("source:a", 0.75, 0.5),
        ScorePair("source:c", None, None),
    ]


def test_a_baseline_of_an_earlier_version_has_mean_iou_alone():
    pairs = {pair.name: pair for pair in overall(METRICS, BASELINE.model_copy(update={"scores": None}))}
    assert pairs["mean IoU"].theirs == 0.7
    assert pairs["pixel accuracy"] == ScorePair("pixel accuracy", pytest.approx(13 / 15), None)


def test_the_confusion_matrix_is_normalised_by_label():
    np.testing.assert_allclose(row_shares(METRICS.confusion_matrix), [[0.8, 0.2, 0], [0, 1, 0], [0, 0, 0]])


def test_only_pairs_that_occur_are_confusions():
    [found] = confusions(METRICS)
    assert (found.label, found.prediction, found.share, found.pixels) == ("sky", EVIL, 0.2, 2)
