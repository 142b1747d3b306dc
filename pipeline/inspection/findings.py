"""The findings of the inspection of a dataset."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from data.dataset import DataConfig
from data.labels import LabelMap
from data.layouts.base import BadEntry
from pipeline.inspection.proposal import Proposal


@dataclass(frozen=True)
class SplitCount:
    """One split, as the pipeline will use it."""

    name: str
    listed: int
    looked_at: int
    origin: str
    """Where its images come from: an official split, or a share of another."""
    carved: bool
    """Whether a hash of the group decides which images belong to it."""


@dataclass(frozen=True)
class ClassCount:
    """One class in the inspected masks."""

    name: str
    pixels: int
    share: float
    """Share of the pixels without the ignore label (void), in [0, 1]."""
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
    """Number of differing bits of the 128 bits of the hashes."""


@dataclass(frozen=True)
class Advice:
    """One piece of advice."""

    tone: Literal["good", "warn", "bad"]
    text: str


@dataclass(frozen=True)
class Inspection:
    """The findings of an inspection."""

    config: DataConfig
    layout: str
    patterns: tuple[str, str] | None
    """`data.images` and `data.masks`; None if the layout needs none."""
    remarks: tuple[str, ...]
    """How the layout was read, and what it left out."""
    splits: tuple[SplitCount, ...]
    sources: tuple[tuple[str, int], ...]
    widths: tuple[int, int, int]
    """Minimum, median and maximum width in pixels; the heights have the same form."""
    heights: tuple[int, int, int]
    labels: LabelMap
    classes: tuple[ClassCount, ...]
    void: float
    """Share of the inspected pixels with the ignore label (void), in [0, 1]."""
    bad: tuple[BadEntry, ...]
    """The first bad entries, at most a hundred."""
    num_bad: int
    duplicates: tuple[Duplicate, ...]
    """The closest near-duplicates, at most a hundred."""
    num_duplicates: int
    compared: int
    """Number of images among which near-duplicates were sought."""
    fractions: dict[str, float] | None
    """Shares of val and test with which neither is empty, where one is with the configured shares; else None."""
    proposal: Proposal | None
    """The label map that nobody has stated; None if it is stated."""
    corrected: Counter[str]
    """Pixels of masks that were corrected, as `data.masks.read_mask` counts them."""
    advice: tuple[Advice, ...] = ()

    @property
    def question(self) -> str | None:
        """What only the author of the masks knows, and a run must not guess."""
        return self.proposal.question if self.proposal else self.config.question

    @property
    def listed(self) -> int:
        """Number of images in the dataset."""
        return sum(split.listed for split in self.splits)

    @property
    def looked_at(self) -> int:
        """Number of images whose pixels were read and are valid."""
        return sum(split.looked_at for split in self.splits)
