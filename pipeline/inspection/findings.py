"""What the inspection of a dataset finds."""

from dataclasses import dataclass
from typing import Literal

from data.dataset import DataConfig
from data.errors import DataError
from data.labels import LabelMap
from data.layouts.base import BadEntry
from pipeline.inspection.proposal import Proposal


@dataclass(frozen=True)
class SplitCount:
    """One split as the pipeline will use it."""

    name: str
    listed: int
    looked_at: int
    origin: str
    """Where its images come from: an official split, or a share of another."""
    carved: bool
    """Whether a hash of the group decides which images belong to it."""


@dataclass(frozen=True)
class ClassCount:
    """One class in the masks looked at."""

    name: str
    pixels: int
    share: float
    """Of the pixels that are not void, in [0, 1]."""
    images: int
    color: tuple[int, int, int]


@dataclass(frozen=True)
class Duplicate:
    """Two images in different splits that look alike."""

    first: str
    second: str
    first_split: str
    second_split: str
    bits: int
    """Differing bits of 128."""


@dataclass(frozen=True)
class Advice:
    """Something to know or to do."""

    tone: Literal["good", "warn", "bad"]
    text: str


@dataclass(frozen=True)
class Inspection:
    """What was found."""

    config: DataConfig
    layout: str
    splits: tuple[SplitCount, ...]
    sources: tuple[tuple[str, int], ...]
    widths: tuple[int, int, int]
    """Smallest, median and largest, in pixels, as of the heights."""
    heights: tuple[int, int, int]
    labels: LabelMap
    classes: tuple[ClassCount, ...]
    void: float
    """Share of the pixels looked at, in [0, 1]."""
    bad: tuple[BadEntry, ...]
    """The first of them, a hundred at most."""
    num_bad: int
    duplicates: tuple[Duplicate, ...]
    """The closest of them, a hundred at most."""
    num_duplicates: int
    proposal: Proposal | None
    """What a person must confirm before the dataset can be used; None if the label map is stated."""
    advice: tuple[Advice, ...] = ()

    @property
    def listed(self) -> int:
        """Number of images in the dataset."""
        return sum(split.listed for split in self.splits)

    @property
    def looked_at(self) -> int:
        """Number of images whose pixels were read and found good."""
        return sum(split.looked_at for split in self.splits)

    def require_label_map(self, *, written: bool) -> None:
        """Refuses a label map that nobody has confirmed.

        Writing it to a configuration confirms a proposal, but not one for binary masks, where even void is a guess.

        Raises:
            DataError: With the proposed label map.
        """
        if self.proposal is not None and (self.proposal.binary or not written):
            raise DataError(self.proposal.text)
