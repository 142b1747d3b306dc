"""The base of the layouts: each reads one way to lay out labelled images on disk."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from data.errors import DataError
from data.files import UNSAFE, FileSystem, inside, names, relative_path, same_named
from data.labels import LabelMap

SPLITS = TRAIN, VAL, TEST = ("train", "val", "test")

#: Names of the folder of each split, in the order of preference.
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}

#: Image formats that `data.images` reads, by the ending of the file's name in lower case.
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

#: Mask formats that `data.mask_files` reads, likewise; where an image has several masks, the first of these counts.
MASK_ENDINGS = (".png", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".npy", ".mat", ".txt", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True)
class MaskFile:
    """A mask image whose pixels are label values (gray, palette index) or RGB colours of the label map."""

    path: str


@dataclass(frozen=True, slots=True)
class PanopticFile:
    """A COCO panoptic PNG: R + 256 G + 65536 B is a segment id; 0 is the ignore label (void)."""

    path: str
    segments: dict[int, int | None]
    """Segment id -> label value; None is void."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A polygon, another outline or a run-length-encoded region of one class."""

    label: str | int | None
    """Class name, or label value of the label map; None is void."""
    kind: str
    """One of `data.shapes.KINDS`."""
    points: tuple[tuple[float, float], ...] = ()
    """(x, y) in pixels; the upper left corner alone of a bitmap or of run lengths by rows."""
    rle: dict | None = None
    """Run-length encoding: {'size': [height, width], 'counts': bytes, str or list}; a brush has no size."""
    holes: tuple[tuple[tuple[float, float], ...], ...] = ()
    """Polygons that are cut out of a polygon."""
    png: str = ""
    """A bitmap's PNG in base64, compressed with zlib or not."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """An annotation as regions."""

    shapes: tuple[Shape, ...]
    """The regions, later ones on top."""
    background: str | None = None
    """Class name of the pixels outside of all regions; None is void."""
    size: tuple[int, int] | None = None
    """(height, width) in the annotation; None if it states none."""


Mask = MaskFile | PanopticFile | Shapes


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image, of which nothing has been read yet."""

    key: str
    """Path of the image relative to the dataset's root; unique."""
    image: str
    """Path or URI of the image."""
    mask: Mask | None
    """The mask; None if the layout knows that it is missing."""
    split: str | None = None
    """Official split, 'train', 'val' or 'test'; None if the dataset has no official splits."""
    source: str = "all"
    """Source of the image: a city, a sequence, a camera."""
    group: str = ""
    """Images of one group (frames of a sequence, copies) never fall into different splits."""
    annotations: int = 0
    """Number of its annotations, where one file has those of many images."""


@dataclass(frozen=True, slots=True)
class BadEntry:
    """Something in the layout that is not a labelled image: quarantined, with the reason."""

    path: str
    reason: str
    annotations: int = 0
    """Number of annotations that are lost with it, where one file has those of many images."""

    def __post_init__(self) -> None:
        # Reports are UTF-8, and names on a disk need not be.
        for name in ("path", "reason"):
            object.__setattr__(self, name, getattr(self, name).encode(errors="backslashreplace").decode())


@dataclass(frozen=True)
class Layout(ABC):
    """A dataset on disk. Subclasses are registered in `data/layouts/__init__.py`."""

    root: str
    files: FileSystem = field(repr=False)
    group_pattern: str | None = None
    """Regular expression; its first group (or whole match) in an image's key is the group of the image."""
    images: str | None = None
    """Pattern of the images' paths, for the layout `folder`; None if it is to be found."""
    masks: str | None = None
    """Pattern of the masks' paths, likewise."""

    name: ClassVar[str]
    default_group_pattern: ClassVar[str | None] = None
    """The layout's own pattern, for where no `group_pattern` is given."""

    @classmethod
    @abstractmethod
    def detect(cls, root: str, files: FileSystem) -> bool:
        """Whether the folder looks like this layout. Reads names, not images."""

    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """The official splits that exist; empty where the dataset has none."""

    @abstractmethod
    def samples(self, split: str | None) -> Iterator[Sample | BadEntry]:
        """Streams the samples of an official split, or of the whole dataset (`None`) where there are no splits."""

    @abstractmethod
    def label_map(self) -> LabelMap | None:
        """The label map that the layout implies or its annotation files state; None if the user must state it."""

    def remarks(self) -> Iterator[str]:
        """Sentences on how the dataset was read, for people."""
        return iter(())

    def stated_label_map(self) -> LabelMap | None:
        """The table of classes that files of the dataset carry; None if there is none, and the layout implies them."""
        return self.label_map()

    def group_of(self, key: str) -> str:
        """The group of an image by `group_pattern`; where there is none or it does not match, the image alone."""
        pattern = self.group_pattern or self.default_group_pattern
        match = re.search(pattern, key) if pattern else None
        if match is None:
            return key
        return (match.group(1) if match.groups() else match.group(0)) or key

    def at(self, relative: str) -> str:
        """The path of a file or folder that is given relative to the root, as `a/b/c`."""
        return self.files.join(self.root, *relative.split("/")) if relative else self.root

    def has(self, relative: str) -> bool:
        """Whether a file or folder that is given relative to the root is there."""
        return self.files.exists(self.at(relative))

    def names(self, folder: str) -> Iterator[str]:
        """Names in a folder that is given relative to the root, streamed, without litter."""
        return names(self.at(folder), self.files)

    def locate(self, relative: str) -> str | None:
        """The path, relative to the root, of a file that is called so, whatever the Unicode form and the ending's case.

        None if there is no such file.
        """
        if self.has(relative):
            return relative
        folder, _, name = relative.rpartition("/")
        alike = same_named(self.at(folder), name, self.files)
        return alike and (f"{folder}/{alike}" if folder else alike)

    def sample(self, image: str, mask: Mask | None, split: str | None, source: str = "all") -> Sample:
        """A sample whose image is named, relative to the root, by a list or annotation file.

        Raises:
            DataError: the path leaves the root.
        """
        key = relative_path(image)
        path = inside(self.root, key, self.files)
        return Sample(key=key, image=path, mask=mask, split=split, source=source, group=self.group_of(key))

    def listed(self, image: str, mask: str | None, split: str | None, source: str = "all") -> Sample | BadEntry:
        """The sample of an image and a mask file that a listing of a folder returned, both relative to the root."""
        if UNSAFE.search(image):
            return BadEntry(image, "invalid path: the name has control characters or is not UTF-8; rename it")
        mask_file = None if mask is None else MaskFile(self.at(mask))
        return Sample(image, self.at(image), mask_file, split, source, self.group_of(image))

    def named(self, image: str, mask: str, split: str | None, source: str = "all") -> Sample | BadEntry:
        """The sample of an image and a mask file that a list names, both relative to the root."""
        try:
            return self.sample(image, MaskFile(inside(self.root, mask, self.files)), split, source)
        except DataError as error:
            return BadEntry(image, str(error))


def with_losses(entries: Iterable[Sample | BadEntry], most: float) -> Iterator[Sample | BadEntry]:
    """Passes the entries of a split on, and counts the annotations that are lost.

    One entry may stand for thousands of lost annotations, and turn as many images to background.

    Raises:
        DataError: after the last entry, if more than a fraction `most` of the annotations is lost.
    """
    total, lost, first = 0, 0, ""
    for entry in entries:
        yield entry
        total += entry.annotations
        if isinstance(entry, BadEntry) and entry.annotations:
            lost += entry.annotations
            first = first or f"{entry.path}: {entry.reason}"
    if lost > most * total:
        raise DataError(
            f"annotations lost: {lost} of {total}, more than data.max_bad_fraction={most} allows; the first: {first}"
        )


def split_folders(exists: Callable[[str], bool]) -> dict[str, str]:
    """Official split -> name of its folder, for the splits that have a folder."""
    return {split: name for split, names in SPLIT_FOLDERS.items() for name in names[::-1] if exists(name)}


def is_image(name: str) -> bool:
    """Whether a file name ends like an image."""
    return name.lower().endswith(IMAGE_ENDINGS)


def stem_of(name: str) -> str:
    """A file name without its last extension."""
    return name.rpartition(".")[0] or name
