"""Roboflow's semantic masks: x.jpg and x_mask.png side by side, and _classes.csv, in the folder of each split.

Format as Roboflow exports it under "Semantic Segmentation Masks". Its COCO export is read by `data.layouts.coco`.
"""

import posixpath
from collections.abc import Iterator

from data.errors import DataError
from data.files import FileSystem, read_lines
from data.labels import LabelMap, label_map_of
from data.layouts.base import IMAGE_ENDINGS, BadEntry, Layout, Sample, is_image, split_folders, stem_of

CLASSES = "_classes.csv"
SUFFIX = "_mask"


class Roboflow(Layout):
    """Gray masks whose values `_classes.csv` names; images without a mask are quarantined."""

    name = "roboflow"

    @classmethod
    def detect(cls, root: str, files: FileSystem) -> bool:
        """Whether the first line of a `_classes.csv`, in the folder or in that of a split, is of masks."""
        layout = cls(root, files)
        return any(layout._states_values(folder) for folder in ("", *layout._folders().values()))

    def splits(self) -> tuple[str, ...]:
        """Splits whose folder has a `_classes.csv`."""
        return tuple(self._folders())

    def samples(self, split: str | None) -> Iterator[Sample | BadEntry]:
        """Streams a folder's images, then the masks that have no image."""
        folder = "" if split is None else self._folders()[split]
        for name in filter(is_image, self.names(folder)):
            path, stem = posixpath.join(folder, name), stem_of(name)
            if not stem.endswith(SUFFIX):
                mask = posixpath.join(folder, f"{stem}{SUFFIX}.png")
                yield self.listed(path, mask if self.has(mask) else None, split)
            elif not any(self.has(posixpath.join(folder, stem.removesuffix(SUFFIX) + end)) for end in IMAGE_ENDINGS):
                yield BadEntry(path, f"image missing: no image is called {stem.removesuffix(SUFFIX)}")

    def label_map(self) -> LabelMap:
        """The classes of `_classes.csv`, whose values are the same in every split.

        Raises:
            DataError: two files differ, a line is malformed, or the classes are not a valid label map.
        """
        stated: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
        for folder in self._folders().values() or ("",):
            path = posixpath.join(folder, CLASSES)
            stated[path] = list(self._classes(path))
        (first, classes), *others = stated.items()
        for path, other in others:
            if other != classes:
                raise DataError(f"classes differ: {path} states others than {first}: {other}, not {classes}")
        return label_map_of(self.at(first), classes)

    def _classes(self, path: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        for number, line in read_lines(self.at(path), self.files):
            value, _, name = (part.strip() for part in line.partition(","))
            if number > 1 or value.isdecimal():
                if not value.isdecimal() or int(value) > 255 or not name:
                    raise DataError(f"malformed classes: {path}:{number}: {line!r}; expected a value and a name")
                yield name, (int(value),)

    def _folders(self) -> dict[str, str]:
        return split_folders(lambda name: self.has(posixpath.join(name, CLASSES)))

    def _states_values(self, folder: str) -> bool:
        path = posixpath.join(folder, CLASSES)
        if not self.has(path):
            return False
        # The CSV of a dataset for classification has the same name; its first column is the file.
        return next(
            (line.lower().startswith("pixel value") for _, line in read_lines(self.at(path), self.files)), False
        )
