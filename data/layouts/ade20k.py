"""ADE20K scene parsing: images/training, annotations/training, ... or, as in its sample, images/ and annotations/.

Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017; files as in CSAILVision/sceneparsing.
"""

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from itertools import islice

from data.errors import DataError
from data.files import FileSystem, read_lines
from data.labels import LabelMap, label_map_of
from data.layouts.base import SPLIT_FOLDERS, BadEntry, Layout, Sample, is_image, split_folders, stem_of

NUM_CLASSES = 150
#: The value of pixels that belong to none of the classes.
OTHER = 0

#: Number of names that are checked to see whether they are ADE20K's.
PROBED = 20

PACKED = "ADEChallengeData2016"
NAMES = "objectInfo150.txt"


class Ade20k(Layout):
    """Gray masks: 1 to 150 are the classes 0 to 149; 0 is the ignore label (void).

    The file `objectInfo150.txt` names the classes, if it is there.
    """

    name = "ade20k"

    @classmethod
    def detect(cls, root: str, files: FileSystem) -> bool:
        """Whether the folder, or ADEChallengeData2016 in it, has annotations/, and images/ with names like ADE_*."""
        layout = cls(root, files)
        return any(layout._is_complete(base) for base in ("", f"{PACKED}/"))

    @cached_property
    def base(self) -> str:
        """The folder, relative to the root and ending with '/' unless empty, that holds images/."""
        return "" if self.has("images") else f"{PACKED}/"

    def splits(self) -> tuple[str, ...]:
        """Splits that have folders, train and val; none in the flat sample."""
        return tuple(self._folders())

    def samples(self, split: str | None) -> Iterator[Sample | BadEntry]:
        """Streams the images of a split."""
        folder = "" if split is None else f"/{self._folders()[split]}"
        for name in filter(is_image, self.names(f"{self.base}images{folder}")):
            mask = f"{self.base}annotations{folder}/{stem_of(name)}.png"
            yield self.listed(f"{self.base}images{folder}/{name}", mask, split)

    def label_map(self) -> LabelMap:
        """150 classes, each named by the first of its synonyms where that is unique."""
        classes = [(name, (value,)) for value, name in self._names().items()]
        return label_map_of(self.at(self.base + NAMES), classes, (OTHER,))

    def stated_label_map(self) -> LabelMap | None:
        """The table in `objectInfo150.txt`."""
        return self.label_map() if self.has(self.base + NAMES) else None

    def _is_complete(self, base: str) -> bool:
        """Whether a folder has images and annotations whose names are ADE20K's."""
        if not (self.has(f"{base}images") and self.has(f"{base}annotations")):
            return False
        folders = ("", *(f"/{name}" for split in ("train", "val") for name in SPLIT_FOLDERS[split]))
        names = (islice(self.names(f"{base}images{folder}"), PROBED) for folder in folders)
        return any(name.startswith("ADE_") for some in names for name in some)

    def _folders(self) -> dict[str, str]:
        return split_folders(
            lambda name: self.has(f"{self.base}images/{name}") and self.has(f"{self.base}annotations/{name}")
        )

    def _names(self) -> dict[int, str]:
        if not self.has(self.base + NAMES):
            return {value: f"class {value}" for value in range(1, NUM_CLASSES + 1)}
        path = self.at(self.base + NAMES)
        synonyms = dict(_object_info(path, number, line) for number, line in read_lines(path, self.files) if number > 1)
        if list(synonyms) != list(range(1, len(synonyms) + 1)):
            raise DataError(f"malformed class list: {path}: the first column must count 1, 2, 3, ...")
        first = {value: names.split(",")[0].strip() for value, names in synonyms.items()}
        count = Counter(first.values())
        return {value: name if count[name] == 1 else synonyms[value] for value, name in first.items()}


def _object_info(path: str, number: int, line: str) -> tuple[int, str]:
    """(label value, synonyms) of a line: index, ratio, images in train, in val, synonyms; separated by tabs."""
    columns = [column.strip() for column in line.split("\t")]
    if len(columns) != 5 or not columns[0].isdecimal() or not columns[4]:
        raise DataError(f"malformed class list: {path}:{number}: {line!r}; expected index, ratio, train, val, name")
    return int(columns[0]), columns[4]
