"""Every layout reads its true samples: pixels per class equal those counted without it."""

import json
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from data.features import IGNORE_LABEL as VOID
from data.files import read_bytes
from data.images import read_image
from data.layouts import open_layout
from data.layouts.base import Sample
from data.masks import read_mask

Masks = dict[str, np.ndarray]


@pytest.fixture
def masks(files) -> Callable[..., Masks]:
    """Reads the masks of a dataset by the images' keys; every image must decode, every entry be good."""

    def read(root: Path, name: str = "auto") -> Masks:
        layout = open_layout(name, str(root), files)
        found = {}
        for split in layout.splits() or (None,):
            for sample in layout.samples(split):
                assert isinstance(sample, Sample), sample
                assert sample.split == split and sample.key not in found
                _, image = read_image(read_bytes(sample.image, files), 10**7)
                found[sample.key] = read_mask(sample.mask, layout.label_map(), image.shape[:2], files)
        return found

    return read


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def histogram(mask: np.ndarray) -> dict[int, int]:
    return {int(value): int(count) for value, count in zip(*np.unique(mask, return_counts=True), strict=True)}


def test_voc(masks, test_data):
    found = masks(test_data / "layouts/voc")
    assert len(found) == 3
    for key, mask in found.items():
        stored = test_data / "layouts/voc" / key.replace("JPEGImages", "SegmentationClass").replace(".jpg", ".png")
        assert histogram(mask) == histogram(pixels(stored))


def test_camvid(files, test_data):
    layout = open_layout("auto", str(test_data / "camvid"), files)
    samples = {split: list(layout.samples(split)) for split in layout.splits()}
    assert {split: len(found) for split, found in samples.items()} == {"train": 367, "val": 101, "test": 233}
    assert Counter(sample.source for sample in samples["train"]) == {"0001TP": 62, "0006R0": 101, "0016E5": 204}
    assert all(sample.group == sample.source for found in samples.values() for sample in found)
    found, expected = np.zeros(256, int), np.zeros(256, int)
    for sample in samples["val"]:
        found += np.bincount(read_mask(sample.mask, layout.label_map(), (360, 480), files).ravel(), minlength=256)
    for path in (test_data / "camvid/valannot").iterdir():
        expected += np.bincount(pixels(path).ravel(), minlength=256)
    assert found[:11].tolist() == expected[:11].tolist()
    assert found[VOID] == expected[11] > 0


def test_cityscapes_label_ids_become_the_official_train_ids(masks, test_data):
    """The sample's two masks were shrunk apart, so each label id is compared with its most frequent train id."""
    found = masks(test_data / "layouts/cityscapes")
    stem = test_data / "layouts/cityscapes/gtFine/val/frankfurt/frankfurt_000000_000294_gtFine"
    label_ids, train_ids = pixels(Path(f"{stem}_labelIds.png")), pixels(Path(f"{stem}_labelTrainIds.png"))
    expected = np.zeros_like(train_ids)
    for value in np.unique(label_ids):
        expected[label_ids == value] = np.bincount(train_ids[label_ids == value]).argmax()
    assert len(found) == 1
    assert np.array_equal(next(iter(found.values())), expected)


def test_cityscapes_train_ids_are_read_where_there_are_no_label_ids(masks, test_data, tmp_path):
    root = shutil.copytree(test_data / "layouts/cityscapes", tmp_path / "cityscapes")
    (root / "gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelIds.png").unlink()
    official = pixels(root / "gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelTrainIds.png")
    assert np.array_equal(next(iter(masks(root).values())), official)


def test_ade20k(masks, test_data, files):
    root = test_data / "layouts/ade20k"
    found = masks(root)
    assert len(found) == 3
    for key, mask in found.items():
        stored = histogram(pixels(root / key.replace("images", "annotations").replace(".jpg", ".png")))
        assert histogram(mask) == {VOID if value == 0 else value - 1: count for value, count in stored.items()}
    names = open_layout("auto", str(root), files).label_map().names
    assert names[:8] == ("wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed")
    assert len(names) == 150


def test_coco_polygons(masks, test_data):
    content = json.loads((test_data / "layouts/coco_polygons/annotations.json").read_text())
    found = masks(test_data / "layouts/coco_polygons")
    assert len(found) == 3
    for image in content["images"]:
        height, width = image["height"], image["width"]
        expected = np.zeros((height, width), np.uint8)
        of_image = [one for one in content["annotations"] if one["image_id"] == image["id"]]
        for annotation in sorted(of_image, key=lambda one: one["area"], reverse=True):
            whole = coco.merge(coco.frPyObjects(annotation["segmentation"], height, width))
            expected[_decoded(whole)] = annotation["category_id"]
        assert histogram(found[image["file_name"]]) == histogram(expected)


def test_coco_run_lengths(masks, test_data, tmp_path):
    """The areas that the annotation file states are those rendered; its segments do not overlap."""
    source = test_data / "layouts/coco_panoptic"
    shutil.copytree(source / "input_images", tmp_path / "images")
    shutil.copy(source / "panoptic_coco_detection_format.json", tmp_path / "annotations.json")
    content = json.loads((tmp_path / "annotations.json").read_text())
    found = masks(tmp_path, "coco")
    ids = {category: i for i, category in enumerate(sorted(entry["id"] for entry in content["categories"]), start=1)}
    for image in content["images"]:
        expected: Counter[int] = Counter()
        for annotation in content["annotations"]:
            if annotation["image_id"] == image["id"]:
                expected[VOID if annotation["iscrowd"] else ids[annotation["category_id"]]] += annotation["area"]
        expected[0] = image["height"] * image["width"] - expected.total()
        assert histogram(found[f"images/{image['file_name']}"]) == +expected


def test_coco_panoptic(masks, test_data):
    """The areas that the annotation file states are those read."""
    root = test_data / "layouts/coco_panoptic"
    content = json.loads((root / "panoptic_examples.json").read_text())
    found = masks(root)
    ids = {category: i for i, category in enumerate(sorted(entry["id"] for entry in content["categories"]))}
    names = {image["id"]: image["file_name"] for image in content["images"]}
    assert len(found) == len(content["annotations"]) == 2
    for annotation in content["annotations"]:
        mask = found[f"input_images/{names[annotation['image_id']]}"]
        expected: Counter[int] = Counter()
        for segment in annotation["segments_info"]:
            expected[VOID if segment["iscrowd"] else ids[segment["category_id"]]] += segment["area"]
        expected[VOID] += mask.size - expected.total()
        assert histogram(mask) == +expected


def test_labelme(masks, test_data):
    """The same photos are in the VOC sample, rendered there by labelme itself: all but one pixel are equal."""
    found = masks(test_data / "layouts/labelme_json")
    assert len(found) == 3
    for key, mask in found.items():
        rendered = pixels(test_data / "layouts/voc/VOCdevkit/VOC2011/SegmentationClass" / key.replace("jpg", "png"))
        assert (mask != rendered).sum() <= 1


def _decoded(rle: dict) -> np.ndarray:
    """pycocotools' own decoder, whose NumPy interface is behind the times."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return coco.decode(rle).astype(bool)
