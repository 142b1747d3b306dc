"""Label Studio's JSON export."""

import json
from typing import Any

import numpy as np
import pytest

from data.errors import DataError
from data.layouts import open_layout
from data.layouts.base import BadEntry

SIZE = (5, 10)
CORNERS = [[10, 20], [50, 20], [50, 80], [10, 80]]


def result(kind: str, label: str = "red", **value: Any) -> dict[str, Any]:
    value = {**value, kind: [label]}
    size = {"original_width": SIZE[1], "original_height": SIZE[0], "image_rotation": 0}
    return {**size, "id": f"{kind}{label}", "value": value, "from_name": "label", "to_name": "image", "type": kind}


def task(*results: dict[str, Any], name: str = "0a1b2c3d-a.jpg", **fields: Any) -> dict[str, Any]:
    annotations = [{"id": 1, "completed_by": 1, "result": list(results), "was_cancelled": False, "ground_truth": False}]
    data = {"image": f"/data/upload/1/{name}"}
    return {"id": 1, "annotations": annotations, "file_upload": name, "data": data, "meta": {}, **fields}


def packed(mask: np.ndarray) -> list[int]:
    """A brush as Label Studio packs it: RGBA of the whole image, each value on its own or repeated."""
    values = np.repeat(mask.ravel(), 4) * 255
    bits = f"{values.size:032b}{7:05b}" + "".join(f"{width - 1:04b}" for width in (3, 4, 8, 16))
    position = 0
    while position < values.size:
        end = position + 1
        while end < values.size and values[end] == values[position]:
            end += 1
        if end - position == 4:
            bits += f"0{0:02b}{3:03b}" + f"{values[position]:08b}" * 4
        else:
            bits += f"1{3:02b}{end - position - 1:016b}{values[position]:08b}"
        position = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


@pytest.fixture
def studio(tmp_path, write_text, write_image, files):
    def make(*tasks: Any):
        write_text("project-1-at-2024-05-01.json", json.dumps(tasks))
        return open_layout("label_studio", str(tmp_path), files)

    write_image("images/a.jpg", np.zeros(SIZE, np.uint8))
    write_image("images/b.jpg", np.zeros(SIZE, np.uint8))
    return make


def test_regions_are_drawn_over_the_background(studio, drawn):
    brush = np.zeros(SIZE, np.uint8)
    brush[2, 3] = brush[4, 5:9] = 1
    studio(
        task(
            result("polygonlabels", points=CORNERS, closed=True),
            result("rectanglelabels", "green", x=60, y=0, width=30, height=40, rotation=0),
            result("brushlabels", "blue", format="rle", rle=packed(brush)),
        )
    )
    expected = ["......ggg.", ".rrrr.ggg.", ".rrbr.....", ".rrrr.....", ".....bbbb."]
    assert drawn("label_studio") == {"images/a.jpg": expected}


def test_ellipses_and_rotated_rectangles(studio, drawn):
    ellipse = result("ellipselabels", x=20, y=50, radiusX=11, radiusY=48, rotation=0)
    rectangle = result("rectanglelabels", "green", x=90, y=20, width=20, height=80, rotation=90)
    studio(task(ellipse, rectangle))
    assert drawn("label_studio")["images/a.jpg"] == [
        ".rr.......",
        ".rr..gggg.",
        ".rr..gggg.",
        ".rr.......",
        ".rr.......",
    ]


def test_a_region_may_stand_twice_with_and_without_its_label(studio):
    outline = {**result("polygonlabels", points=CORNERS), "type": "polygon"}
    bare = {**outline, "value": {"points": CORNERS}}
    labelled = {**outline, "value": {"points": CORNERS, "labels": ["red"]}, "type": "labels"}
    choice = {"id": "c", "type": "choices", "value": {"choices": ["good"]}}
    (sample,) = studio(task(bare, labelled, choice)).samples(None)
    assert [shape.label for shape in sample.mask.shapes] == ["red"] and sample.annotations == 1


def test_tasks_that_nobody_finished_are_not_part_of_the_dataset(studio):
    cancelled = task(name="b.jpg")
    cancelled["annotations"][0]["was_cancelled"] = True
    layout = studio(task(), cancelled, task(annotations=[]))
    assert [sample.key for sample in layout.samples(None)] == ["images/a.jpg"]


def test_of_several_annotations_the_ground_truth_counts(studio):
    one, other = ({"result": [result("polygonlabels", label, points=CORNERS)]} for label in ("red", "green"))
    (sample,) = studio(task(annotations=[one, {**other, "ground_truth": True}])).samples(None)
    assert [shape.label for shape in sample.mask.shapes] == ["green"]
    (entry,) = studio(task(annotations=[one, other])).samples(None)
    assert "ambiguous annotation: 2 annotations, of which 0 are the ground truth" in entry.reason


def test_json_min_has_the_regions_under_the_name_of_the_control(studio, drawn):
    value = {"points": CORNERS, "polygonlabels": ["red"], "original_width": 10, "original_height": 5}
    studio({"image": "/data/upload/1/0a1b2c3d-a.jpg", "id": 1, "label": [value], "annotator": 1, "annotation_id": 1})
    assert drawn("label_studio")["images/a.jpg"][1] == ".rrrr....."


def test_masks_alone_do_not_say_to_which_images_they_belong(studio, write_image, tmp_path, files):
    write_image("task-1-annotation-2-by-1-tag-red-0.png")
    with pytest.raises(DataError, match="images unknown: .*export the project as JSON as well"):
        open_layout("auto", str(tmp_path), files)
    studio(task())
    assert open_layout("auto", str(tmp_path), files).name == "label_studio"


@pytest.mark.parametrize(
    "data",
    [{"image": "/data/local-files/?d=photos/a.jpg"}, {"url": "s3://b/0a1b2c3d-a.jpg?x=1", "text": "a"}, {"i": "a.jpg"}],
)
def test_images_from_storages(studio, data):
    (sample,) = studio(task(file_upload=None, data=data)).samples(None)
    assert sample.key == "images/a.jpg"


BAD = {
    "no label": ({**result("polygonlabels"), "value": {"points": CORNERS}}, "1 of 1 regions have no label"),
    "two labels": ({**result("x"), "value": {"polygonlabels": ["a", "b"]}}, "a region needs one label"),
    "key point": (result("keypointlabels", x=1, y=1, width=1), "expected a list of numbers"),
    "rotated": (
        {**result("polygonlabels", points=CORNERS), "image_rotation": 90},
        "the image is rotated by 90 degrees",
    ),
    "no bytes": (result("brushlabels", rle=[256]), "must be bytes from 0 to 255"),
    "one number": (result("polygonlabels", points=[[1]]), "a point of a polygon must be x and y"),
    "no size": ({"id": "a", "value": {"points": CORNERS, "labels": ["a"]}}, "'original_height' must be of type int"),
    "no object": (7, "a region is not an object"),
}


@pytest.mark.parametrize(("bad", "reason"), BAD.values(), ids=BAD)
def test_a_bad_region_quarantines_its_image(studio, bad, reason):
    first, second = studio(task(bad), task(name="b.jpg")).samples(None)
    assert isinstance(first, BadEntry) and reason in first.reason
    assert second.key == "images/b.jpg"
