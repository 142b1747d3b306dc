"""Supervisely: meta.json, and for each dataset of the project img/ and ann/, with a JSON file for each image.

Format: docs.supervisely.com, under "Supervisely annotation format".
"""

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from data.errors import DataError
from data.files import FileSystem, read_json
from data.labels import LabelMap
from data.layouts.annotations import Points, background_of, field, head_of, numbers, split_in, whole, with_background
from data.layouts.base import BadEntry, Layout, Sample, Shape, Shapes, is_image, stem_of

META = "meta.json"

#: How meta.json begins, or what it holds further on.
SIGNATURE = re.compile(r'\{.*"classes"\s*:\s*\[', re.DOTALL)


class Supervisely(Layout):
    """Polygons, bitmaps and rectangles, later ones on top; all other pixels are the background.

    The source is the dataset of the project; the official splits are the datasets, if all of them are called by one.
    Images without a JSON file are not labelled yet, and not part of the dataset.
    """

    name = "supervisely"

    @classmethod
    def detect(cls, root: str, files: FileSystem) -> bool:
        """Whether meta.json states classes, and a folder has img/ and ann/."""
        layout = cls(root, files)
        return bool(SIGNATURE.match(head_of(layout.at(META), files))) and bool(layout.datasets)

    @cached_property
    def datasets(self) -> tuple[str, ...]:
        """The folders that have img/ and ann/."""
        return tuple(name for name in sorted(self.names("")) if self.has(f"{name}/img") and self.has(f"{name}/ann"))

    def splits(self) -> tuple[str, ...]:
        """The splits that the datasets' names say, if all of them say one."""
        found = [split_in(name) for name in self.datasets]
        return () if None in found else tuple(dict.fromkeys(split for split in found if split))

    def samples(self, split: str | None) -> Iterator[Sample | BadEntry]:
        """Streams the annotations of the datasets in a split."""
        for dataset in self.datasets:
            if split is None or split_in(dataset) == split:
                for name in self.names(f"{dataset}/ann"):
                    if name.endswith(".json"):
                        yield self._sample(dataset, name, split)

    def label_map(self) -> LabelMap:
        """The classes of meta.json, after the background.

        Raises:
            DataError: meta.json is malformed, or the names are not a valid label map.
        """
        content = read_json(self.at(META), self.files)
        names = [field(entry, "title", str) for entry in field(content, "classes", list)]
        return with_background(self.at(META), [(name, ()) for name in names])

    @cached_property
    def _background(self) -> str:
        return background_of(self.label_map().names)

    def _sample(self, dataset: str, name: str, split: str | None) -> Sample | BadEntry:
        path = f"{dataset}/ann/{name}"
        # The image of x.jpg.json is x.jpg; older projects call it x.json.
        image = f"{dataset}/img/{stem_of(name)}"
        if not is_image(image):
            image = next((f"{image}{e}" for e in (".jpg", ".jpeg", ".png") if self.has(f"{image}{e}")), f"{image}.jpg")
        try:
            content = read_json(self.at(path), self.files)
            size = field(content, "size", dict)
            shapes = tuple(map(_shape, field(content, "objects", list)))
            mask = Shapes(shapes, self._background, (whole(size, "height"), whole(size, "width")))
            return self.sample(image, mask, split, dataset)
        except DataError as error:
            return BadEntry(path, str(error))


def _shape(entry: Any) -> Shape:
    label = field(entry, "classTitle", str)
    # Older projects do not name the geometry.
    kind = (
        field(entry, "geometryType", str) if "geometryType" in entry else "bitmap" if entry.get("bitmap") else "polygon"
    )
    if kind == "bitmap":
        bitmap = field(entry, "bitmap", dict)
        return Shape(label, kind, _points([bitmap.get("origin")]), png=field(bitmap, "data", str))
    if kind not in ("polygon", "rectangle"):
        raise DataError(f"unsupported shape: {kind}; allowed: bitmap, polygon, rectangle")
    points = field(entry, "points", dict)
    holes = points.get("interior") or []
    if not isinstance(holes, list):
        raise DataError(f"malformed annotation: the interior of a {kind} is {holes!r:.80}")
    return Shape(label, kind, _points(field(points, "exterior", list)), holes=tuple(map(_points, holes)))


def _points(values: Any) -> Points:
    points = [numbers(point) for point in values] if isinstance(values, list) else []
    if not points or any(len(point) != 2 for point in points):
        raise DataError(f"malformed annotation: expected points x and y, not {values!r:.80}")
    return tuple((x, y) for x, y in points)
