"""Class weights, by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.config import ClassBalance
from models.training.class_weights import class_weights


def test_strength_is_an_exponent_of_the_weights() -> None:
    root = np.sqrt([0.6, 1.0, 1.5])
    expected = root / np.dot([0.5, 0.3, 0.2], root)
    np.testing.assert_allclose(class_weights([50, 30, 20], "median", 0.5), expected, rtol=1e-6)
    assert class_weights([50, 30, 20], "median", 0.0).tolist() == [1.0, 1.0, 1.0]


def test_none_weighs_all_alike() -> None:
    assert class_weights([5, 0, 100], "none").tolist() == [1.0, 1.0, 1.0]


def test_log_weights_by_hand() -> None:
    # 1 / ln(1.02 + f) for f = 3/4 and 1/4, scaled so that 3/4 a + 1/4 b = 1.
    a, b = 1 / np.log(1.77), 1 / np.log(1.27)
    scale = 0.75 * a + 0.25 * b
    np.testing.assert_allclose(class_weights([300, 100], "log"), [a / scale, b / scale], rtol=1e-6)


def test_median_weights_by_hand() -> None:
    # Fractions .5, .3, .2: median .3, weights .6, 1, 1.5; each class then adds .3 to the mean, so it is .9.
    np.testing.assert_allclose(class_weights([50, 30, 20], "median"), np.array([0.6, 1.0, 1.5]) / 0.9, rtol=1e-6)


@pytest.mark.parametrize("balance", ["log", "median"])
def test_a_class_that_never_occurs_weighs_as_the_rarest(balance: ClassBalance) -> None:
    weights = class_weights([90, 0, 10], balance)
    assert weights[1] == weights[2] > weights[0]


def test_without_any_pixel_all_weigh_alike() -> None:
    assert class_weights([0, 0], "log").tolist() == [1.0, 1.0]


@given(pixels=st.lists(st.integers(1, 10**9), min_size=1, max_size=30), balance=st.sampled_from(["log", "median"]))
def test_the_mean_weight_of_a_pixel_is_one_and_rarer_weighs_more(pixels: list[int], balance: ClassBalance) -> None:
    weights = class_weights(pixels, balance)
    assert np.average(weights, weights=pixels) == pytest.approx(1.0, rel=1e-4)
    assert (np.diff(weights[np.argsort(pixels)]) <= 1e-6 * weights.max()).all()
