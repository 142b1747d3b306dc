"""Statistics of the splits, worked by hand on three images."""

from pathlib import Path

import pytest

from pipeline.report.statistics import read_statistics
from tests.pipeline.report.hand_made import EVIL, NAMES, SPLITS, write_statistics


def test_each_split_has_its_sizes_void_and_classes(tmp_path: Path):
    train, test = read_statistics(write_statistics(tmp_path / "statistics", SPLITS), NAMES)
    assert (train.name, train.images, train.void) == ("train", 3, 0.25)
    assert train.spreads == {"width": "64", "height": "48 / 72 / 96", "brightness": "0.25", "contrast": "0.12"}
    assert train.class_shares == pytest.approx({"sky": 7 / 8, EVIL: 1 / 8, "void deck": 0})
    assert train.class_images == {"sky": 2, EVIL: 1, "void deck": 0}
    assert (test.images, test.class_images["sky"], test.class_shares[EVIL]) == (1, 0, 1.0)
