"""What the readers of annotation files share: values in JSON, the images that a file names, and the background."""

import math
import posixpath
import re
import unicodedata
from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar

from pydantic import ValidationError

from data.errors import DataError
from data.files import FileSystem, relative_path, walk
from data.labels import LabelMap, label_map_of
from data.layouts.base import SPLIT_FOLDERS, VAL, BadEntry, Layout, Sample, Shapes, is_image, stem_of

#: Names of a class that is the background; the first one is used where a dataset names none.
BACKGROUNDS = ("background", "_background_", "__background__")

#: A file is recognised as an annotation file by its first bytes: it may have gigabytes.
HEAD = 2**16

#: Number of files of a folder that are opened to see whether they are annotation files.
MOST_OPENED = 20

#: Where annotation files are looked for: the root, annotations/, the folders of splits.
FOLDERS = ("", "annotations", *(name for names in SPLIT_FOLDERS.values() for name in names))

#: Number of images that are looked for to find the folder that they are in.
PROBED = 5

#: What Label Studio puts before the name of an image that is uploaded.
UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")

#: Number of corners of the polygon that stands for an ellipse: its area is 0.1 % too small.
ELLIPSE_CORNERS = 80

#: No id and no size in pixels is larger.
LARGEST_NUMBER = 2**63

Kind = TypeVar("Kind")
Points = tuple[tuple[float, float], ...]


def field(entry: Any, key: str, kind: type[Kind]) -> Kind:
    """The value of a key of a JSON object.

    Raises:
        DataError: it is missing or of another type.
    """
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"malformed annotation: {key!r} must be of type {kind.__name__}, not {value!r:.80}")
    return value


def identifier(value: Any) -> int | str | None:
    """An id as tools write it: 1, 1.0, '1' and '1.0' are one id, other texts are themselves, all else is None."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        number = re.fullmatch(r"\s*(-?(?:0|[1-9][0-9]{0,17}))(?:\.0+)?\s*", value)
        return int(number[1]) if number else value
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def whole(entry: Any, key: str) -> int:
    """The value of a key that is a whole number, be it written as 84, 84.0 or '84'.

    Raises:
        DataError: it is missing, no whole number, or larger than any id or size.
    """
    value = identifier(entry.get(key)) if isinstance(entry, dict) else None
    found = value if isinstance(value, int) else field(entry, key, int)
    if abs(found) > LARGEST_NUMBER:
        raise DataError(f"malformed annotation: {key!r} is a number of {len(f'{found:x}')} hexadecimal digits")
    return found


def numbers(values: Any) -> list[float]:
    """Finite numbers of a JSON list.

    Raises:
        DataError: it is something else.
    """
    try:
        found = [float(value) for value in values if not isinstance(value, str | bool)]
    except (OverflowError, TypeError, ValueError):
        found = []
    if not isinstance(values, list) or len(found) < len(values) or not all(map(math.isfinite, found)):
        raise DataError(f"malformed annotation: expected a list of numbers, not {values!r:.80}")
    return found


def rotated(points: Iterable[tuple[float, float]], pivot: tuple[float, float], degrees: float) -> Points:
    """Points (x, y) in pixels, turned clockwise on the screen, where y points down."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    shifted = ((x - pivot[0], y - pivot[1]) for x, y in points)
    return tuple((pivot[0] + x * cos - y * sin, pivot[1] + x * sin + y * cos) for x, y in shifted)


def ellipse(centre: tuple[float, float], radii: tuple[float, float], degrees: float = 0) -> Points:
    """An ellipse in pixels as a polygon."""
    angles = (2 * math.pi * i / ELLIPSE_CORNERS for i in range(ELLIPSE_CORNERS))
    outline = ((centre[0] + radii[0] * math.cos(a), centre[1] + radii[1] * math.sin(a)) for a in angles)
    return rotated(outline, centre, degrees)


def polygon_area(points: Points) -> float:
    """The area of a polygon, by the shoelace formula."""
    pairs = zip(points, points[1:] + points[:1], strict=True)
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairs)) / 2


def background_of(names: Iterable[str]) -> str:
    """The name of the background among the names of the classes; the usual one if none of them is it."""
    return next((name for name in names if name in BACKGROUNDS), BACKGROUNDS[0])


def with_background(place: str, classes: Iterable[tuple[str, tuple[int, ...]]]) -> LabelMap:
    """The label map of classes (name, label values): the background is the first unless it is one of them.

    Raises:
        DataError: the classes are not a valid label map; `place` is the file that states them.
    """
    stated = list(classes)
    background = background_of(name for name, _ in stated)
    if background not in (name for name, _ in stated):
        stated.insert(0, (background, ()))
    return label_map_of(place, stated)


def colored_label_map(place: str, stated: Iterable[tuple[str, str, Sequence[str]]], ignored: str) -> LabelMap:
    """The label map of masks in RGB, whose colours a file states.

    Args:
        place: the file.
        stated: of each class its line, its name, and red, green and blue as text.
        ignored: the name, in lower case, of what is the ignore label (void) and no class.

    Raises:
        DataError: a colour is malformed, or the classes are not a valid label map.
    """
    classes, void = [], []
    for line, name, color in stated:
        if len(color) != 3 or not all(re.fullmatch(r"\s*[0-9]{1,3}\s*", channel) for channel in color):
            raise DataError(f"malformed colour: {line}: {name!r} needs red, green and blue from 0 to 255")
        rgb = [int(channel) for channel in color]
        if name.lower() == ignored:
            void.append(rgb)
        else:
            classes.append({"name": name, "colors": [rgb]})
    try:
        return LabelMap.model_validate({"classes": classes, "ignore_colors": void})
    except ValidationError as error:
        raise DataError(f"invalid label map: {place}: {error.errors()[0]['msg']}") from None


def head_of(path: str, files: FileSystem) -> str:
    """The first characters of a text file; empty if it cannot be read."""
    try:
        with files.open(path) as file:
            return file.read(HEAD).decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    except OSError:
        return ""


def _split_of(path: str) -> str | None:
    """The split in the name of the file, or else in that of its folder; None where neither names one."""
    folder, _, name = path.rpartition("/")
    return split_in(name) or split_in(folder)


def split_in(text: str) -> str | None:
    """The split that a name says, such as 'instances_val2017.json' or 'Train'; None if it says none."""
    match = re.search(r"(?<![a-z])(train|val|test|dev)(?:ing|id|idation|val)?(?![a-z])", text.lower())
    return match and match.group(1).replace("dev", VAL)


class AnnotationFiles(Layout):
    """Base of the layouts with one annotation file for all images, or for those of each split."""

    @classmethod
    def detect(cls, root: str, files: FileSystem) -> bool:
        """Whether an annotation file is there."""
        return next(cls(root, files).find(), None) is not None

    @abstractmethod
    def find(self) -> Iterator[str]:
        """Annotation files, relative to the root."""

    def splits(self) -> tuple[str, ...]:
        """The splits that the names of the annotation files or of their folders say."""
        return tuple(split for split in self.annotation_files() if split)

    def annotation_files(self) -> dict[str | None, str]:
        """Split, or None for the whole dataset -> annotation file, relative to the root.

        Raises:
            DataError: there is none, or not one for each split.
        """
        paths = sorted(self.find())
        found = {_split_of(path): path for path in paths}
        if not paths or len(found) < len(paths) or (None in found and len(found) > 1):
            raise DataError(
                f"{self.root}: the {self.name} layout needs one annotation file, or one for each split; "
                f"found: {', '.join(paths) or 'none'}"
            )
        return {split: found[split] for split in (*SPLIT_FOLDERS, None) if split in found}

    def beginning_with(self, signature: Callable[[str], Any], ending: str = ".json") -> Iterator[str]:
        """Files whose first characters have a signature, in the root and `FOLDERS`; few files are opened."""
        for folder in FOLDERS:
            names = (name for name in self.names(folder) if name.lower().endswith(ending))
            for path in (posixpath.join(folder, name) for name in islice(names, MOST_OPENED)):
                if signature(head_of(self.at(path), self.files)):
                    yield path

    def image_folders(self, path: str) -> Iterator[str]:
        """Folders, relative to the root, in which the images of an annotation file may be: the usual ones first."""
        folder = posixpath.dirname(path)
        subset, split = stem_of(path.rpartition("/")[2]).partition("_")[2], _split_of(path)
        yield from ("", folder, f"{folder}/images", f"{folder}/data")
        for name in (subset, *SPLIT_FOLDERS.get(split or "", ())):
            yield from (name, f"images/{name}", f"{name}/images")
        yield "images"
        yield from (name for name in self.names("") if "." not in name and split_in(name) in (None, split))


@dataclass(frozen=True)
class Annotated:
    """An image in an annotation file."""

    name: str
    """Its file, as the annotation file names it."""
    mask: Shapes | DataError
    """Its regions, or what is wrong with them."""
    annotations: int
    """Number of its annotations."""


class RegionFiles(AnnotationFiles):
    """Base of the layouts whose annotation files hold regions with the names of their classes."""

    @abstractmethod
    def read(self, path: str) -> tuple[Iterable[str], list[Annotated | BadEntry]]:
        """The classes that an annotation file states or uses, and its images.

        Raises:
            DataError: the file cannot be read.
        """

    def samples(self, split: str | None) -> Iterator[Sample | BadEntry]:
        """Streams the images of a split's annotation file."""
        path = self.annotation_files()[split]
        names, images = self.read(path)
        yield from self.found(path, images, split, background_of(names))

    def label_map(self) -> LabelMap:
        """The classes of all annotation files, after the background.

        Raises:
            DataError: a file cannot be read, or the names are not a valid label map.
        """
        names = dict.fromkeys(name for path in self.annotation_files().values() for name in self.read(path)[0])
        return with_background(self.root, [(name, ()) for name in names])

    def remarks(self) -> Iterator[str]:
        """How many images of each annotation file have no annotations."""
        for path in self.annotation_files().values():
            _, images = self.read(path)
            bare = sum(isinstance(image, Annotated) and not image.annotations for image in images)
            yield from without_annotations(path, bare, len(images))

    def found(
        self, path: str, images: list[Annotated | BadEntry], split: str | None, background: str
    ) -> Iterator[Sample | BadEntry]:
        """The samples of the images in an annotation file, over the class that is the background."""
        names = (image.name for image in images if isinstance(image, Annotated))
        places = NamedImages(self, names, self.image_folders(path), split)
        for image in images:
            if isinstance(image, BadEntry):
                yield image
                continue
            try:
                if isinstance(image.mask, DataError):
                    raise image.mask
                sample = self.sample(places.path(image.name), replace(image.mask, background=background), split)
                yield replace(sample, annotations=image.annotations)
            except DataError as error:
                yield BadEntry(image.name, str(error), image.annotations)


def without_annotations(path: str, bare: int, images: int) -> Iterator[str]:
    """What it means that some images of an annotation file have no annotations; nothing if there are none."""
    if bare:
        yield (
            f"{path}: {bare} of {images} images have no annotation and are background from edge to edge; remove those "
            "that nobody has labelled yet."
        )


class NamedImages:
    """Finds the images that an annotation file names, as they were called where it was written.

    The paths are tried below the given folders, and the folder counts in which one of the first images is found. Where
    there is no such folder, or a path leads out of the dataset's folder, an image is found by the name of its file
    anywhere in the dataset, with or without the prefix of an upload; only if there is one alone of this name, and
    never in the folder of another split. Nothing outside the dataset's folder is looked at.
    """

    def __init__(self, layout: Layout, names: Iterable[str], folders: Iterable[str], split: str | None):
        self._layout, self._split = layout, split
        named = list(names)
        self._named = Counter(key for name in named for key in _file_names(name))
        probes = named[:PROBED]
        self._folder = next((f for f in folders if any(self._has(posixpath.join(f, name)) for name in probes)), None)

    def path(self, name: str) -> str:
        """The path of an image relative to the root. It need not exist.

        Raises:
            DataError: the path leaves the root, and no image or several have its name.
        """
        try:
            path = relative_path(posixpath.join(self._folder or "", name))
        except DataError:
            if (found := self._found(name)) is None:
                raise
            return found
        return path if self._folder is not None else self._found(name) or path

    def _found(self, name: str) -> str | None:
        for key in _file_names(name):
            candidates = self._index.get(key, [])
            if len(candidates) > 1 or (candidates and self._named[key] > 1):
                places = ", ".join(sorted(candidates)[:5])
                raise DataError(
                    f"ambiguous image: {name!r} may be any of {places}, or other annotations have the same file name; "
                    "give the images names of their own, or write their paths into the annotation file"
                )
            if candidates:
                return candidates[0]
        return None

    @cached_property
    def _index(self) -> dict[str, list[str]]:
        """File name -> paths of the images that have it, without those in folders of other splits."""
        index = defaultdict(list)
        for path, _, _ in walk(self._layout.root, self._layout.files):
            *folders, name = path.replace("\\", "/").split("/")
            splits = {split for split in map(split_in, folders) if split}
            if is_image(name) and (self._split is None or splits <= {self._split}):
                index[unicodedata.normalize("NFC", name)].append("/".join([*folders, name]))
        return index

    def _has(self, relative: str) -> bool:
        try:
            return self._layout.has(relative_path(relative))
        except DataError:
            return False


def _file_names(name: str) -> list[str]:
    """The file name of a path of any system, and the same without the prefix of an upload."""
    base = unicodedata.normalize("NFC", name.replace("\\", "/").rpartition("/")[2])
    return list(dict.fromkeys((base, UPLOAD_PREFIX.sub("", base))))
