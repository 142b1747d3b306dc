"""Roboflow's semantic masks."""

import numpy as np
import pytest

from data.errors import DataError
from data.layouts import open_layout
from data.layouts.base import BadEntry

CLASSES = "Pixel Value, Class\n0, background\n1, red light\n2, green\n"


@pytest.fixture
def roboflow(tmp_path, write_text, write_image, files):
    for split in ("train", "valid"):
        write_image(f"{split}/a_jpg.rf.0a1b.jpg", np.zeros((2, 3), np.uint8))
        write_image(f"{split}/a_jpg.rf.0a1b_mask.png", np.array([[1, 0, 0], [0, 0, 2]], np.uint8))
        write_text(f"{split}/_classes.csv", CLASSES)
    return open_layout("auto", str(tmp_path), files)


def test_masks_lie_beside_the_images(roboflow, drawn):
    assert roboflow.splits() == ("train", "val")
    assert drawn("roboflow", "val") == {"valid/a_jpg.rf.0a1b.jpg": ["r..", "..g"]}
    assert [(label.name, label.values) for label in roboflow.label_map().classes] == [
        ("background", (0,)),
        ("red light", (1,)),
        ("green", (2,)),
    ]


def test_images_and_masks_that_are_alone_are_quarantined(roboflow, write_image, tmp_path):
    write_image("train/b.jpg")
    write_image("train/c_mask.png")
    entries = {getattr(entry, "key", None) or entry.path: entry for entry in roboflow.samples("train")}
    assert entries["train/b.jpg"].mask is None
    assert isinstance(entries["train/c_mask.png"], BadEntry)
    assert "image missing: no image is called c" in entries["train/c_mask.png"].reason


def test_classes_that_differ_or_are_malformed_are_named(roboflow, write_text):
    write_text("valid/_classes.csv", CLASSES + "3, blue\n")
    with pytest.raises(DataError, match=r"classes differ: valid/_classes.csv states others than train/_classes.csv"):
        roboflow.label_map()
    write_text("train/_classes.csv", "Pixel Value, Class\n0, background\nx, red\n")
    with pytest.raises(DataError, match=r"malformed classes: train/_classes.csv:3: 'x, red'"):
        roboflow.label_map()


def test_the_classes_of_images_are_another_export(tmp_path, write_text, write_image, files):
    write_text("train/_classes.csv", "filename, red, green\na.jpg, 1, 0\n")
    with pytest.raises(DataError, match="unknown layout"):
        open_layout("auto", str(tmp_path), files)
