"""PASCAL VOC."""

import numpy as np
import pytest

from data.errors import DataError
from data.files import LocalFiles
from data.layouts import LAYOUTS, open_layout
from data.layouts.base import BadEntry, MaskFile, Sample
from data.masks import palette


@pytest.fixture
def voc(tmp_path, write_image, write_text, files):
    for name in ("a", "b"):
        write_image(f"JPEGImages/{name}.jpg")
        write_image(f"SegmentationClass/{name}.png")
    write_text("ImageSets/Segmentation/train.txt", "a\n\nb \n")
    return open_layout("auto", str(tmp_path), files)


def test_lists_name_the_images(voc, tmp_path):
    assert voc.splits() == ("train",)
    first, second = voc.samples("train")
    mask = MaskFile(str(tmp_path / "SegmentationClass/a.png"))
    key = "JPEGImages/a.jpg"
    assert first == Sample(key, str(tmp_path / key), mask, split="train", source="all", group=key)
    assert second.key == "JPEGImages/b.jpg"


def test_bad_lines_are_quarantined_and_the_rest_is_read(voc, write_text):
    write_text("ImageSets/Segmentation/train.txt", "../../etc/passwd\na b\n/etc/passwd\nabsent\na\n")
    escaping, malformed, absolute, absent, good = voc.samples("train")
    assert isinstance(escaping, BadEntry) and "leaves the dataset's folder" in escaping.reason
    assert isinstance(malformed, BadEntry) and "malformed line: 'a b'" in malformed.reason
    # What begins with '/' is read below JPEGImages like any other name.
    assert absolute.image == f"{voc.root}/JPEGImages/etc/passwd.jpg"
    assert absent.key == "JPEGImages/absent.jpg"
    assert isinstance(good, Sample) and good.key == "JPEGImages/a.jpg"


def test_photos_may_be_png(voc, write_image, write_text):
    write_image("JPEGImages/c.png")
    write_text("ImageSets/Segmentation/train.txt", "c\n")
    assert next(voc.samples("train")).key == "JPEGImages/c.png"


def test_a_test_list_without_masks_is_no_split(voc, write_text, write_image):
    write_text("ImageSets/Segmentation/test.txt", "x\ny\n")
    assert voc.splits() == ("train",)
    write_image("SegmentationClass/y.png")
    assert voc.splits() == ("train", "test")


def test_names_may_have_spaces_where_they_are_quoted_or_not_in_a_list(voc, write_text, write_image, tmp_path):
    write_image("JPEGImages/c d.jpg")
    write_image("SegmentationClass/c d.png")
    write_text("ImageSets/Segmentation/train.txt", '"c d"\n')
    assert [sample.key for sample in voc.samples("train")] == ["JPEGImages/c d.jpg"]
    assert sorted(sample.key for sample in voc.samples(None))[2] == "JPEGImages/c d.jpg"


def test_without_lists_every_mask_is_a_sample(voc, tmp_path, write_image):
    write_image("JPEGImages/unlabelled.jpg")
    (tmp_path / "ImageSets/Segmentation/train.txt").unlink()
    assert voc.splits() == ()
    assert sorted(sample.key for sample in voc.samples(None)) == ["JPEGImages/a.jpg", "JPEGImages/b.jpg"]


def test_labels_txt_names_the_classes(voc, write_text):
    write_text("labels.txt", "ground\nrock\n")
    assert voc.label_map().names == ("ground", "rock")
    assert [label.values for label in voc.label_map().classes] == [(0,), (1,)]
    assert voc.label_map().ignore_values == (255,)
    write_text("labels.txt", "rock\nrock\n")
    with pytest.raises(DataError, match=r"invalid label map: .*labels.txt: .*'rock' occurs 2 times"):
        voc.label_map()


def test_names_of_voc_are_those_of_its_masks_alone(voc, write_image):
    """A dataset of rocks in VOC's folders holds no bicycles."""
    published = [channel for color in palette(256) for channel in color]
    write_image("SegmentationClass/a.png", 2, published)
    write_image("SegmentationClass/b.png", 255, published)
    assert voc.label_map().names[2] == "bicycle"
    write_image("SegmentationClass/b.png", 21, published)
    assert voc.label_map() is None
    write_image("SegmentationClass/b.png", 2, [9, 9, 9] * 256)
    assert voc.label_map() is None
    write_image("SegmentationClass/b.png", 2)
    assert voc.label_map() is None


def test_masks_of_voc_without_a_palette_are_known_by_their_names(tmp_path, write_image, files):
    for name in ("2007_000032", "000007"):
        write_image(f"JPEGImages/{name}.jpg")
        write_image(f"SegmentationClass/{name}.png")
    assert open_layout("voc", str(tmp_path), files).label_map().names[20] == "tvmonitor"


def test_labelme2voc_names_the_classes(voc, write_text):
    write_text("class_names.txt", "_background_\nrock\n")
    assert voc.label_map().names == ("_background_", "rock")


def test_several_devkits_are_named(tmp_path, files):
    for year in ("VOC2007", "VOC2012"):
        for folder in ("JPEGImages", "SegmentationClass"):
            (tmp_path / "VOCdevkit" / year / folder).mkdir(parents=True)
    with pytest.raises(DataError, match="exactly one VOC folder; found: VOCdevkit/VOC2007/, VOCdevkit/VOC2012/"):
        open_layout("auto", str(tmp_path), files).splits()


def test_cvats_labelmap_states_the_colours(tmp_path, write_image, write_text, drawn):
    mask = np.zeros((2, 3, 3), np.uint8)
    mask[0, 0], mask[1, 2], mask[1, 0] = (200, 30, 60), (20, 160, 220), (224, 224, 192)
    for name in ("a.jpg", "b.jpeg", "c.png"):
        write_image(f"JPEGImages/{name}", np.zeros((2, 3), np.uint8))
        write_image(f"SegmentationClass/{name[0]}.png", mask)
    labels = ["# label:color_rgb:parts:actions", "background:0,0,0::", "red:200,30,60::", "green:20,160,220::"]
    write_text("labelmap.txt", "\n".join([*labels, "ignored:224,224,192::"]))
    write_text("ImageSets/Segmentation/default.txt", "a\nb\n")
    found = drawn("voc")
    assert found["JPEGImages/a.jpg"] == found["JPEGImages/b.jpeg"] == ["r..", "?.g"]
    write_text("ImageSets/Segmentation/Train.txt", "a\n")
    write_text("ImageSets/Segmentation/Validation.txt", "b\n")
    assert LAYOUTS["voc"](str(tmp_path), LocalFiles()).splits() == ("train", "val")


@pytest.mark.parametrize("line", ["red:1,2::", "red", "red:1,2,x::", "red:1,2,3456::"])
def test_a_label_without_a_colour_is_named(voc, write_text, line):
    write_text("labelmap.txt", f"background:0,0,0::\n{line}\n")
    with pytest.raises(DataError, match=r"malformed colour: labelmap.txt:2: 'red' needs red, green and blue"):
        voc.label_map()


def test_a_colour_is_of_one_label(voc, write_text):
    write_text("labelmap.txt", "red:1,2,3::\ngreen:1,2,3::\n")
    with pytest.raises(DataError, match=r"invalid label map: .*labelmap.txt: .*colour \(1, 2, 3\) occurs 2 times"):
        voc.label_map()
