"""COCO: one JSON file for all images of a split, with instances as polygons or run-length encodings.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; formats as on cocodataset.org/#format-data.
"""

import math
import posixpath
import re
from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, ClassVar, TypeVar

from data.errors import DataError
from data.files import FileSystem, read_json, relative_path
from data.labels import LabelMap, label_map_of
from data.layouts.base import SPLIT_FOLDERS, BadEntry, Layout, Mask, Sample, Shape, Shapes, stem_of

#: Names of a category that is the background; the first one is used where there is no such category.
BACKGROUNDS = ("background", "_background_", "__background__")

#: Number of images that are looked for to find the folder that they are in.
PROBED = 5

Kind = TypeVar("Kind")


class CocoFiles(Layout):
    """Base of COCO's formats: finds the annotation files and the images, and makes the label map.

    The JSON file of a split is read as a whole: COCO's largest has half a gigabyte.
    """

    pattern: ClassVar[str]
    """Regular expression of the annotation files' names."""
    has_background: ClassVar[bool]
    """Whether the pixels outside of all regions are a class, the first unless a category is called background."""

    @classmethod
    def detect(cls, root: str, files: FileSystem) -> bool:
        """Whether an annotation file is there: in the folder itself, in annotations/, or in that of a split."""
        return next(cls(root, files).find(), None) is not None

    def find(self) -> Iterator[str]:
        """Annotation files, relative to the root."""
        for folder in ("", "annotations"):
            names = self.files.list(self.at(folder))
            yield from (posixpath.join(folder, name) for name in names if re.fullmatch(self.pattern, name))

    @abstractmethod
    def mask_of(self, path: str, image: dict, annotations: list[dict], background: str) -> Mask | None:
        """The mask of an image, from its annotations in the annotation file at `path`.

        Raises:
            DataError: an annotation is malformed.
        """

    def splits(self) -> tuple[str, ...]:
        """The splits that the names of the annotation files or of their folders say."""
        return tuple(split for split in self._annotation_files() if split)

    def samples(self, split: str | None) -> Iterator[Sample | BadEntry]:
        """Streams the images of a split's annotation file."""
        path = self._annotation_files()[split]
        content = self._content(path)
        annotations = defaultdict(list)
        for annotation in content["annotations"]:
            annotations[_id(annotation, "image_id")].append(annotation)
        images = content["images"]
        folder = self._image_folder(path, images)
        names = _categories(path, content).values()
        background = next((name for name in names if name in BACKGROUNDS), BACKGROUNDS[0])
        known = Counter(_id(image, "id") for image in images)
        for image in images:
            image_id = _id(image, "id")
            try:
                if image_id is None or known[image_id] > 1:
                    raise DataError(f"malformed annotation: image id {image_id!r} is missing or used more than once")
                name = posixpath.join(folder, field(image, "file_name", str))
                yield self.sample(name, self.mask_of(path, image, annotations[image_id], background), split)
            except DataError as error:
                named = isinstance(image, dict) and "file_name" in image
                yield BadEntry(str(image["file_name"]) if named else path, str(error))
        for image_id in annotations.keys() - known.keys():
            yield BadEntry(
                path, f"image missing: {len(annotations[image_id])} annotations are of image id {image_id!r}"
            )

    def label_map(self) -> LabelMap:
        """The categories of all annotation files in the order of their ids, and the background.

        Raises:
            DataError: two files give the same id different names, or the names are not a valid label map.
        """
        names: dict[int, str] = {}
        for path in self._annotation_files().values():
            for number, name in _categories(path, self._content(path)).items():
                if names.setdefault(number, name) != name:
                    raise DataError(f"categories differ: id {number} is {names[number]!r}, but {name!r} in {path}")
        classes = [(name, (number,)) for number, name in sorted(names.items())]
        if self.has_background and not any(name in BACKGROUNDS for name in names.values()):
            return label_map_of(self.root, [(BACKGROUNDS[0], ()), *classes])
        return label_map_of(self.root, classes)

    def _annotation_files(self) -> dict[str | None, str]:
        """Split, or None for the whole dataset -> annotation file, relative to the root."""
        paths = sorted(self.find())
        found = {_split_of(path): path for path in paths}
        if not paths or len(found) < len(paths) or (None in found and len(found) > 1):
            raise DataError(
                f"{self.root}: the {self.name} layout needs one annotation file, or one for each split; "
                f"found: {', '.join(paths) or 'none'}"
            )
        return {split: found[split] for split in (*SPLIT_FOLDERS, None) if split in found}

    def _content(self, path: str) -> dict[str, list]:
        content = read_json(self.at(path), self.files)
        for key in ("images", "annotations", "categories"):
            if not isinstance(content, dict) or not isinstance(content.get(key), list):
                raise DataError(f"no COCO annotation file: {path}: it needs the list {key!r}")
        return content

    def _image_folder(self, path: str, images: list) -> str:
        """The folder, relative to the root, in which the first images are found; the root if they are nowhere."""
        split = stem_of(path.rpartition("/")[2]).partition("_")[2]
        usual = ("", posixpath.dirname(path), split, "images", f"images/{split}")
        names = [str(image.get("file_name")) for image in images[:PROBED] if isinstance(image, dict)]
        for candidates in (usual, filter(lambda name: "." not in name, self.files.list(self.root))):
            for folder in candidates:
                if any(self._has_file(posixpath.join(folder, name)) for name in names):
                    return folder
        return ""

    def _has_file(self, relative: str) -> bool:
        try:
            return self.has(relative_path(relative))
        except DataError:
            return False


class Coco(CocoFiles):
    """Instances as semantic classes, smaller ones over larger ones.

    Crowds are the ignore label (void), all other pixels the background.
    """

    name = "coco"
    # instances_val2017.json, annotations.json, val.json
    pattern = r"(instances_.*|annotations?|(train|val|test)[^_]*)\.json"
    has_background = True

    def find(self) -> Iterator[str]:
        """Annotation files as in COCO, or one beside the images of each split, as Roboflow exports them."""
        yield from super().find()
        exported = (f"{name}/_annotations.coco.json" for names in SPLIT_FOLDERS.values() for name in names)
        yield from filter(self.has, exported)

    def mask_of(self, path: str, image: dict, annotations: list[dict], background: str) -> Shapes:
        """The regions of all instances."""
        # A crowd is a rough outline, so it lies below everything else.
        ordered = sorted(annotations, key=lambda one: (not one.get("iscrowd"), -_area(one)))
        shapes = tuple(shape for annotation in ordered for shape in _shapes(annotation))
        return Shapes(shapes, background, (field(image, "height", int), field(image, "width", int)))


def field(entry: Any, key: str, kind: type[Kind]) -> Kind:
    """The value of a key of a JSON object.

    Raises:
        DataError: it is missing or of another type.
    """
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"malformed annotation: {key!r} must be of type {kind.__name__}, not {value!r:.80}")
    return value


def _id(entry: Any, key: str) -> int | str | None:
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if isinstance(value, int | str) else None


def _area(annotation: dict) -> float:
    value = annotation.get("area", 0)
    return value if isinstance(value, int | float) and math.isfinite(value) else 0


def _categories(path: str, content: dict[str, list]) -> dict[int, str]:
    try:
        pairs = [(field(entry, "id", int), field(entry, "name", str)) for entry in content["categories"]]
    except DataError as error:
        raise DataError(f"malformed categories: {path}: {error}") from None
    return dict(pairs)


def _split_of(path: str) -> str | None:
    """The split in the name of the file, or else in that of its folder; None where neither names one."""
    folder, _, name = path.rpartition("/")
    for text in (name, folder):
        match = re.search(r"(?<![a-z])(train|val|test)", text)
        if match:
            return match.group(1)
    return None


def _shapes(annotation: dict) -> Iterator[Shape]:
    """The regions of an annotation: any number of polygons, or one run-length encoding."""
    label = None if annotation.get("iscrowd") else field(annotation, "category_id", int)
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        yield Shape(label, "rle", rle=segmentation)
    elif isinstance(segmentation, list) and segmentation:
        for polygon in segmentation:
            yield Shape(label, "coco_polygon", _points(polygon))
    else:
        raise DataError(f"malformed annotation: id {annotation.get('id')!r} has no segmentation; a box is not enough")


def _points(polygon: Any) -> tuple[tuple[float, float], ...]:
    """[x1, y1, x2, y2, ...] as points."""
    numbers = isinstance(polygon, list) and all(isinstance(value, int | float) for value in polygon)
    if not numbers or len(polygon) % 2:
        raise DataError("malformed annotation: a polygon must be a list of x1, y1, x2, y2, ...")
    return tuple(zip(polygon[::2], polygon[1::2], strict=True))
