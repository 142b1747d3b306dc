"""COCO: one JSON file for all images of a split, with instances as polygons or run-length encodings.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; formats as on cocodataset.org/#format-data. CVAT,
Label Studio, Roboflow, FiftyOne and others write it in ways of their own, which are read too.
"""

import logging
import posixpath
import re
from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, ClassVar

from data.errors import DataError
from data.files import FileSystem, read_json
from data.labels import LabelMap, label_map_of
from data.layouts.annotations import (
    BACKGROUNDS,
    FOLDERS,
    HEAD,
    AnnotationFiles,
    NamedImages,
    background_of,
    field,
    head_of,
    identifier,
    numbers,
    polygon_area,
    whole,
    with_background,
    without_annotations,
)
from data.layouts.base import BadEntry, Mask, Sample, Shape, Shapes
from data.rle import coco_runs

#: How an annotation file of COCO begins; the categories alone may fill the beginning.
SIGNATURE = re.compile(r'\{.*"(images|annotations)"\s*:\s*\[', re.DOTALL)
CATEGORIES = re.compile(r'\{.*"categories"\s*:\s*\[', re.DOTALL)

#: Files that have the same keys, but no instances.
OTHER_FILES = re.compile(r"(captions|person_keypoints|image_info|panoptic)_.*")

MOST_NAMED = 10


@dataclass(frozen=True)
class AnnotationFile:
    """What an annotation file says beside its images and annotations."""

    path: str
    """Relative to the root."""
    categories: dict[int | str, str]
    """Id -> name."""
    exported: frozenset[int | str | None]
    """Categories of which every annotation is a crowd."""

    def label(self, annotation: dict) -> int | str:
        """The label of an annotation's category: its id or, where the id is no number, its name.

        Raises:
            DataError: there is no such category.
        """
        category = identifier(annotation.get("category_id"))
        if category not in self.categories:
            allowed = ", ".join(map(str, islice(self.categories, MOST_NAMED))) or "none"
            raise DataError(
                f"malformed annotation: 'category_id' {annotation.get('category_id')!r:.80} is none of the categories; "
                f"the first ones are {allowed}"
            )
        return category if isinstance(category, int) else self.categories[category]


class CocoFiles(AnnotationFiles):
    """Base of COCO's formats: finds the annotation files and the images, and makes the label map.

    The JSON file of a split is read as a whole: COCO's largest has half a gigabyte.
    """

    pattern: ClassVar[str]
    """Regular expression of the annotation files' names."""
    has_background: ClassVar[bool]
    """Whether the pixels outside of all regions are a class, the first unless a category is called background."""

    def find(self) -> Iterator[str]:
        """Annotation files, relative to the root."""
        for folder in ("", "annotations"):
            names = self.names(folder)
            yield from (posixpath.join(folder, name) for name in names if re.fullmatch(self.pattern, name))

    @abstractmethod
    def mask_of(self, file: AnnotationFile, image: dict, annotations: list[dict]) -> Mask | None:
        """The mask of an image, from its annotations.

        Raises:
            DataError: an annotation is malformed.
        """

    def samples(self, split: str | None) -> Iterator[Sample | BadEntry]:
        """Streams the images of a split's annotation file, then the annotations that belong to none of them."""
        file, content = self._read(self.annotation_files()[split])
        for note in self.departures(file, content):
            logging.getLogger(__name__).warning("%s", note)
        annotations = defaultdict(list)
        for annotation in content["annotations"]:
            annotations[_id(annotation, "image_id")].append(annotation)
        images = content["images"]
        names = [image["file_name"] for image in images if isinstance(image, dict) and _names_file(image)]
        places = NamedImages(self, names, self.image_folders(file.path), split)
        known = Counter(_id(image, "id") for image in images)
        for image in images:
            image_id = _id(image, "id")
            its_own = [] if image_id is None else annotations.pop(image_id, [])
            try:
                if image_id is None or known[image_id] > 1:
                    raise DataError(f"malformed annotation: image id {image_id!r} is missing or used more than once")
                name = places.path(field(image, "file_name", str))
                sample = self.sample(name, self.mask_of(file, image, its_own), split)
                yield replace(sample, annotations=len(its_own))
            except DataError as error:
                named = isinstance(image, dict) and "file_name" in image
                yield BadEntry(str(image["file_name"]) if named else file.path, str(error), len(its_own))
        for image_id, lost in annotations.items():
            reason = f"image missing: {len(lost)} annotations are of image id {image_id!r}, which no image has"
            yield BadEntry(file.path, reason, len(lost))

    def label_map(self) -> LabelMap:
        """The categories of all annotation files in the order of their ids, and the background.

        Raises:
            DataError: there are images but no annotations, or two files give the same id different names, or the names
                are not a valid label map.
        """
        images = 0
        names: dict[int | str, str] = {}
        used: set[int | str | None] = set()
        roots: set[int | str] = set()
        for path in self.annotation_files().values():
            file, content = self._read(path)
            used.update(_id(annotation, "category_id") for annotation in content["annotations"])
            roots.update(_roboflow_roots(content))
            images += len(content["images"])
            for number, name in file.categories.items():
                if names.setdefault(number, name) != name:
                    raise DataError(f"categories differ: id {number} is {names[number]!r}, but {name!r} in {path}")
        if images and not used:
            paths = ", ".join(self.annotation_files().values())
            raise DataError(
                f"annotations missing: {self.root} has {images} images and no annotation in {paths}; tools leave out "
                "what COCO cannot hold, as Label Studio does with brushes: export another format"
            )
        kept = {number: name for number, name in names.items() if number in used or number not in roots}
        in_order = sorted(kept.items(), key=lambda item: (isinstance(item[0], str), item[0]))
        classes = [(name, (number,) if isinstance(number, int) else ()) for number, name in in_order]
        return with_background(self.root, classes) if self.has_background else label_map_of(self.root, classes)

    def remarks(self) -> Iterator[str]:
        """What the annotation files mean where they depart from COCO."""
        for path in self.annotation_files().values():
            yield from self.departures(*self._read(path))

    def departures(self, file: AnnotationFile, content: dict[str, list]) -> Iterable[str]:
        """What an annotation file means where it departs from COCO, as sentences."""
        return ()

    def _read(self, path: str) -> tuple[AnnotationFile, dict[str, list]]:
        content = read_json(self.at(path), self.files)
        for key in ("images", "annotations", "categories"):
            if not isinstance(content, dict) or not isinstance(content.get(key), list):
                raise DataError(f"no COCO annotation file: {path}: it needs the list {key!r}")
        categories = {}
        for entry in content["categories"]:
            if (number := _id(entry, "id")) is None:
                raise DataError(f"malformed categories: {path}: 'id' must be a number or a text in {entry!r:.80}")
            try:
                categories[number] = field(entry, "name", str)
            except DataError as error:
                raise DataError(f"malformed categories: {path}: {error}") from None
        crowds: dict[int | str | None, bool] = {}
        for annotation in content["annotations"]:
            category = _id(annotation, "category_id")
            crowds[category] = crowds.get(category, True) and is_crowd(annotation)
        return AnnotationFile(path, categories, frozenset(c for c, alone in crowds.items() if alone)), content


class Coco(CocoFiles):
    """Instances as semantic classes, smaller ones over larger ones; all other pixels are the background.

    Crowds are the ignore label (void). Where every annotation of a category in a file is a crowd, they count as their
    category: tools mark a region so for being a run-length encoding.
    """

    name = "coco"
    # instances_val2017.json, annotations.json, val.json
    pattern = r"(instances_.*|annotations?|(train|val|dev|test)[^_]*)\.json"
    has_background = True

    @classmethod
    def detect(cls, root: str, files: FileSystem) -> bool:
        """Whether a file that begins like one of COCO's is there."""
        layout = cls(root, files)
        return any(_is_coco(head_of(layout.at(path), files)) for path in layout.find())

    def find(self) -> Iterator[str]:
        """Annotation files named as in COCO or, as Roboflow does, beside the images; else any that begins like one."""
        exported = (posixpath.join(folder, "_annotations.coco.json") for folder in FOLDERS)
        usual = [*super().find(), *filter(self.has, exported)]
        found = usual or self.beginning_with(_is_coco)
        yield from (path for path in found if not OTHER_FILES.match(posixpath.basename(path)))

    def mask_of(self, file: AnnotationFile, image: dict, annotations: list[dict]) -> Shapes:
        """The regions of all instances."""
        drawn = []
        for annotation in annotations:
            void = is_crowd(annotation) and _id(annotation, "category_id") not in file.exported
            shapes = tuple(_shapes(annotation, None if void else file.label(annotation)))
            # A crowd is a rough outline, so it lies below everything else.
            drawn.append(((not void, -_area(annotation, shapes)), shapes))
        drawn.sort(key=lambda item: item[0])
        background = background_of(file.categories.values())
        size = (whole(image, "height"), whole(image, "width"))
        return Shapes(tuple(shape for _, shapes in drawn for shape in shapes), background, size)

    def departures(self, file: AnnotationFile, content: dict[str, list]) -> Iterator[str]:
        """Categories that are crowds alone, the number of crowds, and categories without annotations."""
        exported = [name for number, name in file.categories.items() if number in file.exported]
        if exported:
            yield (
                f"{file.path}: every annotation of {_listed(exported)} has iscrowd 1, which tools write that export "
                "run-length encodings; they count as their class, not as void."
            )
        crowds = sum(is_crowd(one) and _id(one, "category_id") not in file.exported for one in content["annotations"])
        if crowds:
            total = len(content["annotations"])
            yield f"{file.path}: {crowds} of {total} annotations are crowds (iscrowd 1), whose pixels are void."
        used = {_id(annotation, "category_id") for annotation in content["annotations"]}
        roots = set(_roboflow_roots(content))
        unused = [
            name
            for number, name in file.categories.items()
            if number not in used and number not in roots and name not in BACKGROUNDS
        ]
        if unused:
            yield f"{file.path}: no annotation is of {_listed(unused)}."
        annotated = {_id(annotation, "image_id") for annotation in content["annotations"]}
        bare = sum(_id(image, "id") not in annotated for image in content["images"])
        yield from without_annotations(file.path, bare, len(content["images"]))


def _is_coco(head: str) -> bool:
    return bool(SIGNATURE.match(head) or (len(head) >= HEAD // 4 and CATEGORIES.match(head)))


def _id(entry: Any, key: str) -> int | str | None:
    return identifier(entry.get(key)) if isinstance(entry, dict) else None


def _names_file(image: dict) -> bool:
    return isinstance(image.get("file_name"), str)


def is_crowd(annotation: Any) -> bool:
    """Whether an annotation or a segment is a crowd: `iscrowd` is 1, 1.0, '1' or true."""
    value = annotation.get("iscrowd") if isinstance(annotation, dict) else None
    return value is True or identifier(value) == 1


def _roboflow_roots(content: dict[str, list]) -> Iterator[int | str]:
    """Ids of the categories that Roboflow adds above the others: without a supercategory, and that of others."""
    above = {str(entry.get("supercategory")) for entry in content["categories"]}
    for entry in content["categories"]:
        number = identifier(entry["id"])
        if entry.get("supercategory") == "none" and entry["name"] in above and number is not None:
            yield number


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _area(annotation: dict, shapes: tuple[Shape, ...]) -> float:
    """The stated area in pixels, or else that of the region."""
    value = annotation.get("area")
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf"):
        return value
    return sum(_region_area(shape) for shape in shapes)


def _region_area(shape: Shape) -> float:
    if shape.rle is None:
        return polygon_area(shape.points)
    runs = coco_runs(shape.rle.get("counts"))[1::2]
    return sum(run for run in runs if isinstance(run, int))


def _shapes(annotation: dict, label: int | str | None) -> Iterator[Shape]:
    """The regions of an annotation: any number of polygons, or one run-length encoding."""
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
    try:
        values = numbers(polygon)
    except DataError:
        values = []
    if not values or len(values) % 2:
        raise DataError("malformed annotation: a polygon must be a list of x1, y1, x2, y2, ...")
    return tuple(zip(values[::2], values[1::2], strict=True))
