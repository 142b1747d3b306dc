"""COCO instances and panoptic."""

import json
from typing import Any

import pytest

from data.errors import DataError
from data.layouts import open_layout
from data.layouts.base import BadEntry, PanopticFile, Sample, with_losses

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


def test_where_every_annotation_of_a_category_is_a_crowd_they_are_exported_masks_and_no_void(coco):
    rle = {"size": [3, 4], "counts": [0, 2, 10]}
    exported = [instance(1, iscrowd=1, segmentation=rle, area=2), instance(1, iscrowd="1", segmentation=rle, area=3)]
    polygons = [instance(1, category_id=3, area=9), instance(1, category_id=3, area=8, iscrowd=1)]
    layout = coco([image(1)], [*exported, *polygons])
    (sample,) = layout.samples(None)
    assert [shape.label for shape in sample.mask.shapes] == [None, 3, 7, 7]
    alone, crowds = layout.remarks()
    assert "every annotation of dog has iscrowd 1" in alone
    assert "1 of 4 annotations are crowds" in crowds


@pytest.mark.parametrize("area", [None, 0, "4", float("nan"), -1])
def test_an_area_that_is_not_stated_is_that_of_the_region(coco, area):
    large = instance(1, segmentation=[[0, 0, 3, 0, 3, 3, 0, 3]], area=area)
    small = instance(1, segmentation={"size": [3, 4], "counts": [0, 2, 10]}, area=area, category_id=3)
    middle = instance(1, segmentation={"size": [3, 4], "counts": "02:"}, area=3)
    (sample,) = coco([image(1)], [small, middle, large]).samples(None)
    assert [shape.label for shape in sample.mask.shapes] == [7, 7, 3]
    assert sample.mask.shapes[0].kind == "coco_polygon"


@pytest.mark.parametrize("known", [12, 12.0, "12", "12.0"])
@pytest.mark.parametrize("named", [12, 12.0, "12"])
def test_ids_are_the_same_however_they_are_written(coco, known, named):
    images = [{**image(known), "width": 4.0, "height": "3"}]
    categories = [{"id": named, "name": "dog"}]
    layout = coco(images, [instance(named, category_id=known)], categories=categories)
    (sample,) = layout.samples(None)
    assert [shape.label for shape in sample.mask.shapes] == [12]
    assert sample.mask.size == (3, 4) and sample.annotations == 1
    assert [label.values for label in layout.label_map().classes] == [(), (12,)]


def test_ids_that_are_texts_are_themselves(coco):
    images = [image("007"), image("7", "b.jpg")]
    layout = coco(images, [instance("007", category_id="d")], categories=[{"id": "d", "name": "dog"}])
    first, second = layout.samples(None)
    assert [shape.label for shape in first.mask.shapes] == ["dog"] and second.mask.shapes == ()
    assert layout.label_map().names == ("background", "dog")


def test_roboflows_root_category_is_no_class_and_other_unused_categories_are_told(coco):
    root = {"id": 0, "name": "dog", "supercategory": "none"}
    below = [{"id": 1, "name": "dog", "supercategory": "dog"}, {"id": 2, "name": "cat", "supercategory": "dog"}]
    layout = coco([image(1)], [instance(1, category_id=1)], categories=[root, *below])
    assert [(label.name, label.values) for label in layout.label_map().classes][1:] == [("dog", (1,)), ("cat", (2,))]
    assert [note.partition(": ")[2] for note in layout.remarks()] == ["no annotation is of cat."]


def test_images_without_any_annotation_are_no_dataset(coco):
    with pytest.raises(DataError, match=r"annotations missing: .* has 2 images and no annotation in annotations.json"):
        coco([image(1), image(2, "b.jpg")], []).label_map()


def test_a_file_of_categories_alone_is_another_tools(coco, write_text, files, tmp_path):
    layout = coco([], [])
    (tmp_path / "annotations.json").unlink()
    write_text("notes.json", json.dumps({"categories": CATEGORIES, "info": {}}))
    assert not type(layout).detect(layout.root, files)


def test_images_without_annotations_are_told(coco):
    (remark,) = coco([image(1), image(2, "b.jpg")], [instance(1), instance(1, category_id=3)]).remarks()
    assert "1 of 2 images have no annotation and are background from edge to edge" in remark


def test_too_many_lost_annotations_end_the_listing(coco):
    annotations = [*[instance(1)] * 8, instance(5), instance(6)]
    layout = coco([image(1)], annotations)
    assert len(list(with_losses(layout.samples(None), 0.2))) == 3
    with pytest.raises(DataError, match=r"annotations lost: 2 of 10, more than data.max_bad_fraction=0.19 allows"):
        list(with_losses(layout.samples(None), 0.19))


def test_an_image_whose_annotations_are_all_malformed_is_no_background(coco):
    (entry,) = coco([image(1)], [instance(1, segmentation="x"), instance(1, segmentation=None)]).samples(None)
    assert isinstance(entry, BadEntry) and entry.annotations == 2


@pytest.mark.parametrize("path", ["result.json", "labels.json", "annotations/all.json", "valid/labels.json"])
def test_an_annotation_file_may_have_any_name(coco, path):
    layout = coco([image(1)], [instance(1)], path)
    assert layout.name == "coco"
    (sample,) = layout.samples(*layout.splits() or [None])
    assert sample.key == "a.jpg"


@pytest.mark.parametrize("name", ["captions_val2017.json", "person_keypoints_val2017.json"])
def test_cocos_other_files_hold_no_instances(coco, name):
    with pytest.raises(DataError, match="unknown layout"):
        coco([image(1)], [instance(1)], f"annotations/{name}")


NAMED = [
    "images/a.jpg",
    "../../label-studio/data/media/upload/1/0a1b2c3d-a.jpg",
    "/label-studio/data/upload/1/0a1b2c3d-a.jpg",
    "C:\\data\\upload\\a.jpg",
    "images\\a.jpg",
    "s3://bucket/photos/a.jpg",
]


@pytest.mark.parametrize("name", NAMED)
def test_images_are_found_by_their_file_name_inside_the_dataset(coco, name):
    (sample,) = coco([image(1, name)], []).samples(None)
    assert sample.key == "a.jpg"


def test_an_image_that_several_files_may_be_is_quarantined(coco, write_image):
    write_image("one/b.jpg")
    write_image("two/b.jpg")
    first, second, third = coco([image(1, "/x/b.jpg"), image(2, "/x/a.jpg"), image(3, "/y/a.jpg")], []).samples(None)
    assert "'/x/b.jpg' may be any of one/b.jpg, two/b.jpg" in first.reason
    assert all("ambiguous image" in entry.reason for entry in (second, third))


def test_an_image_is_not_looked_for_in_the_folder_of_another_split(coco, write_image):
    write_image("train/images/b.jpg")
    write_image("val/images/c.jpg")
    coco([image(1, "/x/b.jpg")], [], "annotations/instances_train.json")
    layout = coco([image(1, "/x/b.jpg"), image(2, "/x/c.jpg")], [], "annotations/instances_val.json")
    missing, found = layout.samples("val")
    assert "path outside the dataset" in missing.reason
    assert found.key == "val/images/c.jpg"
    assert next(layout.samples("train")).key == "train/images/b.jpg"


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
    "huge height": ([{**image(1), "height": 10**400}], [], "'height' is a number of 333 hexadecimal digits"),
    "no image": ([5], [], "image id None is missing"),
    "boxes only": ([image(1)], [instance(1, segmentation=[])], "has no segmentation; a box is not enough"),
    "odd polygon": ([image(1)], [instance(1, segmentation=[[1, 2, 3]])], "a polygon must be a list of x1, y1"),
    "text polygon": ([image(1)], [instance(1, segmentation=["abcd"])], "a polygon must be a list of x1, y1"),
    "no category": ([image(1)], [instance(1, category_id="dog")], "'category_id' 'dog' is none of the categories"),
    "area without a polygon": ([image(1)], [instance(1, area=None, segmentation=[])], "has no segmentation"),
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


def test_images_of_the_same_names_are_in_the_folder_of_their_split(coco, write_image, tmp_path):
    for split in ("train", "dev", "test"):
        write_image(f"{split}/x.jpg")
        layout = coco([image(1, "x.jpg")], [], f"annotations/{split}.json")
    found = {split: [sample.key for sample in layout.samples(split)] for split in layout.splits()}
    assert found == {"train": ["train/x.jpg"], "val": ["dev/x.jpg"], "test": ["test/x.jpg"]}


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
    fields = ({"id": 5, "category_id": 7.0, "iscrowd": "0"}, {"id": 6, "category_id": 3, "iscrowd": "1"})
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
