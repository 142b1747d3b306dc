"""labelme: a JSON file of outlines for each image, and labels.txt; see wkentaro/labelme."""

import posixpath
import re
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from typing import Any

from data.errors import DataError
from data.files import FileSystem, read_json, read_lines
from data.labels import LabelMap, label_map_of
from data.layouts.annotations import whole
from data.layouts.base import BadEntry, Layout, Sample, Shape, Shapes, split_folders

IGNORE = "__ignore__"
BACKGROUND = "_background_"
LABELS = "labels.txt"

#: Number of JSON files that are opened to see whether they are labelme's.
PROBED = 3


class Labelme(Layout):
    """Outlines, later ones on top.

    `__ignore__` is the ignore label (void), and so are uncovered pixels unless `_background_` is a class. Images that
    have no JSON file are not labelled yet, and not part of the dataset.
    """

    name = "labelme"

    @classmethod
    def detect(cls, root: str, files: FileSystem) -> bool:
        """Whether the first JSON files, in the folder or in that of a split, are labelme's."""
        layout = cls(root, files)
        folders = ["", *layout._folders().values()]
        return any(_is_labelme(layout.at(path), files) for f in folders for path in islice(layout._json(f), PROBED))

    def splits(self) -> tuple[str, ...]:
        """Splits that have a folder with JSON files."""
        return tuple(self._folders())

    def samples(self, split: str | None) -> Iterator[Sample | BadEntry]:
        """Streams the JSON files of a folder."""
        for path in self._json("" if split is None else self._folders()[split]):
            try:
                yield self._sample(path, split)
            except DataError as error:
                yield BadEntry(path, str(error))

    def label_map(self) -> LabelMap | None:
        """The classes of `labels.txt` without `__ignore__`; None if there is no such file."""
        if not self._labels:
            return None
        return label_map_of(self.at(LABELS), [(name, ()) for name in self._labels if name != IGNORE])

    @cached_property
    def _labels(self) -> tuple[str, ...]:
        if not self.has(LABELS):
            return ()
        return tuple(dict.fromkeys(text for _, text in read_lines(self.at(LABELS), self.files)))

    def _folders(self) -> dict[str, str]:
        return split_folders(lambda name: next(self._json(name), None) is not None)

    def _json(self, folder: str) -> Iterator[str]:
        names = self.names(folder)
        return (posixpath.join(folder, name) for name in names if name.lower().endswith(".json"))

    def _sample(self, path: str, split: str | None) -> Sample:
        content = read_json(self.at(path), self.files)
        image = content.get("imagePath") if isinstance(content, dict) else None
        if not isinstance(image, str) or not isinstance(content.get("shapes"), list):
            raise DataError("malformed annotation: not a labelme file: it needs imagePath and a list of shapes")
        if re.match(r"[\\/]|[A-Za-z]:", image):
            raise DataError(f"path outside the dataset: imagePath {image!r} is absolute")
        shapes = tuple(_shape(shape) for shape in content["shapes"])
        # Without labels.txt the label map comes from the configuration, where labelme's name means the background.
        background = BACKGROUND if not self._labels or BACKGROUND in self._labels else None
        folder = posixpath.dirname(path)
        stated = all(content.get(key) is not None for key in ("imageHeight", "imageWidth"))
        size = (whole(content, "imageHeight"), whole(content, "imageWidth")) if stated else None
        return self.sample(posixpath.join(folder, image.replace("\\", "/")), Shapes(shapes, background, size), split)


def _is_labelme(path: str, files: FileSystem) -> bool:
    try:
        content = read_json(path, files)
    except DataError:
        return False
    return isinstance(content, dict) and "shapes" in content and "imagePath" in content


def _shape(shape: Any) -> Shape:
    """A shape of the JSON file; older versions of labelme wrote no `shape_type` for polygons.

    X-AnyLabeling writes the four corners of a rectangle, also of a rotated one. The points of a mask are the corners of
    its box.
    """
    try:
        points = tuple((float(x), float(y)) for x, y in shape["points"])
        label, kind = str(shape["label"]), str(shape.get("shape_type") or "polygon")
        # labelme cuts off the fractions of a mask's corners, too.
        corner = tuple((float(int(x)), float(int(y))) for x, y in points[:1]) if kind == "mask" else ()
        png = str(shape["mask"]) if kind == "mask" else ""
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        raise DataError(f"malformed annotation: no label and points in {shape!r:.80}") from None
    name = None if label == IGNORE else label
    if kind == "mask":
        return Shape(name, "bitmap", corner, png=png)
    if kind in ("rectangle", "rotation") and len(points) == 4:
        kind = "polygon"
    return Shape(name, kind, points)
