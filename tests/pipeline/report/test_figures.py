"""Which images are shown, and what the image of their errors shows without its colours."""

import math
from pathlib import Path

import numpy as np
import pytest

from components.evaluation.results import ImageResult, ImageScore
from data.features import IGNORE_LABEL
from pipeline.records.executions import StageRecord
from pipeline.report.figures import (
    DOT_COLOR,
    FIGURE_SIDE,
    STRIPES,
    choose,
    error_image,
    make_gallery,
    most_frequent_confusion,
    read_labelled,
)
from tests.pipeline.report.hand_made import LABELS, LEFT, RED


def result(score: float) -> ImageResult:
    return ImageResult(str(score), 1, 1, (), ImageScore(score, np.zeros((0, 3), np.int64)), None)


def test_worst_and_typical_images_are_chosen_by_iou_from_all_that_have_one():
    chosen = choose([result(score) for score in (0.9, 0.1, math.nan, 0.5, 0.52, 0.2, 1.0, 0.48)], 2)
    assert [image.candidate.mean_iou for image in chosen.worst] == [0.1, 0.2]
    assert [image.candidate.mean_iou for image in chosen.typical] == [0.48, 0.5]  # 0.52 is as near, but later
    assert chosen.evaluated == 7


def test_nothing_is_chosen_where_all_is_void():
    assert choose([result(math.nan)], 2) == ([], [], 0)


def test_the_most_frequent_confusion_is_put_in_words():
    score = ImageScore(0.5, np.array([[0, 0, 9], [0, 1, 2], [1, 0, 3]]))
    assert most_frequent_confusion(score, ["sky", "road"]) == "road taken for sky"
    assert most_frequent_confusion(ImageScore(1.0, np.array([[0, 0, 9]])), ["sky"]) == ""


def test_right_wrong_and_void_differ_by_pattern_as_well_as_by_colour():
    image = np.full((24, 24, 3), 80, np.uint8)
    label, prediction = np.zeros((24, 24), np.uint8), np.zeros((24, 24), np.uint8)
    prediction[:, 8:16] = 1
    label[:, 16:] = IGNORE_LABEL
    right, wrong, void = np.split(error_image(image, label, prediction), 3, axis=1)
    assert len(np.unique(right.reshape(-1, 3), axis=0)) == 1
    assert {tuple(color) for color in wrong.reshape(-1, 3).tolist()} == set(STRIPES)
    assert 0.05 < np.all(void == DOT_COLOR, axis=-1).mean() < 0.3
    gray = [region.mean(axis=-1) for region in (right, wrong, void)]
    assert gray[0].min() > gray[1].max(), "apart in gray, too"
    assert gray[1].std() > 30 and gray[2].std() > 30


def test_an_error_image_is_as_large_as_those_beside_it():
    large = np.zeros((1000, 500), np.uint8)
    assert error_image(np.zeros((1000, 500, 3), np.uint8), large, large).shape == (FIGURE_SIDE, FIGURE_SIDE // 2, 3)


def test_images_are_found_anywhere_in_the_test_split(stages: dict[str, StageRecord]):
    found = read_labelled(stages, {"corner.png", "good.png", "gone.png"})
    assert set(found) == {"corner.png", "good.png"}
    np.testing.assert_array_equal(found["good.png"].label, LABELS["good.png"])
    np.testing.assert_array_equal(found["good.png"].image[:, :, 0], RED)


def test_only_images_that_are_shown_are_predicted(stages: dict[str, StageRecord], monkeypatch: pytest.MonkeyPatch):
    asked: list[int] = []

    class Counting:
        label_map = type("Labels", (), {"names": ("sky", "road", "deck")})

        def predict(self, images: list[bytes]) -> list[tuple[np.ndarray, float]]:
            asked.extend(map(len, images))
            return [(LEFT, 1.0) for _ in images]

    monkeypatch.setattr("pipeline.report.figures.FIGURES_EACH", 1)
    monkeypatch.setattr("pipeline.report.figures.load_model", lambda stages: Counting())
    gallery = make_gallery(stages)
    assert gallery is not None
    assert (len(gallery.worst), len(gallery.typical), gallery.evaluated, len(asked)) == (1, 1, 3, 2)


def test_there_is_no_gallery_of_images_deleted_since(stages: dict[str, StageRecord], tmp_path: Path):
    (tmp_path / "examples" / "Split-test" / "examples-00000.gz").unlink()
    assert make_gallery(stages) is None
