"""Cityscapes."""

import pytest

from data.layouts import open_layout

NAME = "bonn_000001_000019"


@pytest.fixture
def cityscapes(tmp_path, write_image, files):
    for split in ("train", "test"):
        write_image(f"leftImg8bit/{split}/bonn/{NAME}_leftImg8bit.png")
        write_image(f"gtFine/{split}/bonn/{NAME}_gtFine_labelIds.png", 7)
        write_image(f"gtFine/{split}/bonn/{NAME}_gtFine_color.png")
    return open_layout("auto", str(tmp_path), files)


def test_the_dummy_test_split_is_left_out(cityscapes):
    assert cityscapes.splits() == ("train",)


def test_city_and_sequence(cityscapes):
    (sample,) = cityscapes.samples("train")
    assert sample.key == f"leftImg8bit/train/bonn/{NAME}_leftImg8bit.png"
    assert (sample.source, sample.group) == ("bonn", "bonn_000001")
    assert sample.mask.path.endswith(f"gtFine/train/bonn/{NAME}_gtFine_labelIds.png")


def test_the_label_map_has_every_label_id_once(cityscapes):
    label_map = cityscapes.label_map()
    values = [value for label in label_map.classes for value in label.values] + list(label_map.ignore_values)
    assert label_map.num_classes == 19
    assert sorted(values) == list(range(34))
