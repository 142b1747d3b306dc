"""Label Studio's own exports "JSON" and "JSON-MIN": a list of tasks, with the regions in per cent, and the images.

Format: labelstud.io/guide/export. Its COCO export is read by `data.layouts.coco`.
"""

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any
from urllib.parse import unquote

from data.errors import DataError
from data.files import read_json
from data.layouts.annotations import (
    MOST_OPENED,
    Annotated,
    Points,
    RegionFiles,
    ellipse,
    field,
    numbers,
    rotated,
    whole,
)
from data.layouts.base import BadEntry, Shape, Shapes, is_image

#: How the exports begin.
SIGNATURE = re.compile(r'\[\s*\{.*("annotations"\s*:\s*\[|"original_width"|"annotation_id")', re.DOTALL)

#: Files of "Brush labels to PNG".
BRUSH = re.compile(r"task-\d+-annotation-\d+-by-.*\.png")


class LabelStudio(RegionFiles):
    """Polygons, rectangles, ellipses and brushes, later ones on top; all other pixels are the background.

    Tasks that nobody has finished are not labelled yet, and not part of the dataset. Of several annotations of a task,
    that counts which is marked as the ground truth.
    """

    name = "label_studio"

    def find(self) -> Iterator[str]:
        """Files that begin like an export.

        Raises:
            DataError: there are only masks, which do not say to which images they belong.
        """
        found = list(self.beginning_with(SIGNATURE.match))
        brushes = () if found else filter(BRUSH.fullmatch, islice(self.names(""), MOST_OPENED))
        for name in brushes:
            raise DataError(
                f"images unknown: the masks in {self.root}, such as {name}, name tasks of Label Studio, not images; "
                "export the project as JSON as well, which has the same regions, and put it beside the images"
            )
        yield from found

    def read(self, path: str) -> tuple[list[str], list[Annotated | BadEntry]]:
        """The labels in use, and the images of the tasks."""
        tasks = read_json(self.at(path), self.files)
        if not isinstance(tasks, list):
            raise DataError(f"no export of Label Studio: {path}: it needs a list of tasks")
        images = [image for task in tasks for image in _annotated(task)]
        used = {
            str(shape.label)
            for image in images
            if isinstance(image, Annotated) and isinstance(image.mask, Shapes)
            for shape in image.mask.shapes
        }
        return sorted(used), images


def _annotated(task: Any) -> Iterator[Annotated | BadEntry]:
    """The image of a task; nothing if it is not labelled."""
    place = f"task {task.get('id')}" if isinstance(task, dict) else "task"
    count = 0
    try:
        annotations = [_minimal(task)] if "annotation_id" in task else field(task, "annotations", list)
        finished = [one for one in annotations if not one.get("was_cancelled")]
        if not finished:
            return
        chosen = [one for one in finished if one.get("ground_truth") is True] if len(finished) > 1 else finished
        count = max(len(field(one, "result", list)) for one in finished)
        name = place = _image_name(
            task.get("file_upload"), task if "annotation_id" in task else field(task, "data", dict)
        )
        if len(chosen) != 1:
            raise DataError(
                f"ambiguous annotation: {len(finished)} annotations, of which {len(chosen)} are the ground truth; mark "
                "one as the ground truth, or delete the others"
            )
        results = [result for result in chosen[0]["result"] if _labels(result.get("value")) is not None]
        labelled = {result.get("id") for result in results}
        # A region may stand twice, with and without its label.
        bare = [one for one in chosen[0]["result"] if _is_outline(one.get("value")) and one.get("id") not in labelled]
        count = len(results) + len(bare)
        if bare:
            raise DataError(f"malformed annotation: {len(bare)} of {count} regions have no label")
        sizes = {(whole(result, "original_height"), whole(result, "original_width")) for result in results}
        if len(sizes) > 1:
            raise DataError(f"malformed annotation: regions of different sizes of the image: {sorted(sizes)}")
        size = next(iter(sizes), None)
        yield Annotated(name, Shapes(tuple(map(_shape, results)), size=size), count)
    except (AttributeError, TypeError):
        yield BadEntry(place, "malformed annotation: an annotation or a region is not an object", count)
    except DataError as error:
        yield BadEntry(place, str(error), count)


def _minimal(task: dict) -> dict:
    """The annotation of a task in JSON-MIN: the regions of each control stand under its name."""
    values = [value for several in task.values() if isinstance(several, list) for value in several]
    sizes = ("original_width", "original_height", "image_rotation")
    return {"result": [{"value": one, **{key: one.get(key) for key in sizes}, "id": i} for i, one in enumerate(values)]}


def _image_name(uploaded: Any, data: dict) -> str:
    """The file of a task: what was uploaded, or else the only image of its data."""
    if isinstance(uploaded, str) and is_image(uploaded):
        return uploaded
    # /data/local-files/?d=folder/image.jpg, or a URL, maybe with a signature behind the path
    texts = [unquote(value.rpartition("?d=")[2].partition("?")[0]) for value in data.values() if isinstance(value, str)]
    named = [text.rpartition("://")[2] for text in texts if is_image(text)]
    if len(named) != 1:
        raise DataError(f"malformed annotation: the task's data name {len(named)} images, not one: {data!r:.80}")
    return named[0]


def _is_outline(value: Any) -> bool:
    """Whether the value of a result is a region: others are choices, texts, relations."""
    return isinstance(value, dict) and ("rle" in value or any(key in value for key in OUTLINES))


def _labels(value: Any) -> list | None:
    """The labels of a region, which stand under the name of its kind: polygonlabels, brushlabels, ..."""
    found = [labels for key, labels in value.items() if key.endswith("labels")] if isinstance(value, dict) else []
    return found[0] if found and isinstance(found[0], list) else None


def _shape(result: dict) -> Shape:
    value = field(result, "value", dict)
    labels = _labels(value) or []
    if len(labels) != 1 or not isinstance(labels[0], str):
        raise DataError(f"malformed annotation: a region needs one label, not {labels!r:.80}")
    if result.get("image_rotation"):
        raise DataError(f"unsupported annotation: the image is rotated by {result['image_rotation']} degrees")
    if "rle" in value:
        try:
            return Shape(labels[0], "brush", rle={"counts": bytes(field(value, "rle", list))})
        except (TypeError, ValueError):
            raise DataError("malformed annotation: the rle of a brush must be bytes from 0 to 255") from None
    width, height = whole(result, "original_width"), whole(result, "original_height")
    for key, outline in OUTLINES.items():
        if key in value:
            return Shape(labels[0], "coco_polygon", outline(value, width / 100, height / 100))
    raise DataError(f"unsupported shape: {result.get('type')}; allowed: polygons, rectangles, ellipses, brushes")


def _values(value: dict, *keys: str) -> list[float]:
    return numbers([value.get(key, 0 if key == "rotation" else None) for key in keys])


def _polygon(value: dict, across: float, down: float) -> Points:
    points = [numbers(point) for point in field(value, "points", list)]
    if any(len(point) != 2 for point in points):
        raise DataError("malformed annotation: a point of a polygon must be x and y")
    return tuple((x * across, y * down) for x, y in points)


def _ellipse(value: dict, across: float, down: float) -> Points:
    x, y, rx, ry, degrees = _values(value, "x", "y", "radiusX", "radiusY", "rotation")
    return ellipse((x * across, y * down), (rx * across, ry * down), degrees)


def _rectangle(value: dict, across: float, down: float) -> Points:
    """A rectangle is rotated about its upper left corner."""
    x, y, width, height, degrees = _values(value, "x", "y", "width", "height", "rotation")
    left, top, right, bottom = x * across, y * down, (x + width) * across, (y + height) * down
    return rotated(((left, top), (right, top), (right, bottom), (left, bottom)), (left, top), degrees)


#: Regions by a key that only they have, and how they are read.
OUTLINES: dict[str, Callable[[dict, float, float], Points]] = {
    "points": _polygon,
    "radiusX": _ellipse,
    "width": _rectangle,
}
