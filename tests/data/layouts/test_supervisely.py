"""Supervisely."""

import base64
import io
import json
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.layouts import open_layout
from data.layouts.base import BadEntry

META = {
    "classes": [
        {"title": "red", "shape": "polygon", "color": "#C81E3C", "geometry_config": {}, "id": 1, "hotkey": ""},
        {"title": "green", "shape": "bitmap", "color": "#14A0DC", "geometry_config": {}, "id": 2, "hotkey": ""},
    ],
    "tags": [],
    "projectType": "images",
}


def thing(label: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"id": 1, "classId": 1, "labelerLogin": "a", "tags": [], "classTitle": label, "geometryType": kind, **fields}


def polygon(exterior: list[list[int]], *interior: list[list[int]], kind: str = "polygon") -> dict[str, Any]:
    return thing("red", kind, points={"exterior": exterior, "interior": list(interior)})


def bitmap(mask: np.ndarray, x: int, y: int) -> dict[str, Any]:
    """A bitmap as Supervisely packs it: a palette PNG in which 0 is transparent, in zlib, in base64."""
    image, file = Image.fromarray(mask.astype(np.uint8)), io.BytesIO()
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.save(file, "PNG", transparency=0)
    data = base64.b64encode(zlib.compress(file.getvalue())).decode()
    return thing("green", "bitmap", bitmap={"origin": [x, y], "data": data})


@pytest.fixture
def supervisely(tmp_path, write_text, write_image, files):
    def make(*objects: Any, dataset: str = "ds1"):
        write_text("meta.json", json.dumps(META))
        write_image(f"{dataset}/img/a.jpg", np.zeros((5, 10), np.uint8))
        size = {"height": 5, "width": 10}
        content = {"description": "", "tags": [], "size": size, "objects": list(objects)}
        write_text(f"{dataset}/ann/a.jpg.json", json.dumps(content))
        return open_layout("auto", str(tmp_path), files)

    return make


def test_polygons_bitmaps_and_rectangles_are_drawn_over_the_background(supervisely, drawn):
    outline = polygon([[0, 0], [4, 0], [4, 4], [0, 4]], [[1, 1], [3, 1], [3, 3], [1, 3]])
    box = polygon([[8, 3], [9, 4]], kind="rectangle")
    supervisely(outline, bitmap(np.array([[1, 0, 1], [1, 1, 0]]), 4, 1), box)
    assert drawn("supervisely") == {
        "ds1/img/a.jpg": ["rrrrr.....", "r...g.g...", "r...gg....", "r...r...rr", "rrrrr...rr"],
    }


def test_older_projects_do_not_name_the_geometry(supervisely, drawn):
    objects = [polygon([[0, 0], [4, 0], [4, 4], [0, 4]]), bitmap(np.array([[1, 1]]), 5, 1)]
    supervisely(*({key: value for key, value in one.items() if key != "geometryType"} for one in objects))
    assert drawn("supervisely")["ds1/img/a.jpg"][:2] == ["rrrrr.....", "rrrrrgg..."]


def test_datasets_are_sources_or_splits(supervisely):
    layout = supervisely()
    (sample,) = layout.samples(None)
    assert sample.source == "ds1" and layout.splits() == ()
    assert layout.label_map().names == ("background", "red", "green")
    assert supervisely(dataset="train").splits() == ()


def test_datasets_that_are_all_called_by_a_split_are_splits(supervisely):
    supervisely(dataset="train")
    layout = supervisely(dataset="val_2024")
    assert layout.splits() == ("train", "val")
    assert [sample.key for sample in layout.samples("val")] == ["val_2024/img/a.jpg"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (thing("red", "line", points={"exterior": [], "interior": []}), "unsupported shape: line"),
        (thing("red", "polygon", points={"exterior": [[1]], "interior": []}), "expected points x and y, not [[1]]"),
        (thing("red", "polygon", points={"exterior": [], "interior": []}), "expected points x and y, not []"),
        (thing("red", "bitmap", bitmap={"origin": None, "data": ""}), "expected a list of numbers, not None"),
        ({}, "'classTitle' must be of type str"),
        (7, "'classTitle' must be of type str"),
    ],
)
def test_a_bad_object_quarantines_its_image(supervisely, bad, reason):
    (entry,) = supervisely(bad).samples(None)
    assert isinstance(entry, BadEntry) and entry.path == "ds1/ann/a.jpg.json"
    assert reason in entry.reason
