"""PASCAL VOC: JPEGImages/, SegmentationClass/ and the lists of ImageSets/Segmentation/.

Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010; devkit documentation, section 7.
CVAT and Datumaro write it as "Segmentation mask 1.1", with masks in RGB and their colours in `labelmap.txt`.
"""

import re
from collections.abc import Iterator
from functools import cached_property
from itertools import islice

import numpy as np

from data.errors import DataError
from data.features import IGNORE_LABEL
from data.files import FileSystem, read_lines
from data.labels import LabelMap, label_map_of
from data.layouts.annotations import colored_label_map
from data.layouts.base import IMAGE_ENDINGS, SPLITS, BadEntry, Layout, Sample, is_image, stem_of
from data.mask_files import read_codes, unpacked

CLASS_NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)

#: Some entries of VOC's palette, by which its masks are recognised.
VOC_COLORS = {1: (128, 0, 0), 2: (0, 128, 0), 7: (128, 128, 128), 20: (0, 64, 128)}

#: Names of VOC's masks: 2007_000032.png, or 000032.png in VOC 2007.
VOC_NAME = re.compile(r"(\d{4}_)?\d{6}\.png")

#: Number of masks that are looked at to see whether they are VOC's.
PROBED = 10

IMAGES = "JPEGImages"
MASKS = "SegmentationClass"
LISTS = "ImageSets/Segmentation"
LABEL_MAP = "labelmap.txt"

#: Files that name the classes, one in a line; labelme's `labelme2voc.py` writes the second one.
NAMES = ("labels.txt", "class_names.txt")

#: Names of the list of each split; the last one counts. Datumaro's begin with a capital.
LIST_NAMES = {"train": ("Train", "train"), "val": ("Validation", "Val", "val"), "test": ("Test", "test")}

#: What Datumaro calls VOC's void in `labelmap.txt`.
IGNORED = "ignored"


class Voc(Layout):
    """Palette masks whose indices are class ids; 255 is the ignore label (void).

    A file of `NAMES` names the classes, if it is there. The file `labelmap.txt` names them and states the colours
    of the masks.
    """

    name = "voc"

    @classmethod
    def detect(cls, root: str, files: FileSystem) -> bool:
        """Whether the folder, or `VOCdevkit/<name>` in it, has JPEGImages and SegmentationClass."""
        return bool(cls(root, files)._bases())

    @cached_property
    def base(self) -> str:
        """The folder, relative to the root and ending with '/' unless empty, that holds JPEGImages."""
        bases = self._bases()
        if len(bases) != 1:
            found = ", ".join(bases) or f"none with {IMAGES} and {MASKS}"
            raise DataError(f"{self.root}: the voc layout needs exactly one VOC folder; found: {found}")
        return bases[0]

    def splits(self) -> tuple[str, ...]:
        """The splits that have a list. A test list counts only with masks, which the challenge does not publish."""
        return tuple(s for s in SPLITS if s in self._lists and (s != "test" or self._has_masks(s)))

    def samples(self, split: str | None) -> Iterator[Sample | BadEntry]:
        """Streams the images of a list or, without lists, those that have a mask: most of VOC's photos have none."""
        if split is None:
            names = self.names(self.base + MASKS)
            stems = (stem_of(name) for name in names if is_image(name))
        else:
            stems = (text for _, text in read_lines(self.at(self._lists[split]), self.files))
        for stem in stems:
            # Datumaro puts names with spaces into quotes.
            quoted = stem.startswith('"') and stem.endswith('"')
            if split is not None and not quoted and len(stem.split()) != 1:
                yield BadEntry(self._lists[split], f"malformed line: {stem!r}; expected the name of one image")
            else:
                yield self._sample(stem.strip('"') if quoted else stem, split)

    def label_map(self) -> LabelMap | None:
        """The colours of `labelmap.txt`, else the names of a list in the order of the class ids, else VOC's.

        VOC's names hold where files have VOC's names, or masks VOC's palette and no other indices; None elsewhere.
        """
        if self.has(self.base + LABEL_MAP):
            return self._colors()
        stated = next(filter(self.has, (self.base + name for name in NAMES)), None)
        place = self.at(stated or self.base)
        if not stated and not self._is_pascal():
            return None
        names = [text for _, text in read_lines(place, self.files)] if stated else CLASS_NAMES
        return label_map_of(place, [(name, (value,)) for value, name in enumerate(names)], (IGNORE_LABEL,))

    def _is_pascal(self) -> bool:
        """Whether the first masks are those of PASCAL VOC."""
        for name in islice(filter(is_image, self.names(self.base + MASKS)), PROBED):
            if VOC_NAME.fullmatch(name):
                continue
            try:
                found = read_codes(self.at(f"{self.base}{MASKS}/{name}"), self.files, lambda size: None)
            except DataError:
                return False
            indices = set(np.unique(found.codes).tolist())
            if found.palette is None or not indices <= {*range(len(CLASS_NAMES)), IGNORE_LABEL}:
                return False
            if any(unpacked(int(found.palette[index])) != color for index, color in VOC_COLORS.items()):
                return False
        return True

    def stated_label_map(self) -> LabelMap | None:
        """The table in `labelmap.txt`, or in a file that lists the names."""
        return self.label_map() if any(self.has(self.base + name) for name in (LABEL_MAP, *NAMES)) else None

    def _bases(self) -> list[str]:
        """The root, as '', if it has JPEGImages and SegmentationClass; else such folders in VOCdevkit."""
        if self.has(IMAGES) and self.has(MASKS):
            return [""]
        folders = (f"VOCdevkit/{name}/" for name in self.names("VOCdevkit"))
        return sorted(folder for folder in folders if self.has(folder + IMAGES) and self.has(folder + MASKS))

    @cached_property
    def _lists(self) -> dict[str, str]:
        """Split -> its list, such as train.txt or Train.txt."""
        paths = ((split, f"{self.base}{LISTS}/{name}.txt") for split, names in LIST_NAMES.items() for name in names)
        return {split: path for split, path in paths if self.has(path)}

    def _colors(self) -> LabelMap:
        """The classes of `labelmap.txt`: `label:color_rgb:parts:actions` in each line."""
        place = self.base + LABEL_MAP
        colors: list[tuple[str, str, list[str]]] = []
        for number, line in read_lines(self.at(place), self.files):
            if not line.startswith("#"):
                name, _, rest = line.partition(":")
                colors.append((f"{place}:{number}", name, rest.partition(":")[0].split(",")))
        return colored_label_map(self.at(place), colors, IGNORED)

    def _has_masks(self, split: str) -> bool:
        stems = islice(read_lines(self.at(self._lists[split]), self.files), 10)
        return any(self.has(f"{self.base}{MASKS}/{stem}.png") for _, stem in stems)

    def _sample(self, stem: str, split: str | None) -> Sample | BadEntry:
        image = f"{self.base}{IMAGES}/{stem}"
        sample = self.named(f"{image}.jpg", f"{self.base}{MASKS}/{stem}.png", split)
        # VOC's photos are JPEG; sets in its layout often hold others.
        if isinstance(sample, Sample) and not self.files.exists(sample.image):
            for ending in IMAGE_ENDINGS:
                if self.has(image + ending):
                    return self.named(image + ending, f"{self.base}{MASKS}/{stem}.png", split)
        return sample
