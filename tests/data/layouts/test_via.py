"""VGG Image Annotator."""

import json
from typing import Any

import numpy as np
import pytest

from data.errors import DataError
from data.layouts import open_layout
from data.layouts.base import BadEntry

POLYGON = {"name": "polygon", "all_points_x": [1, 4, 4, 1], "all_points_y": [1, 1, 3, 3]}


def region(outline: dict[str, Any], **attributes: Any) -> dict[str, Any]:
    return {"shape_attributes": outline, "region_attributes": attributes or {"fruit": "red"}}


def entry(name: str, *regions: dict[str, Any]) -> dict[str, Any]:
    return {"filename": name, "size": 123, "regions": list(regions), "file_attributes": {}}


@pytest.fixture
def via(tmp_path, write_text, write_image, files):
    def make(*entries: dict[str, Any], project: dict[str, Any] | None = None, path: str = "via_region_data.json"):
        images = {f"{one.get('filename')}{one['size']}": one for one in entries}
        write_text(path, json.dumps(images if project is None else {**project, "_via_img_metadata": images}))
        return open_layout("via", str(tmp_path), files)

    for name in ("a.jpg", "b.jpg"):
        write_image(name, np.zeros((5, 10), np.uint8))
    return make


def test_outlines_are_drawn_over_the_background(via, drawn):
    rectangle = {"name": "rect", "x": 6, "y": 0, "width": 2, "height": 2}
    circle = {"name": "circle", "cx": 8, "cy": 3, "r": 1}
    ellipse = {"name": "ellipse", "cx": 2, "cy": 2.5, "rx": 2.4, "ry": 1.1, "theta": 1.5707963}
    via(
        entry("a.jpg", region(POLYGON), region(rectangle, fruit="green"), region(circle)),
        entry("b.jpg", region(ellipse)),
    )
    assert drawn("via") == {
        "a.jpg": ["......gg..", ".rrrr.gg..", ".rrrr...r.", ".rrrr..rrr", "........r."],
        "b.jpg": [".rr.......", ".rr.......", ".rr.......", ".rr.......", ".rr......."],
    }


def test_a_project_lists_the_classes_and_version_1_numbers_the_regions(via, drawn):
    attributes = {"region": {"fruit": {"type": "dropdown", "options": {"green": "", "red": ""}}}, "file": {}}
    one = {**entry("a.jpg"), "regions": {"0": region(POLYGON)}}
    layout = via(one, project={"_via_settings": {}, "_via_attributes": attributes}, path="via_project_1May2024.json")
    assert layout.label_map().names == ("background", "green", "red")
    assert drawn("via")["a.jpg"][1] == ".rrrr....."


def test_the_class_is_the_only_attribute_or_the_one_called_so(via):
    layout = via(entry("a.jpg", region(POLYGON, Class="red", occluded="no")))
    assert layout.label_map().names == ("background", "red")
    layout = via(entry("a.jpg", region(POLYGON, fruit={"red": True, "green": False})))
    assert layout.label_map().names == ("background", "red")
    with pytest.raises(DataError, match=r"ambiguous class: the regions of via_region_data.json .* fruit, occluded"):
        via(entry("a.jpg", region(POLYGON, fruit="red", occluded="no"))).label_map()


def test_files_in_the_folders_of_splits(via, write_image):
    for split in ("train", "val"):
        write_image(f"{split}/{split}.jpg")
        layout = via(entry(f"{split}.jpg"), path=f"{split}/via_region_data.json")
    assert layout.splits() == ("train", "val")
    assert [sample.key for sample in layout.samples("val")] == ["val/val.jpg"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (region({"name": "point", "cx": 1, "cy": 1}), "unsupported shape: point; allowed: polygon, rect"),
        (region(POLYGON, fruit=""), "a region needs one class in 'fruit', not ''"),
        (region({**POLYGON, "all_points_x": [1]}), "a polygon has 1 x and 4 y"),
        (region({**POLYGON, "all_points_x": "abc"}), "expected a list of numbers, not 'abc'"),
        (region({"name": "circle", "cx": 1, "cy": 1}), r"expected a list of numbers, not [1, 1, None]"),
        ({"region_attributes": {"fruit": "red"}}, "'shape_attributes' must be of type dict"),
        (7, "'region_attributes' must be of type dict"),
    ],
)
def test_a_bad_region_quarantines_its_image(via, bad, reason):
    first, second = via(entry("a.jpg", region(POLYGON), bad), entry("b.jpg")).samples(None)
    assert isinstance(first, BadEntry) and first.annotations == 2
    assert reason in first.reason
    assert second.key == "b.jpg"
