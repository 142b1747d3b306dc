"""Cityscapes: leftImg8bit/<split>/<city>/ and gtFine/<split>/<city>/.

Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016; the ids are those of
`labels.py` in mcordts/cityscapesScripts.
"""

from collections.abc import Iterator
from functools import cached_property

from data.features import IGNORE_LABEL
from data.files import FileSystem
from data.labels import LabelMap, label_map_of
from data.layouts.base import BadEntry, Layout, Sample

#: Label id -> name of the 19 classes that are evaluated, in the order of their train ids.
LABEL_IDS = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
NUM_LABEL_IDS = 34

IMAGES, MASKS = "leftImg8bit", "gtFine"
IMAGE_ENDING = "_leftImg8bit.png"


class Cityscapes(Layout):
    """Masks of labelIds if there are any, else of labelTrainIds.

    The source is the city, the group the recorded sequence. The official test split is left out: its masks are dummies.
    """

    name = "cityscapes"
    # frankfurt_000000_000294_leftImg8bit.png: city, sequence, frame
    default_group_pattern = r"([^/]+_\d+)_\d+_leftImg8bit\.png$"

    @classmethod
    def detect(cls, root: str, files: FileSystem) -> bool:
        """Whether leftImg8bit/ and gtFine/ are there."""
        layout = cls(root, files)
        return layout.has(IMAGES) and layout.has(MASKS)

    def splits(self) -> tuple[str, ...]:
        """The splits train and val, if their images and masks are there."""
        return tuple(s for s in ("train", "val") if self.has(f"{IMAGES}/{s}") and self.has(f"{MASKS}/{s}"))

    def samples(self, split: str | None) -> Iterator[Sample | BadEntry]:
        """Streams the images of a split, city by city."""
        for city in self.names(f"{IMAGES}/{split}"):
            for name in self.names(f"{IMAGES}/{split}/{city}"):
                if name.endswith(IMAGE_ENDING):
                    mask = f"{MASKS}/{split}/{city}/{name.removesuffix(IMAGE_ENDING)}_gtFine_{self.kind}.png"
                    yield self.listed(f"{IMAGES}/{split}/{city}/{name}", mask, split, city)

    def label_map(self) -> LabelMap:
        """The 19 classes; every other label id is the ignore label (void)."""
        if self.kind == "labelTrainIds":
            classes = [(name, (value,)) for value, name in enumerate(LABEL_IDS.values())]
            return label_map_of(self.name, classes, (IGNORE_LABEL,))
        classes = [(name, (value,)) for value, name in LABEL_IDS.items()]
        return label_map_of(self.name, classes, (value for value in range(NUM_LABEL_IDS) if value not in LABEL_IDS))

    @cached_property
    def kind(self) -> str:
        """The kind of mask file that is read for the whole dataset: 'labelIds' or 'labelTrainIds'."""
        for split in self.splits():
            for city in self.names(f"{MASKS}/{split}"):
                for name in self.names(f"{MASKS}/{split}/{city}"):
                    if name.endswith("_labelIds.png"):
                        return "labelIds"
        return "labelTrainIds"
