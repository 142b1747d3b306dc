"""YOLO's segmentation: data.yaml, images/, and a text file of polygons in labels/ for each image.

Supervision writes the names of the classes alone into data.yaml, and Label Studio into classes.txt. Formats:
docs.ultralytics.com/datasets/segment and, with `masks_dir` and masks in place of polygons, .../semantic.
"""

import posixpath
import re
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from typing import Any

import yaml

from data.errors import DataError
from data.features import IGNORE_LABEL
from data.files import FileSystem, read_bytes, read_lines, relative_path
from data.labels import LabelMap, label_map_of
from data.layouts.annotations import (
    MOST_OPENED,
    background_of,
    head_of,
    identifier,
    polygon_area,
    with_background,
)
from data.layouts.base import (
    SPLIT_FOLDERS,
    SPLITS,
    BadEntry,
    Layout,
    MaskFile,
    Sample,
    Shape,
    Shapes,
    is_image,
    stem_of,
)

#: Keys that a dataset's YAML file has.
NAMES = re.compile(r"^names\s*:", re.MULTILINE)
STATED_SPLITS = re.compile(r"^(train|val|test)\s*:", re.MULTILINE)

#: Where the names of the classes stand where there is no YAML file.
CLASSES = "classes.txt"

#: Endings of the masks in `masks_dir`, in the order in which they are looked for.
SEMANTIC_ENDINGS = (".png", ".bmp", ".tif")

#: A YAML file of a dataset is a page; what is larger is none.
LARGEST_YAML = 2**20


class Yolo(Layout):
    """Polygons in fractions of the image, smaller ones over larger ones; all other pixels are the background.

    An image without a text file has no object, as long as the folder of the text files is there. Where `masks_dir`
    names a folder, its masks hold class ids, and 255 is the ignore label (void).
    """

    name = "yolo"

    @classmethod
    def detect(cls, root: str, files: FileSystem) -> bool:
        """Whether a file has the names of classes, and the splits are stated or have the usual folders."""
        layout = cls(root, files)
        found = layout._yaml_files()
        stated = any(STATED_SPLITS.search(head_of(layout.at(name), files)) for name in found)
        return stated or (bool(found or layout.has(CLASSES)) and bool(layout._usual))

    def splits(self) -> tuple[str, ...]:
        """The splits whose images are there.

        Raises:
            DataError: there are no images, or the YAML file is malformed.
        """
        found = tuple(split for split in SPLITS if self._places(split))
        if not found and not self._places(None):
            stated = {split: self._content.get(split) for split in SPLITS}
            raise DataError(f"images missing: {self.at(self._path)} names folders that are not in it: {stated}")
        return found

    def samples(self, split: str | None) -> Iterator[Sample | BadEntry]:
        """Streams the images of a split, then the text files that have no image."""
        labels: dict[str, set[str]] = {}
        for listed in self._images(split):
            image = listed
            try:
                image = relative_path(listed)
                mask = self._mask_file(image) if self._masks_dir else self._polygons(image, labels)
                yield self.sample(image, mask, split)
            except DataError as error:
                yield BadEntry(image, str(error))
        for folder, stems in labels.items():
            for name in self.names(folder):
                if name.endswith(".txt") and name != CLASSES and stem_of(name) not in stems:
                    yield BadEntry(posixpath.join(folder, name), f"image missing: no image is called {stem_of(name)}")

    def label_map(self) -> LabelMap:
        """The names in the YAML file.

        Raises:
            DataError: the YAML file is malformed, or the names are not a valid label map.
        """
        stated: Any = self._content.get("names")
        pairs = list(stated.items() if isinstance(stated, dict) else enumerate(stated or ()))
        classes = []
        for key, name in sorted(pairs, key=lambda pair: str(pair[0]).rjust(9)):
            value = identifier(key)
            if not isinstance(value, int) or value < 0 or not isinstance(name, str | int):
                raise DataError(f"malformed names: {self.at(self._path)}: {key!r}: {name!r} is no number and name")
            classes.append((str(name), (value,)))
        if self._masks_dir:
            return label_map_of(self.at(self._path), classes, (IGNORE_LABEL,))
        return with_background(self.at(self._path), classes)

    def _yaml_files(self) -> list[str]:
        names = (name for name in self.names("") if name.endswith((".yaml", ".yml")))
        found = (name for name in islice(names, MOST_OPENED) if NAMES.search(head_of(self.at(name), self.files)))
        return sorted(found)

    @cached_property
    def _path(self) -> str:
        found = self._yaml_files() or list(filter(self.has, [CLASSES]))
        if len(found) != 1:
            raise DataError(
                f"{self.root}: the yolo layout needs one YAML file with 'names', or {CLASSES}; found: "
                f"{', '.join(found) or 'none'}"
            )
        return found[0]

    @cached_property
    def _content(self) -> dict[str, Any]:
        if self._path == CLASSES:
            return {"names": [text for _, text in read_lines(self.at(CLASSES), self.files)]}
        text = read_bytes(self.at(self._path), self.files, "YAML file")
        try:
            content = yaml.safe_load(text) if len(text) <= LARGEST_YAML else None
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise DataError(f"invalid YAML: {self.at(self._path)}: {error!s:.200}") from None
        if not isinstance(content, dict) or not isinstance(content.get("names"), list | dict):
            raise DataError(f"no dataset of YOLO: {self.at(self._path)}: 'names' must be a list or a mapping")
        return content

    @property
    def _masks_dir(self) -> str:
        value = self._content.get("masks_dir")
        return value.strip("/") if isinstance(value, str) else ""

    @cached_property
    def _usual(self) -> dict[str | None, str]:
        """Split, or None for the whole dataset -> folder of images beside which are text files."""
        patterns = ("images/{}", "{}/images")
        named = [(split, p.format(f)) for split, folders in SPLIT_FOLDERS.items() for f in folders for p in patterns]
        found: dict[str | None, str] = {split: folder for split, folder in named if self._has_texts(folder)}
        if not found and self._has_texts("images"):
            found[None] = "images"
        return found

    def _has_texts(self, images: str) -> bool:
        names = islice(self.names(_beside(f"{images}/", "labels").rstrip("/")), MOST_OPENED)
        return self.has(images) and any(name.endswith(".txt") for name in names)

    def _places(self, split: str | None) -> list[str]:
        """The folders of images, or the lists of images, of a split, relative to the root."""
        if not any(self._content.get(split) for split in SPLITS):
            return [self._usual[split]] if split in self._usual else []
        stated = self._content.get(split) if split else None
        values = stated if isinstance(stated, list) else [stated]
        return [place for value in values if isinstance(value, str) and (place := self._place(value)) is not None]

    def _place(self, value: str) -> str | None:
        """The path relative to the root of a path in the YAML file; None if it is not there.

        `path` is where the dataset was on the author's disk, and Roboflow's paths begin with '../'.
        """
        base = self._content.get("path")
        below = posixpath.join(base, value) if isinstance(base, str) else value
        for text in (below, value, re.sub(r"^(\.\./)+", "", value)):
            try:
                path = relative_path(text)
            except DataError:
                continue
            if self.has(path):
                return path
        return None

    def _images(self, split: str | None) -> Iterator[str]:
        for place in self._places(split):
            if place.endswith(".txt"):
                folder = posixpath.dirname(place)
                yield from (posixpath.join(folder, line) for _, line in read_lines(self.at(place), self.files))
            else:
                names = self.names(place)
                yield from (posixpath.join(place, name) for name in names if is_image(name))

    def _mask_file(self, image: str) -> MaskFile | None:
        stem = stem_of(_beside(image, self._masks_dir))
        found = (stem + ending for ending in SEMANTIC_ENDINGS if self.has(relative_path(stem + ending)))
        return next((MaskFile(self.at(relative_path(path))) for path in found), None)

    def _polygons(self, image: str, labels: dict[str, set[str]]) -> Shapes | None:
        """The polygons of an image; None if the folder of its text file is missing. Notes the file in `labels`."""
        path = f"{stem_of(_beside(image, 'labels'))}.txt"
        folder, _, name = path.rpartition("/")
        if folder not in labels and self.has(folder):
            labels[folder] = set()
        if folder not in labels:
            return None
        labels[folder].add(stem_of(name))
        lines = read_lines(self.at(path), self.files) if self.has(path) else iter(())
        shapes = sorted((_shape(f"{path}:{number}", line) for number, line in lines), key=_negative_area)
        return Shapes(tuple(shapes), background_of(map(str, self._names)))

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return self.label_map().names


def _beside(image: str, folder: str) -> str:
    """The path of an image with another folder in the place of the last one called images."""
    above, found, below = f"/{image}".rpartition("/images/")
    return f"{above}/{folder}/{below}".removeprefix("/") if found else image


def _shape(place: str, line: str) -> Shape:
    label, *texts = line.split()
    try:
        values = [float(text) for text in texts]
        number = int(label)
    except ValueError:
        raise DataError(
            f"malformed annotation: {place}: {line!r:.80}; expected a class id and x, y, x, y, ..."
        ) from None
    if len(values) == 4:
        raise DataError(f"malformed annotation: {place}: a box is not enough; a polygon has at least 3 points")
    if len(values) < 6 or len(values) % 2:
        raise DataError(f"malformed annotation: {place}: {len(values)} coordinates are no polygon")
    return Shape(number, "unit_polygon", tuple(zip(values[::2], values[1::2], strict=True)))


def _negative_area(shape: Shape) -> float:
    return -polygon_area(shape.points)
