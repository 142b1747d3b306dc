"""Folders of images and masks."""

import os

import pytest

from data.layouts import open_layout
from data.layouts.base import BadEntry, Sample


def test_images_and_masks_are_matched_by_stem(tmp_path, write_image, files):
    for name in ("a.jpg", "b.PNG", "c.1.bmp", "lonely.jpg"):
        write_image(f"images/{name}")
    for name in ("a.png", "b.png", "c.1.tif"):
        write_image(f"masks/{name}")
    layout = open_layout("auto", str(tmp_path), files)
    assert layout.name == "folder" and layout.splits() == ()
    entries = list(layout.samples(None))
    masks = {sample.key: sample.mask.path for sample in entries if isinstance(sample, Sample)}
    assert masks == {
        "images/a.jpg": str(tmp_path / "masks/a.png"),
        "images/b.PNG": str(tmp_path / "masks/b.png"),
        "images/c.1.bmp": str(tmp_path / "masks/c.1.tif"),
    }
    (bad,) = (entry for entry in entries if isinstance(entry, BadEntry))
    assert bad.path == "images/lonely.jpg" and bad.reason.startswith("mask missing: no masks/lonely.png")


def test_what_is_no_pair_is_quarantined(tmp_path, write_image, write_text, files):
    write_image("images/a.jpg")
    write_image("masks/a.png")
    write_image("masks/lonely.png")
    write_image("masks/lossy.jpg")
    write_text("images/notes.txt", "")
    write_text("images/drawing.svg", "")
    write_text("images/.hidden", "")
    write_text("masks/Thumbs.db", "")
    entries = list(open_layout("auto", str(tmp_path), files).samples(None))
    reasons = {entry.path: entry.reason for entry in entries if isinstance(entry, BadEntry)}
    assert len(entries) == 4
    assert reasons["masks/lonely.png"].startswith("image missing: no images/lonely.jpg")
    assert reasons["masks/lossy.jpg"].startswith("no mask: it does not fit data.masks=masks/{stem}.png")
    assert reasons["images/drawing.svg"].startswith("no image: it does not fit data.images=images/{stem}.jpg")


def test_a_name_that_is_not_utf8_is_quarantined(tmp_path, write_image, files):
    path = write_image("images/a.jpg")
    for name in ("images/b.jpg", "masks/a.png", "masks/b.png"):
        write_image(name)
    os.rename(os.fsencode(path), os.fsencode(path.parent) + b"/\xff.jpg")
    entries = open_layout("auto", str(tmp_path), files).samples(None)
    reasons = {entry.path: entry.reason for entry in entries if isinstance(entry, BadEntry)}
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


def test_a_near_miss_is_named(tmp_path, write_image, files):
    for name in ("images/1.jpg", "images/2.jpg", "masks/1.png", "masks/2_mask.png"):
        write_image(name)
    entries = open_layout("folder", str(tmp_path), files, None, "images/{stem}.jpg", "masks/{stem}.png").samples(None)
    reasons = {entry.path: entry.reason for entry in entries if isinstance(entry, BadEntry)}
    assert "no masks/2.png; masks holds 2_mask.png" in reasons["images/2.jpg"]
    assert "no images/2_mask.jpg" in reasons["masks/2_mask.png"]


def test_a_split_without_masks_is_left_out_and_said(tmp_path, write_image, files):
    for name in ("train/image/1.png", "train/label/1.png", "test/image/1.png", "scan.png"):
        write_image(name)
    layout = open_layout("auto", str(tmp_path), files)
    assert layout.splits() == ("train",)
    remarks = " ".join(layout.remarks())
    assert "Split test has no masks at all" in remarks and "left out: 1, such as scan.png" in remarks


def test_an_empty_or_half_copied_split_is_one_all_the_same(tmp_path, write_image, files):
    for name in ("images/train/1.png", "images/test/3.png", "masks/test/3.png"):
        write_image(name)
    for folder in ("masks/train", "images/val", "masks/val"):
        (tmp_path / folder).mkdir(parents=True)
    layout = open_layout("auto", str(tmp_path), files)
    assert layout.splits() == ("train", "val", "test")
    (bad,) = layout.samples("train")
    assert isinstance(bad, BadEntry) and bad.reason.startswith("mask missing: no masks/train/1.png")
    assert list(layout.samples("val")) == []


def test_masks_in_one_folder_serve_images_in_splits(tmp_path, write_image, files):
    for name in ("photos/train/1.jpg", "photos/val/2.jpg", "gt/1.png", "gt/2.png", "gt/3.png"):
        write_image(name)
    layout = open_layout("auto", str(tmp_path), files)
    assert layout.patterns == ("photos/{split}/{stem}.jpg", "gt/{stem}.png") and layout.splits() == ("train", "val")
    entries = [entry for split in layout.splits() for entry in layout.samples(split)]
    assert [entry.mask.path for entry in entries if isinstance(entry, Sample)] == [
        str(tmp_path / "gt/1.png"),
        str(tmp_path / "gt/2.png"),
    ]
    assert [entry.path for entry in entries if isinstance(entry, BadEntry)] == ["gt/3.png"]


def test_masks_need_a_label_map_from_a_person(tmp_path, files):
    assert open_layout("folder", str(tmp_path), files).label_map() is None
