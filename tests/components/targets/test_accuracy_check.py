"""How a model for another target is held to the SavedModel."""

import pytest

from components.targets.accuracy_check import AccuracyCheck, compare_accuracy


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (0.36, "mean IoU 0.3600, +0.0032, keeps lite.max_drop=0.01"),
        (0.3568, "mean IoU 0.3568, +0.0000, keeps lite.max_drop=0.01"),
        (0.35676, "mean IoU 0.3568, +0.0000, keeps lite.max_drop=0.01"),
        (0.35, "mean IoU 0.3500, -0.0068, keeps lite.max_drop=0.01"),
        (0.3, "mean IoU 0.3000, -0.0568, breaks lite.max_drop=0.01"),
    ],
)
def test_the_difference_has_a_sign_and_zero_has_no_minus(found: float, reason: str):
    kept = "keeps" in reason
    assert compare_accuracy(found, 0.3568, 0.01, "lite.max_drop") == AccuracyCheck(kept, reason, found, 0.3568 - found)


def test_what_cannot_be_measured_is_not_kept():
    check = compare_accuracy(float("nan"), 0.5, 0.01, "hub.max_drop")

    assert check[:2] == (False, "mean IoU nan, +nan, breaks hub.max_drop=0.01")
