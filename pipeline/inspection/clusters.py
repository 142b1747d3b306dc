"""Few classes behind the many colours or values of masks that were compressed, scaled or drawn with smooth edges."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np

from data.features import MAX_CLASSES
from data.mask_files import packed, unpacked

#: Distances within which codes are tried as one class: the largest difference in any channel.
REACHES = (4, 8, 16, 32, 64)

#: A cluster with fewer of all pixels than this is no class, unless an area is filled with it.
LEAST_SHARE = 1e-3

#: With more of all pixels than this outside of all clusters the masks are no label masks.
MOST_OUTSIDE = 0.25

#: Gray masks with no value above this hold class ids, of which neighbours mean different classes.
LARGEST_ID = 64

#: Bicubic filters exceed the values on both sides of an edge by some of their difference.
OVERSHOOT = 0.25

#: A code of which less than this part lies inside areas, away from all others, is noise or part of an edge.
LEAST_SOLID = 0.01


@dataclass(frozen=True)
class CodeCounts:
    """The codes of some masks, ascending, and for each of them three int64 counts."""

    codes: np.ndarray
    masks: np.ndarray
    """Masks that hold it."""
    pixels: np.ndarray
    solid: np.ndarray
    """Pixels whose eight neighbours have the same code: the inside of areas, which edges and noise do not have."""

    @classmethod
    def of(cls, codes: np.ndarray) -> Self:
        """Counts the codes of one mask, (height, width)."""
        present, pixels = _distinct(codes)
        along = codes[:, :-1] == codes[:, 1:]
        rows = along[:, :-1] & along[:, 1:]  # Both neighbours in the row are the same.
        down = codes[:-1, 1:-1] == codes[1:, 1:-1]
        inside = rows[:-2] & rows[1:-1] & rows[2:] & down[:-1] & down[1:]
        found, counts = _distinct(codes[1:-1, 1:-1][inside])
        solid = np.zeros(len(present), np.int64)
        solid[np.searchsorted(present, found)] = counts
        return cls(present.astype(np.int64), np.ones(len(present), np.int64), pixels, solid)

    def merged(self, other: Self) -> Self:
        """The counts of the masks of both."""
        codes, places = np.unique(np.concatenate([self.codes, other.codes]), return_inverse=True)
        sums = []
        for mine, others in ((self.masks, other.masks), (self.pixels, other.pixels), (self.solid, other.solid)):
            total = np.zeros(len(codes), np.int64)
            np.add.at(total, places, np.concatenate([mine, others]))
            sums.append(total)
        return type(self)(codes, *sums)


def _distinct(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if codes.dtype == np.uint8:  # Counting instead of sorting: 30 times as fast.
        counts = np.bincount(codes.ravel(), minlength=256)
        return (present := np.flatnonzero(counts)), counts[present]
    return np.unique(codes, return_counts=True)


@dataclass(frozen=True)
class Clusters:
    """The codes that are classes, and how far others are from them."""

    codes: tuple[int, ...]
    masks: tuple[int, ...]
    """Number of masks with each of them, at least."""
    tolerance: int
    """Largest difference, in any channel, of a code from that of its class."""
    edges: float
    """Share of the pixels that belong to no class, in [0, 1]."""


def find_clusters(counts: CodeCounts, are_colors: bool) -> Clusters | None:
    """Finds the classes behind codes that are a little off.

    The reach of a class is the smallest at which twice the reach gives the same number of classes.

    Returns:
        None if each code means what it says, or no such classes can be found.
    """
    rough = counts.solid < LEAST_SOLID * counts.pixels
    if len(counts.codes) <= MAX_CLASSES and rough.sum() < len(counts.codes) / 2:
        return None
    if not are_colors and counts.codes.max() <= LARGEST_ID:
        return None
    channels = np.array([unpacked(code) if are_colors else (code,) for code in counts.codes.tolist()])
    tried = [_grouped(counts, channels, rough, reach) for reach in REACHES]
    for (centres, members), (wider, _) in pairwise(tried):
        outside = float(counts.pixels[members < 0].sum() / counts.pixels.sum())
        if len(centres) == len(wider) and outside <= MOST_OUTSIDE:
            return _clusters(counts, channels, centres, members, are_colors, outside)
    return None


def _grouped(counts: CodeCounts, channels: np.ndarray, rough: np.ndarray, reach: int) -> tuple[list[int], np.ndarray]:
    """Positions of the codes around which others lie, and for each code the position of its group; -1 for none."""
    members = np.full(len(channels), -1)
    free = np.ones(len(channels), bool)
    centres: list[int] = []
    total = counts.pixels.sum()
    # Codes that fill areas first, each kind from the most frequent down.
    for place in np.lexsort((-counts.pixels, rough)):
        if not free[place]:
            continue
        group = free & (np.abs(channels - channels[place]).max(axis=1) <= reach)
        free[group] = False
        if rough[place] and (
            counts.pixels[group].sum() < LEAST_SHARE * total or _is_between(channels[place], channels[centres], reach)
        ):
            continue
        members[group] = len(centres)
        centres.append(int(place))
        if len(centres) > MAX_CLASSES:
            break
    return centres, members


def _is_between(code: np.ndarray, centres: np.ndarray, reach: int) -> bool:
    """Whether a code is a mixture of two of the centres, or beyond one, as the pixels of a smoothed edge are."""
    for i, first in enumerate(centres):
        way = centres[i + 1 :] - first  # (others, channels)
        along = (way * (code - first)).sum(axis=1) / np.maximum((way * way).sum(axis=1), 1)
        off = np.abs(first + along[:, None] * way - code).max(axis=1, initial=0)
        if ((off <= reach) & (along > -OVERSHOOT) & (along < 1 + OVERSHOOT)).any():
            return True
    return False


def _clusters(
    counts: CodeCounts,
    channels: np.ndarray,
    centres: list[int],
    members: np.ndarray,
    are_colors: bool,
    outside: float,
) -> Clusters:
    codes, masks, tolerance = [], [], 0
    for group, place in enumerate(centres):
        inside = members == group
        # The middle pixel's in each channel: noise that is cut off at 0 or 255 does not shift it.
        middle = np.array([_median(channel, counts.pixels[inside]) for channel in channels[inside].T])
        if counts.solid[place] >= LEAST_SOLID * counts.pixels[place]:
            middle = channels[place]
        tolerance = max(tolerance, int(np.abs(channels[inside] - middle).max()))
        codes.append(int(packed(middle)) if are_colors else int(middle[0]))
        masks.append(int(counts.masks[inside].max()))
    return Clusters(tuple(codes), tuple(masks), tolerance, outside)


def _median(values: np.ndarray, weights: np.ndarray) -> int:
    order = np.argsort(values)
    passed = np.cumsum(weights[order])
    return int(values[order][np.searchsorted(passed, passed[-1] / 2)])
