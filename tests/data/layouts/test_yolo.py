"""YOLO's segmentation."""

import numpy as np
import pytest

from data.errors import DataError
from data.layouts import open_layout
from data.layouts.base import BadEntry

YAML = "path: ../datasets/fruit\ntrain: images/train\nval: images/val\ntest: # optional\nnames:\n  0: red\n  1: green\n"
LARGE = "0 0 0 0.6 0 0.6 1 0 1"
SMALL = "1 0.1 0.2 0.3 0.2 0.3 0.6 0.1 0.6"


@pytest.fixture
def yolo(tmp_path, write_text, write_image, files):
    def make(text: str = f"{SMALL}\n{LARGE}\n", yaml: str = YAML, folder: str = "{}/train"):
        write_text("data.yaml", yaml)
        write_image(f"{folder.format('images')}/a.jpg", np.zeros((5, 10), np.uint8))
        write_text(f"{folder.format('labels')}/a.txt", text)
        return open_layout("auto", str(tmp_path), files)

    return make


DRAWN = ["rrrrrr....", "rggrrr....", "rggrrr....", "rrrrrr....", "rrrrrr...."]


def test_smaller_polygons_are_drawn_over_larger_ones(yolo, drawn):
    assert yolo().splits() == ("train",)
    assert drawn("yolo", "train") == {"images/train/a.jpg": DRAWN}


def test_roboflows_paths_and_a_list_of_names(yolo, drawn):
    yolo(yaml="train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['red', 'green']\n", folder="train/{}")
    assert drawn("yolo", "train") == {"train/images/a.jpg": DRAWN}


@pytest.mark.parametrize(("folder", "split"), [("images/train", "train"), ("images", None)])
def test_usual_folders_where_no_split_is_stated(yolo, drawn, write_text, tmp_path, folder, split):
    yolo(yaml="nc: 2\nnames: [red, green]\n", folder=folder.replace("images", "{}"))
    assert drawn("yolo", split) == {f"{folder}/a.jpg": DRAWN}
    (tmp_path / "data.yaml").unlink()
    write_text("classes.txt", "red\ngreen\n")
    assert drawn("yolo", split) == {f"{folder}/a.jpg": DRAWN}


def test_a_list_of_images(yolo, drawn, write_text):
    write_text("train.txt", "./images/train/a.jpg\n../outside.jpg\n")
    layout = yolo(yaml=YAML.replace("images/train", "train.txt"))
    good, bad = layout.samples("train")
    assert good.key == "images/train/a.jpg"
    assert "path outside the dataset" in bad.reason


def test_an_image_without_a_text_file_has_no_object_but_the_folder_must_be_there(yolo, write_image, tmp_path):
    write_image("images/train/b.jpg")
    write_image("images/val/c.jpg")
    layout = yolo()
    assert {sample.key[-5]: len(sample.mask.shapes) for sample in layout.samples("train")} == {"a": 2, "b": 0}
    (sample,) = layout.samples("val")
    assert sample.mask is None


def test_a_text_file_without_an_image_is_quarantined(yolo, write_text):
    write_text("labels/train/z.txt", LARGE)
    _, entry = yolo().samples("train")
    assert entry.path == "labels/train/z.txt" and "no image is called z" in entry.reason


def test_masks_of_class_ids(yolo, write_image, drawn):
    yolo(yaml=YAML + "masks_dir: masks\n")
    write_image("masks/train/a.png", np.repeat(np.array([[0], [1], [255], [0], [1]], np.uint8), 10, axis=1))
    assert drawn("yolo", "train")["images/train/a.jpg"] == [letter * 10 for letter in "rg?rg"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0 0.5 0.5 0.2 0.2", "labels/train/a.txt:1: a box is not enough"),
        (f"{LARGE}\n0 0.1 0.2 0.3 0.4 0.5", "labels/train/a.txt:2: 5 coordinates are no polygon"),
        ("red 0 0 1 0 1 1", "'red 0 0 1 0 1 1'; expected a class id and x, y"),
    ],
)
def test_a_bad_line_quarantines_its_image(yolo, text, reason):
    (entry,) = yolo(text).samples("train")
    assert isinstance(entry, BadEntry) and entry.path == "images/train/a.jpg"
    assert reason in entry.reason


@pytest.mark.parametrize(
    ("yaml", "reason"),
    [
        ("train: images/train\nnames: {a: 1\n", "invalid YAML: .*data.yaml"),
        ("train: images/train\nnames: !!python/object/apply:os.getcwd []\n", "invalid YAML: .*data.yaml"),
        ("train: images/train\nnames: red\n", "'names' must be a list or a mapping"),
        ("train: /etc\nval: ../../x\nnames: [red]\n", "images missing: .*names folders that are not in it"),
    ],
)
def test_a_bad_yaml_file_is_named(yolo, yaml, reason):
    with pytest.raises(DataError, match=reason):
        yolo(yaml=yaml).splits()
