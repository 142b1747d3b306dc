"""Recognising a layout."""

import pytest

from data.errors import DataError
from data.layouts import LAYOUTS, detect_layout, open_layout

REAL = {
    "layouts/voc": "voc",
    "layouts/voc/VOCdevkit/VOC2011": "voc",
    "camvid": "camvid",
    "layouts/cityscapes": "cityscapes",
    "layouts/ade20k": "ade20k",
    "layouts/coco_polygons": "coco",
    "layouts/coco_panoptic": "coco_panoptic",
    "layouts/labelme_json": "labelme",
}


@pytest.mark.parametrize(("folder", "name"), REAL.items())
def test_real_datasets_are_recognised(folder, name, test_data, files):
    assert detect_layout(str(test_data / folder), files).name == name


def test_an_unknown_folder_ends_with_the_known_layouts(files, tmp_path, write_text):
    write_text("pictures.json", "[]")
    with pytest.raises(
        DataError, match="looks like none of voc, camvid, cityscapes, .*coco.* no images: no file below"
    ):
        open_layout("auto", str(tmp_path), files)


def test_a_missing_folder_is_named(files, tmp_path):
    for name in ("auto", "voc"):
        with pytest.raises(DataError, match="dataset missing: no folder .*absent"):
            open_layout(name, str(tmp_path / "absent"), files)


def test_an_unknown_name_ends_with_the_allowed_ones(files, tmp_path):
    with pytest.raises(DataError, match="unknown layout 'vox'; allowed: auto, voc, camvid"):
        open_layout("vox", str(tmp_path), files)


def test_layouts_are_registered_under_their_names():
    assert all(layout.name == name for name, layout in LAYOUTS.items())


@pytest.mark.parametrize(
    ("pattern", "key", "group"),
    [
        (None, "a/b_1.png", "a/b_1.png"),
        (r"^[^/]+", "a/b_1.png", "a"),
        (r"([a-z]+)_\d", "a/b_1.png", "b"),
        (r"x(y)?", "a/x.png", "a/x.png"),
        (r"nothing", "a/b_1.png", "a/b_1.png"),
    ],
)
def test_a_pattern_groups_images(pattern, key, group, files, tmp_path):
    assert open_layout("folder", str(tmp_path), files, pattern).group_of(key) == group
