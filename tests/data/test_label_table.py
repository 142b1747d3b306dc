"""A class stays what it is when the files of a dataset number their classes anew."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.dataset import DataConfig, resolve_label_map
from data.errors import DataError
from data.files import LocalFiles
from data.label_table import match_by_name
from data.labels import ClassLabel, LabelMap
from data.layouts import open_layout
from data.layouts.base import Sample, Shape, Shapes
from data.masks import read_mask


def labels(ignore: tuple[int, ...] = (), **values: Any) -> LabelMap:
    """A label map: name -> values."""
    classes = tuple(ClassLabel(name=name, values=tuple(codes)) for name, codes in values.items())
    return LabelMap(classes=classes, ignore_values=ignore)


def values(label_map: LabelMap) -> dict[str, tuple[int, ...]]:
    return {label.name: label.values for label in label_map.classes}


def matched(configured: LabelMap, table: LabelMap) -> LabelMap:
    return match_by_name(configured, table, "data")


def test_the_same_table_changes_nothing():
    label_map = labels((255,), sky=[0], car=[1])
    assert matched(label_map, label_map) == label_map


def test_ids_that_were_numbered_anew_are_matched_by_name():
    """The class ids, which are the order of the classes, stay those of the configuration."""
    assert values(matched(labels(car=[1], tree=[2]), labels(bus=[1], tree=[3], car=[2]))) == {"car": (2,), "tree": (3,)}


def test_a_class_that_the_table_lacks_has_no_value_there():
    assert values(matched(labels(car=[1], tree=[2]), labels(tree=[1]))) == {"car": (), "tree": (1,)}


def test_values_without_a_name_in_the_table_stay():
    """Void may count as background, and a class may be stated by its value alone."""
    configured = labels((254,), background=[0, 255], other=[9])
    assert matched(configured, labels((255,), background=[0])) == configured


def test_a_value_that_was_void_is_a_class_again_if_the_table_gives_it_to_one():
    assert matched(labels((2, 9), car=[1], tree=[3]), labels(car=[1], tree=[2])) == labels((9,), car=[1], tree=[2])


def test_a_merged_class_follows_the_names_that_are_stated():
    vehicle = ClassLabel(name="vehicle", values=(3, 8), names=("car", "truck"))
    configured = LabelMap(classes=(vehicle, ClassLabel(name="tree", values=(1,))))

    assert values(matched(configured, labels(truck=[1], tree=[2], car=[7]))) == {"vehicle": (7, 1), "tree": (2,)}


@pytest.mark.parametrize(
    ("configured", "doubt"),
    [
        (labels(automobile=[3], tree=[1]), "class 'automobile' has values 3, which is 'car' there"),
        (labels(vehicle=[3, 8], tree=[1]), "class 'vehicle' has values 8, which is 'truck' there"),
        (labels(car=[3, 8], tree=[1]), "class 'car' has values 8, which is 'truck' there"),
    ],
    ids=["renamed", "merged", "merged into one of them"],
)
def test_names_that_do_not_correspond_are_refused_with_both_tables(configured: LabelMap, doubt: str):
    with pytest.raises(DataError) as caught:
        matched(configured, labels(tree=[1], car=[3], truck=[8]))

    text = str(caught.value)
    assert f"  {doubt}\n" in text
    assert f"data.label_map: {configured.names[0]} = 3" in text
    assert "data: tree = 1, car = 3, truck = 8" in text
    assert "`names: [car, truck]`" in text


def test_colors_are_matched_as_values_are_and_values_stay_where_the_table_has_colors_alone():
    red, blue, gray = (255, 0, 0), (0, 0, 255), (9, 9, 9)
    configured = LabelMap.model_validate(
        {"classes": [{"name": "car", "colors": [red], "values": [4]}, {"name": "tree", "colors": [blue, gray]}]}
    )
    table = LabelMap.model_validate({"classes": [{"name": "tree", "colors": [red]}, {"name": "car", "colors": [blue]}]})

    found = matched(configured, table)

    assert [label.colors for label in found.classes] == [(blue,), (red,)]
    assert values(found) == {"car": (4,), "tree": ()}


def test_regions_with_any_of_the_names_of_a_class_are_of_it():
    square = ((0.0, 0.0), (2.0, 0.0), (2.0, 2.0), (0.0, 2.0))
    shapes = Shapes((Shape("truck", "polygon", square),), background="vehicle")
    merged = LabelMap(classes=(ClassLabel(name="tree"), ClassLabel(name="vehicle", names=("car", "truck"))))

    np.testing.assert_array_equal(read_mask(shapes, merged, (2, 2), LocalFiles()), np.ones((2, 2)))


def test_a_name_belongs_to_one_class():
    with pytest.raises(ValueError, match="class name 'car' occurs 2 times"):
        LabelMap(classes=(ClassLabel(name="car"), ClassLabel(name="vehicle", names=("car",))))


SQUARE = [[0, 0, 4, 0, 4, 4, 0, 4]]


def coco(root: Path, **ids: int) -> Path:
    """A COCO export of an image that has a car on the left and a tree on the right."""
    root.mkdir(parents=True)
    Image.new("RGB", (8, 4)).save(root / "a.png")
    right = [[x + 4 * (1 - i % 2) for i, x in enumerate(SQUARE[0])]]
    regions = {"car": SQUARE, "tree": right}
    annotations = [
        {"id": n, "image_id": 1, "category_id": ids[name], "segmentation": region, "area": 16, "iscrowd": 0}
        for n, (name, region) in enumerate(regions.items(), 1)
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 4}],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
    }
    (root / "annotations.json").write_text(json.dumps(content))
    return root


def voc(root: Path, **ids: int) -> Path:
    """The same in the layout of PASCAL VOC, with a labels.txt."""
    mask = np.repeat([[ids["car"]] * 4 + [ids["tree"]] * 4], 4, axis=0).astype(np.uint8)
    for folder, name, image in (
        ("JPEGImages", "a.png", Image.new("RGB", (8, 4))),
        ("SegmentationClass", "a.png", mask),
    ):
        (root / folder).mkdir(parents=True)
        (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(root / folder / name)
    names = {number: name for name, number in ids.items()}
    (root / "labels.txt").write_text("".join(f"{names.get(n, 'background')}\n" for n in range(max(names) + 1)))
    return root


@pytest.mark.parametrize("write", [coco, voc])
def test_a_second_export_with_other_ids_is_read_as_the_first(write: Any, tmp_path: Path):
    before, after = write(tmp_path / "before", car=1, tree=2), write(tmp_path / "after", tree=1, car=2)
    files = LocalFiles()
    config = DataConfig(path=str(before))
    config = config.model_copy(update={"label_map": resolve_label_map(config, open_layout("auto", str(before), files))})

    masks = []
    for root in (before, after):
        layout = open_layout("auto", str(root), files)
        label_map = resolve_label_map(config, layout)
        (sample,) = layout.samples(None)
        assert isinstance(sample, Sample)
        masks.append(read_mask(sample.mask, label_map, (4, 8), files))

    np.testing.assert_array_equal(*masks)
    assert config.label_map is not None
    assert [config.label_map.names[masks[0][0, x]] for x in (0, 7)] == ["car", "tree"]
