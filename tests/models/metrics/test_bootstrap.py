"""Confidence intervals over images: against a plain loop, and what must hold for any."""

import numpy as np
import pytest

from models.metrics.bootstrap import class_totals, mean_iou_intervals
from models.metrics.confusion import mean_iou

SETTINGS = {"resamples": 200, "level": 0.9, "seed": 7}


def matrices(images: int, seed: int, skill: int = 50) -> np.ndarray:
    """(images, 3, 3) confusion matrices; class 2 is in few images."""
    random = np.random.default_rng(seed)
    found = random.integers(0, 20, (images, 3, 3)) + skill * np.eye(3, dtype=int)
    found[random.random(images) < 0.7, 2, :] = 0
    found[found[:, 2].sum(axis=1) == 0, :, 2] = 0
    return found


def totals(found: np.ndarray) -> np.ndarray:
    return np.stack([class_totals(matrix) for matrix in found])


def test_totals_are_right_pixels_labels_and_predictions():
    assert class_totals([[3, 1], [2, 4]]).tolist() == [[3, 4], [4, 6], [5, 5]]


def test_the_intervals_are_the_quantiles_of_draws_with_replacement():
    ours, theirs = matrices(9, seed=1), matrices(9, seed=2, skill=20)
    random = np.random.default_rng(SETTINGS["seed"])
    draws = []
    while len(draws) < SETTINGS["resamples"]:
        # As the code under test, 16 draws at a time: the numbers of one seed come in the same order.
        times = random.multinomial(9, np.full(9, 1 / 9), size=min(16, SETTINGS["resamples"] - len(draws)))
        draws += [[mean_iou(np.repeat(found, each, axis=0).sum(axis=0)) for found in (ours, theirs)] for each in times]
    scores = np.array(draws)
    found = mean_iou_intervals(totals(ours), totals(theirs), **SETTINGS)
    assert found.candidate == pytest.approx(np.quantile(scores[:, 0], (0.05, 0.95)))
    assert found.baseline == pytest.approx(np.quantile(scores[:, 1], (0.05, 0.95)))
    assert found.change == pytest.approx(np.quantile(scores[:, 0] - scores[:, 1], (0.05, 0.95)))


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others():
    found = totals(matrices(12, seed=3))
    one, again = (mean_iou_intervals(found, None, **SETTINGS) for _ in range(2))
    other = mean_iou_intervals(found, None, **{**SETTINGS, "seed": 8})
    assert one == again != other
    assert one.baseline is one.change is None


def test_equal_models_have_no_difference_however_the_images_fall():
    found = totals(matrices(12, seed=3))
    assert mean_iou_intervals(found, found, **SETTINGS).change == (0.0, 0.0)


def test_equal_images_leave_no_doubt():
    found = totals(np.repeat(matrices(1, seed=4), 5, axis=0))
    score = mean_iou(matrices(1, seed=4)[0])
    assert mean_iou_intervals(found, None, **SETTINGS).candidate == pytest.approx((score, score))


def test_a_single_image_says_nothing_of_others():
    assert mean_iou_intervals(totals(matrices(1, seed=4)), None, **SETTINGS) is None


def test_the_interval_holds_the_score_and_narrows_with_more_images():
    few, many = matrices(10, seed=5), matrices(400, seed=5)
    widths = []
    for found in (few, many):
        lower, upper = mean_iou_intervals(totals(found), None, **SETTINGS).candidate
        assert lower < mean_iou(found.sum(axis=0)) < upper
        widths.append(upper - lower)
    assert widths[1] < widths[0] / 3


def test_the_interval_holds_the_true_score_about_as_often_as_it_says():
    truth = mean_iou(matrices(100_000, seed=6, skill=10).sum(axis=0))
    held = 0
    for seed in range(60):
        lower, upper = mean_iou_intervals(totals(matrices(60, seed=100 + seed, skill=10)), None, **SETTINGS).candidate
        held += lower <= truth <= upper
    assert 0.75 <= held / 60 <= 1.0


def test_draws_without_a_labelled_pixel_are_left_out():
    found = np.zeros((4, 3, 2), np.int64)
    found[0] = [[1, 0], [1, 0], [1, 0]]
    assert mean_iou_intervals(found, None, **SETTINGS).candidate == (1.0, 1.0)
