"""The verdict depends on every threshold, and says of each whether it was kept."""

from dataclasses import replace

import numpy as np
import pytest

from components.config import ClassThreshold, EvaluationConfig, SliceThreshold
from components.evaluation.results import ImageResult, ImageScore, Scores, SliceKey
from components.evaluation.verdict import Verdict, evaluate_thresholds
from models.metrics.confusion import iou, mean_iou
from models.metrics.counts import CONFUSION, Counts
from models.metrics.scores import SliceScores

NAMES = ("road", "car", "ghost")
DUSK: SliceKey = (("source", "dusk"),)


def confusion(road: int, car: int) -> np.ndarray:
    """Of 100 pixels each of road and car, so many are right; the ghost is nowhere."""
    return np.array([[road, 100 - road, 0], [100 - car, car, 0], [0, 0, 0]])


def scores(matrix: np.ndarray) -> SliceScores:
    return SliceScores.of(Counts.of({CONFUSION: matrix}, 3), NAMES)


#: IoU of road 90/120, of car 80/110; at dusk 90/150 and 50/110.
CANDIDATE = {(): scores(confusion(90, 80)), DUSK: scores(confusion(90, 50))}
#: IoU of road 76/102, of car 98/124; at dusk 70/110 and 90/130.
SERVED = {(): scores(confusion(76, 98)), DUSK: scores(confusion(70, 90))}


def image(key: str, ours: np.ndarray, theirs: np.ndarray | None = None) -> ImageResult:
    def score(matrix: np.ndarray) -> ImageScore:
        cells = [(*place, matrix[tuple(place)]) for place in np.argwhere(matrix)]
        return ImageScore(mean_iou(matrix), np.array(cells, np.int64).reshape(-1, 3))

    return ImageResult(key, 10, 20, (), score(ours), None if theirs is None else score(theirs))


def verdict(served: bool = True, **settings: object) -> Verdict:
    """Over the candidate, with nothing demanded but what is given."""
    config = EvaluationConfig.model_validate({"max_drop": 1.0, **settings})
    found = Scores(CANDIDATE, SERVED if served else {})
    return evaluate_thresholds(found, [image("a", confusion(90, 80))], config, 3 if served else None)


def refusals(found: Verdict) -> list[str]:
    words = (" is below ", " breaks ", "cannot be evaluated", "the model predicts class", "is not above")
    return [reason for reason in found.reasons if any(word in reason for word in words)]


def test_the_ious_of_the_examples():
    np.testing.assert_allclose(iou(confusion(90, 80))[:2], [90 / 120, 80 / 110])
    np.testing.assert_allclose(iou(confusion(76, 98))[:2], [76 / 102, 98 / 124])


def test_a_model_that_keeps_everything_is_blessed_and_told_why():
    found = verdict(
        min_mean_iou=0.7,
        classes={"road": {"min_iou": 0.7, "max_drop": 0.0}},
        slices={"source:dusk": {"min_mean_iou": 0.5, "max_drop": 0.2}},
    )
    assert found.blessed
    assert found.reasons == (
        "mean IoU 0.7386 is above 0.2500, which always predicting class road, the commonest of the test split, reaches",
        "mean IoU 0.7386 reaches evaluation.min_mean_iou=0.7",
        "-0.0291 against served version 3 (0.7677) keeps evaluation.max_drop=1",
        "class road: IoU 0.7500 reaches evaluation.classes.road.min_iou=0.7",
        "class road: +0.0049 against served version 3 (0.7451) keeps evaluation.classes.road.max_drop=0",
        "slice source:dusk: mean IoU 0.5273 reaches evaluation.slices.source:dusk.min_mean_iou=0.5",
        "slice source:dusk: -0.1371 against served version 3 (0.6643) keeps evaluation.slices.source:dusk.max_drop=0.2",
    )


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"min_mean_iou": 0.75}, "mean IoU 0.7386 is below evaluation.min_mean_iou=0.75"),
        ({"max_drop": 0.01}, "-0.0291 against served version 3 (0.7677) breaks evaluation.max_drop=0.01"),
        (
            {"classes": {"car": ClassThreshold(min_iou=0.8)}},
            "class car: IoU 0.7273 is below evaluation.classes.car.min_iou=0.8",
        ),
        (
            {"classes": {"car": ClassThreshold(max_drop=0.05)}},
            "class car: -0.0630 against served version 3 (0.7903) breaks evaluation.classes.car.max_drop=0.05",
        ),
        (
            {"slices": {"source:dusk": SliceThreshold(min_mean_iou=0.6)}},
            "slice source:dusk: mean IoU 0.5273 is below evaluation.slices.source:dusk.min_mean_iou=0.6",
        ),
        (
            {"classes": {"ghost": ClassThreshold()}},
            "class ghost: no labelled pixel in the test split, so evaluation.classes.ghost cannot be evaluated",
        ),
        (
            {"slices": {"source:dawn": SliceThreshold()}},
            "slice source:dawn: no labelled pixel in the test split, so evaluation.slices.source:dawn cannot be "
            "evaluated",
        ),
    ],
)
def test_one_threshold_that_is_not_kept_refuses_the_model(settings: dict[str, object], reason: str):
    found = verdict(**settings)
    assert not found.blessed
    assert refusals(found) == [reason]


def test_without_a_served_model_the_floors_alone_decide():
    found = verdict(
        served=False,
        max_drop=0.0,
        classes={"car": {"min_iou": 0.7, "max_drop": 0.0}},
        slices={"source:dusk": {"max_drop": 0.0}},
    )
    assert found.blessed
    assert found.reasons[-1] == "no comparable model is served: evaluated by the floors alone"
    assert not any("against" in reason for reason in found.reasons)


def test_a_class_that_is_only_predicted_cannot_be_evaluated_by_an_iou_of_zero():
    matrix = confusion(90, 80)
    matrix[0, 2] = 5
    found = evaluate_thresholds(
        Scores({(): scores(matrix)}, {}),
        [image("a", matrix)],
        EvaluationConfig(classes={"ghost": ClassThreshold(min_iou=0.0)}),
        None,
    )
    assert not found.blessed
    assert "class ghost: no labelled pixel in the test split" in refusals(found)[0]


def degenerate(matrix: list[list[int]], **settings: object) -> Verdict:
    """The verdict on one image alone, where no floor is configured and nothing is served."""
    counted = np.array(matrix)
    config = EvaluationConfig.model_validate(settings)
    return evaluate_thresholds(Scores({(): scores(counted)}, {}), [image("a", counted)], config, None)


#: Of 100 pixels 80 are road, so always predicting road has IoUs of 0.8 and 0.
ROAD_EVERYWHERE = [[80, 0, 0], [20, 0, 0], [0, 0, 0]]


def test_a_model_that_predicts_one_class_alone_is_not_blessed():
    found = degenerate(ROAD_EVERYWHERE)

    assert not found.blessed
    assert refusals(found) == [
        "the model predicts class road for all 100 labelled pixels of the test split: it has not learned to tell "
        "classes apart",
        "mean IoU 0.4000 is not above 0.4000, which always predicting class road, the commonest of the test split, "
        "reaches",
    ]


def test_a_model_that_is_worse_than_a_constant_prediction_is_not_blessed():
    """IoU of road 40/80, of car 20/60: a mean of 0.4167. Always predicting road has 80/100 and 0, and so 0.4."""
    assert degenerate([[40, 40, 0], [0, 20, 0], [0, 0, 0]]).blessed
    found = degenerate([[38, 42, 0], [0, 20, 0], [0, 0, 0]])

    assert not found.blessed
    assert refusals(found) == [
        "mean IoU 0.3988 is not above 0.4000, which always predicting class road, the commonest of the test split, "
        "reaches"
    ]


def test_a_degenerate_model_may_be_allowed_and_a_floor_still_counts():
    allowed = degenerate(ROAD_EVERYWHERE, allow_degenerate=True)
    below = degenerate(ROAD_EVERYWHERE, allow_degenerate=True, min_mean_iou=0.5)

    assert allowed.blessed and not below.blessed
    assert all(reason.endswith("; evaluation.allow_degenerate=true lets this pass") for reason in allowed.reasons[:2])


def test_a_split_of_void_is_refused_and_has_no_intervals():
    nothing = np.zeros((3, 3), int)
    found = evaluate_thresholds(Scores({(): scores(nothing)}, {}), [image("a", nothing)], EvaluationConfig(), None)
    assert not found.blessed
    assert found.intervals is None


def test_one_labelled_image_beside_one_of_void_has_no_intervals():
    matrix = confusion(90, 80)
    images = [image("a", matrix), image("b", np.zeros_like(matrix))]
    assert evaluate_thresholds(Scores({(): scores(matrix)}, {}), images, EvaluationConfig(), None).intervals is None


def test_the_verdict_holds_paired_intervals_of_the_images():
    images = [image(str(n), confusion(90 - n, 80 + n), confusion(80 - n, 70 + n)) for n in range(10)]
    found = evaluate_thresholds(Scores(CANDIDATE, SERVED), images, EvaluationConfig(), 3).intervals
    assert found is not None and found.baseline is not None and found.change is not None
    assert found.candidate[0] < mean_iou(sum(confusion(90 - n, 80 + n) for n in range(10))) < found.candidate[1]
    assert 0 < found.change[0] < found.change[1]
    # What both models find hard cancels out in the difference.
    without = [replace(image, baseline=None) for image in images]
    alone = evaluate_thresholds(Scores(CANDIDATE, {}), without, EvaluationConfig(), None)
    assert alone.intervals is not None
    assert alone.intervals.candidate == found.candidate
    assert alone.intervals.change is None


def test_a_verdict_survives_its_json():
    found = verdict()
    assert Verdict.model_validate_json(found.model_dump_json()) == found
