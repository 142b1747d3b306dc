"""Folders of images and masks."""

import os

import pytest

from data.layouts import open_layout
from data.layouts.base import BadEntry


def test_images_and_masks_are_matched_by_stem(tmp_path, write_image, files):
    for name in ("a.jpg", "b.PNG", "c.1.bmp", "lonely.jpg"):
        write_image(f"images/{name}")
    for name in ("a.png", "b.png", "c.1.tif"):
        write_image(f"masks/{name}")
    layout = open_layout("auto", str(tmp_path), files)
    assert layout.name == "folder" and layout.splits() == ()
    masks = {sample.key: sample.mask and sample.mask.path for sample in layout.samples(None)}
    assert masks == {
        "images/a.jpg": str(tmp_path / "masks/a.png"),
        "images/b.PNG": str(tmp_path / "masks/b.png"),
        "images/c.1.bmp": str(tmp_path / "masks/c.1.tif"),
        "images/lonely.jpg": None,
    }


def test_what_is_no_pair_is_quarantined(tmp_path, write_image, write_text, files):
    write_image("images/a.jpg")
    write_image("masks/a.png")
    write_image("masks/lonely.png")
    write_image("masks/lossy.jpg")
    write_text("images/notes.txt", "")
    write_text("images/.hidden", "")
    write_text("masks/Thumbs.db", "")
    entries = list(open_layout("auto", str(tmp_path), files).samples(None))
    reasons = {entry.path: entry.reason for entry in entries if isinstance(entry, BadEntry)}
    assert len(entries) == 4
    assert reasons["masks/lonely.png"].startswith("image missing: no images/lonely with .jpg")
    assert reasons["masks/lossy.jpg"].startswith("no mask: a mask's name must end with one of .png")
    assert reasons["images/notes.txt"].startswith("no image: ")


def test_a_name_that_is_not_utf8_is_quarantined(tmp_path, write_image, files):
    path = write_image("images/a.jpg")
    write_image("masks/a.png")
    os.rename(os.fsencode(path), os.fsencode(path.parent) + b"/\xff.jpg")
    reasons = {entry.path: entry.reason for entry in open_layout("auto", str(tmp_path), files).samples(None)}
    assert reasons["images/\\udcff.jpg"].startswith("invalid path")


@pytest.mark.parametrize("pattern", ["images/{0}/{1}.jpg masks/{0}/{1}.png", "{0}/images/{1}.jpg {0}/masks/{1}.png"])
def test_splits_are_subfolders_on_either_side(pattern, tmp_path, write_image, files):
    for split in ("train", "valid"):
        for path in pattern.format(split, split).split():
            write_image(path)
    layout = open_layout("auto", str(tmp_path), files)
    assert layout.splits() == ("train", "val")
    (sample,) = layout.samples("val")
    assert sample.split == "val"
    assert sample.key == pattern.split()[0].format("valid", "valid")
    assert sample.mask.path == str(tmp_path / pattern.split()[1].format("valid", "valid"))


def test_masks_need_a_label_map_from_a_person(tmp_path, files):
    assert open_layout("folder", str(tmp_path), files).label_map() is None
