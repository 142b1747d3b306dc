"""COCO instances and panoptic."""

import json
from typing import Any

import pytest

from data.errors import DataError
from data.layouts import open_layout
from data.layouts.base import BadEntry, PanopticFile, Sample

SQUARE = [0, 0, 2, 0, 2, 2, 0, 2]
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def image(number: int, name: str = "a.jpg") -> dict[str, Any]:
    return {"id": number, "file_name": name, "height": 3, "width": 4}


def instance(number: int, **fields: Any) -> dict[str, Any]:
    return {"image_id": number, "category_id": 7, "segmentation": [SQUARE], "area": 4, "iscrowd": 0, **fields}


@pytest.fixture
def coco(tmp_path, write_text, write_image, files):
    def make(images: Any, annotations: Any, path: str = "annotations.json", categories: Any = CATEGORIES):
        content = {"images": images, "annotations": annotations, "categories": categories}
        write_text(path, json.dumps(content))
        write_image("a.jpg")
        return open_layout("auto", str(tmp_path), files)

    return make


def test_smaller_instances_lie_over_larger_ones_and_crowds_below(coco):
    annotations = [instance(1, area=2), instance(1, area=9, category_id=3), instance(1, area=1, iscrowd=1)]
    (sample,) = coco([image(1)], annotations).samples(None)
    assert [shape.label for shape in sample.mask.shapes] == [None, 3, 7]
    assert sample.mask.size == (3, 4) and sample.mask.background == "background"


def test_every_polygon_of_an_instance_is_a_shape(coco):
    (sample,) = coco([image(1)], [instance(1, segmentation=[SQUARE, SQUARE])]).samples(None)
    assert [shape.points for shape in sample.mask.shapes] == [((0, 0), (2, 0), (2, 2), (0, 2))] * 2


def test_an_image_without_instances_is_background(coco):
    (sample,) = coco([image(1)], []).samples(None)
    assert sample.mask.shapes == ()


def test_categories_follow_the_background_in_the_order_of_their_ids(coco):
    label_map = coco([], []).label_map()
    assert [(label.name, label.values) for label in label_map.classes] == [
        ("background", ()),
        ("cat", (3,)),
        ("dog", (7,)),
    ]
    own = coco([], [], categories=[*CATEGORIES, {"id": 0, "name": "_background_"}]).label_map()
    assert own.names == ("_background_", "cat", "dog")


BAD = {
    "escaping path": ([image(1, "../../etc/passwd")], [], "path outside the dataset"),
    "absolute path": ([image(1, "/etc/passwd")], [], "path outside the dataset"),
    "no file name": ([{"id": 1, "height": 3, "width": 4}], [], "'file_name' must be of type str"),
    "no height": ([{"id": 1, "file_name": "b.jpg", "width": 4}], [], "'height' must be of type int"),
    "no image": ([5], [], "image id None is missing"),
    "boxes only": ([image(1)], [instance(1, segmentation=[])], "has no segmentation; a box is not enough"),
    "odd polygon": ([image(1)], [instance(1, segmentation=[[1, 2, 3]])], "a polygon must be a list of x1, y1"),
    "text polygon": ([image(1)], [instance(1, segmentation=["abcd"])], "a polygon must be a list of x1, y1"),
    "no category": ([image(1)], [instance(1, category_id="dog")], "'category_id' must be of type int, not 'dog'"),
    "orphan": ([], [instance(9)], "1 annotations are of image id 9"),
    "no annotation": ([], ["x"], "1 annotations are of image id None"),
}


@pytest.mark.parametrize(("images", "annotations", "reason"), BAD.values(), ids=BAD)
def test_one_bad_entry_is_quarantined_and_the_rest_is_read(coco, images, annotations, reason):
    layout = coco([*images, image(2)], [*annotations, instance(2)])
    good = [entry for entry in layout.samples(None) if isinstance(entry, Sample)]
    bad = [entry for entry in layout.samples(None) if isinstance(entry, BadEntry)]
    assert [sample.key for sample in good] == ["a.jpg"]
    assert len(bad) == 1 and reason in bad[0].reason


def test_images_of_one_id_are_quarantined(coco):
    entries = list(coco([image(1), image(1, "b.jpg")], [instance(1)]).samples(None))
    assert all(isinstance(entry, BadEntry) and "used more than once" in entry.reason for entry in entries)
    assert len(entries) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"images": [', r"invalid JSON: .*annotations.json, line 1, column 13"),
        ("[]", "no COCO annotation file: annotations.json: it needs the list 'images'"),
        ('{"images": [], "annotations": {}}', "it needs the list 'annotations'"),
        ('{"images": [], "annotations": [], "categories": [{"id": "x"}]}', "malformed categories: annotations.json"),
    ],
)
def test_an_unreadable_annotation_file_stops(coco, write_text, content, reason):
    layout = coco([], [])
    write_text("annotations.json", content)
    with pytest.raises(DataError, match=reason):
        list(layout.samples(None))


def test_splits_are_told_by_names_and_images_are_found(tmp_path, coco, write_image):
    for split in ("train2017", "val2017"):
        write_image(f"{split}/{split}.jpg")
        layout = coco([image(1, f"{split}.jpg")], [], f"annotations/instances_{split}.json")
    assert layout.splits() == ("train", "val")
    assert [sample.key for sample in layout.samples("val")] == ["val2017/val2017.jpg"]


def test_annotation_files_beside_the_images_of_each_split(coco, write_image):
    for split in ("train", "valid"):
        write_image(f"{split}/x.jpg")
        layout = coco([image(1, "x.jpg")], [], f"{split}/_annotations.coco.json")
    assert layout.splits() == ("train", "val")
    assert [sample.key for sample in layout.samples("val")] == ["valid/x.jpg"]


def test_two_annotation_files_for_one_split_are_named(coco):
    coco([], [], "annotations/instances_train2014.json")
    layout = coco([], [], "annotations/instances_train2017.json")
    with pytest.raises(
        DataError, match=r"found: annotations/instances_train2014.json, annotations/instances_train2017"
    ):
        layout.splits()


def test_categories_that_contradict_each_other_are_named(coco):
    coco([], [], "annotations/train.json")
    layout = coco([], [], "annotations/val.json", [{"id": 7, "name": "cow"}])
    with pytest.raises(DataError, match=r"categories differ: id 7 is 'dog', but 'cow' in annotations/val.json"):
        layout.label_map()


def segments(number: int, *fields: dict[str, Any], name: str = "a.png") -> dict[str, Any]:
    return {"image_id": number, "file_name": name, "segments_info": list(fields)}


@pytest.fixture
def panoptic(coco, write_image):
    def make(images: Any, annotations: Any):
        write_image("annotations/panoptic_val/a.png")
        return coco(images, annotations, "annotations/panoptic_val.json")

    return make


def test_panoptic_segments_have_categories_and_crowds_are_void(panoptic, tmp_path):
    fields = ({"id": 5, "category_id": 7, "iscrowd": 0}, {"id": 6, "category_id": 3, "iscrowd": 1})
    layout = panoptic([image(1), image(2, "b.jpg")], [segments(1, *fields)])
    assert layout.name == "coco_panoptic" and layout.splits() == ("val",)
    first, second = layout.samples("val")
    assert first.mask == PanopticFile(str(tmp_path / "annotations/panoptic_val/a.png"), {5: 7, 6: None})
    assert second.mask is None
    assert layout.label_map().names == ("cat", "dog")


@pytest.mark.parametrize(
    ("annotations", "reason"),
    [
        ([segments(1, name="../../../x.png")], "path outside the dataset"),
        ([segments(1), segments(1)], "image id 1 has 2 panoptic masks"),
        ([segments(1, {"id": 5})], "'category_id' must be of type int, not None"),
        ([{"image_id": 1, "file_name": "a.png"}], "'segments_info' must be of type list"),
    ],
)
def test_a_bad_panoptic_annotation_is_quarantined(panoptic, annotations, reason):
    (entry,) = panoptic([image(1)], annotations).samples("val")
    assert isinstance(entry, BadEntry) and reason in entry.reason
