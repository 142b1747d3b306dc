"""labelme."""

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.layouts import open_layout
from data.layouts.base import BadEntry, Shape

POINTS = [[0, 0], [2, 0], [2, 2]]


def content(**fields: Any) -> str:
    shapes = [{"label": "dog", "points": POINTS, "shape_type": "polygon"}]
    return json.dumps({"shapes": shapes, "imagePath": "a.jpg", "imageHeight": 3, "imageWidth": 4, **fields})


@pytest.fixture
def labelme(tmp_path, write_text, files):
    def make(text: str, path: str = "a.json"):
        write_text(path, text)
        return open_layout("labelme", str(tmp_path), files)

    return make


def test_outlines_are_read(labelme, tmp_path):
    (sample,) = labelme(content()).samples(None)
    assert sample.key == "a.jpg" and sample.image == str(tmp_path / "a.jpg")
    assert sample.mask.shapes == (Shape("dog", "polygon", ((0, 0), (2, 0), (2, 2))),)
    assert sample.mask.size == (3, 4)


def test_ignored_outlines_are_void_and_old_files_hold_polygons(labelme):
    (sample,) = labelme(content(shapes=[{"label": "__ignore__", "points": POINTS}])).samples(None)
    assert sample.mask.shapes == (Shape(None, "polygon", ((0, 0), (2, 0), (2, 2))),)


def png(mask: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_masks_and_rectangles_of_four_corners(labelme, write_image, write_text, drawn):
    mask = {"label": "dog", "points": [[2.0, 0.0], [3.0, 1.0]], "shape_type": "mask"}
    corners = {"label": "cat", "points": [[0, 1], [1, 1], [1, 2], [0, 2]], "shape_type": "rectangle"}
    shapes = [{**mask, "mask": png(np.array([[True, False], [True, True]]))}, corners]
    write_image("a.jpg")
    write_text("labels.txt", "_background_\ndog\ncat\n")
    labelme(content(shapes=shapes))
    assert drawn("labelme") == {"a.jpg": ["__d_", "ccdd", "cc__"]}


@pytest.mark.parametrize(
    ("labels", "names", "background"),
    [
        ("__ignore__\n_background_\ndog\n", ("_background_", "dog"), "_background_"),
        ("dog\ncat\n", ("dog", "cat"), None),
        (None, None, "_background_"),
    ],
)
def test_labels_txt_states_the_classes(labelme, write_text, labels, names, background):
    if labels is not None:
        write_text("labels.txt", labels)
    layout = labelme(content())
    label_map = layout.label_map()
    assert (label_map and label_map.names) == names
    assert next(layout.samples(None)).mask.background == background


def test_images_may_lie_in_another_folder_of_the_dataset(labelme):
    layout = labelme(content(imagePath="..\\photos\\a.jpg"), "train/a.json")
    assert layout.splits() == ("train",)
    assert next(layout.samples("train")).key == "photos/a.jpg"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "invalid JSON: "),
        ("[]", "malformed annotation: not a labelme file"),
        (content(imagePath=None), "malformed annotation: not a labelme file"),
        (content(shapes={}), "malformed annotation: not a labelme file"),
        (content(imagePath="../a.jpg"), "path outside the dataset"),
        (content(imagePath="/etc/passwd"), "path outside the dataset"),
        (content(imagePath="C:\\a.jpg"), "path outside the dataset"),
        (content(shapes=[5]), "malformed annotation: no label and points"),
        (content(shapes=[{"label": "dog", "points": POINTS, "shape_type": "mask"}]), "malformed annotation: no label"),
        (content(shapes=[{"label": "dog", "points": [[1]]}]), "malformed annotation: no label and points"),
        (content(shapes=[{"label": "dog", "points": [[10**400, 0]]}]), "malformed annotation: no label and points"),
    ],
)
def test_a_bad_file_is_quarantined(labelme, text, reason):
    (entry,) = labelme(text).samples(None)
    assert isinstance(entry, BadEntry) and entry.path == "a.json"
    assert entry.reason.startswith(reason)


def test_other_json_files_are_not_labelmes(labelme, files):
    labelme("[]")
    layout = labelme("{}", "b.json")
    assert not type(layout).detect(layout.root, files)
    labelme(content(), "c.json")
    assert type(layout).detect(layout.root, files)
