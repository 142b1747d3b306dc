"""Inspects a dataset before training: lists all of it, measures a sample, and shows the results on one page."""

import heapq
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from PIL import Image

from data.dataset import DataConfig, open_dataset, resolve_label_map
from data.errors import DataError, WorkspaceError
from data.features import IGNORE_LABEL
from data.files import FileSystem, read_bytes
from data.images import opened, read_image
from data.labels import Color, LabelMap
from data.layouts.base import SPLITS, BadEntry, Layout, MaskFile, Sample, with_losses
from data.layouts.folder import Folder
from data.mask_files import read_codes, unpacked
from data.masks import overlay, palette
from data.pairs import read_pair
from data.splits import SplitPlan, plan_splits, sufficient_fractions
from pipeline.inspection.advice import advise
from pipeline.inspection.findings import ClassCount, Duplicate, Inspection, SplitCount
from pipeline.inspection.proposal import Answers, Proposal, propose
from pipeline.report.render import photo_uri, render

#: Two images are near-duplicates if at most this many of the 128 bits of their hashes differ. Unrelated photos differ
#: in about 64, neighbouring frames of a video taken at 1 Hz in 20 to 40, copies at other sizes or qualities in 0 to 10.
NEAR_DUPLICATE_BITS = 12

#: So many images are compared with each other, beside those whose masks are read. 1300x1000 JPEGs take 10 ms each.
MOST_COMPARED = 10_000

#: With so many groups of images, no split remains empty.
MANY_GROUPS = 1000

MOST_BAD = 100
MOST_DUPLICATES = 100
PICTURES = 12
DUPLICATE_PICTURES = 4
PICTURE_SIDE = 320

NO_ANSWERS = Answers()

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Look:
    """One valid image and its mask."""

    sample: Sample
    split: str
    size: tuple[int, int]
    """(height, width)"""
    pixels: np.ndarray
    """(256,) int64: number of pixels of each class id; the last is the ignore label (void)."""
    corrected: Counter[str]
    """Pixels of the mask that were corrected, as `data.masks.read_mask` counts them."""


@dataclass(frozen=True, slots=True)
class _Hashed:
    """One image that is compared with all others."""

    sample: Sample
    split: str
    hashes: np.ndarray
    """(2,) uint64: difference hash and perceptual hash."""


class _Listing:
    """Counts the samples of a layout while they are streamed."""

    def __init__(self, layout: Layout, config: DataConfig, plan: SplitPlan):
        self._layout, self._config, self._plan = layout, config, plan
        self.splits: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self.groups: set[str] = set()
        """Groups that a hash assigns to splits: the first ones, which are all where the dataset is small."""
        self.bad: list[BadEntry] = []
        self.num_bad = 0

    def samples(self) -> Iterator[tuple[Sample, str]]:
        """Yields each sample and the split to which the pipeline assigns it."""
        for official in self._plan.official or (None,):
            for entry in with_losses(self._layout.samples(official), self._config.max_bad_fraction):
                if isinstance(entry, BadEntry):
                    self.set_aside(entry)
                    continue
                split = self._plan.assign(entry, self._config.val_fraction, self._config.test_fraction)
                self.splits[split] += 1
                divided = entry.split is None or self._plan.renamed[entry.split] == "train"
                if divided and len(self.groups) < MANY_GROUPS:
                    self.groups.add(entry.group)
                self.sources[entry.source] += 1
                yield entry, split

    def set_aside(self, entry: BadEntry) -> None:
        """Counts a bad file, and keeps the first ones."""
        self.num_bad += 1
        if len(self.bad) < MOST_BAD:
            self.bad.append(entry)


def inspect_dataset(
    config: DataConfig,
    files: FileSystem,
    *,
    limit: int,
    out: Path,
    answers: Answers = NO_ANSWERS,
    progress: Progress | None = None,
) -> Inspection:
    """Inspects a dataset, and writes a self-contained page about it.

    Args:
        config: The dataset's configuration; the layout may be 'auto' and the label map None.
        files: The file system that opens its files.
        limit: Number of images whose masks are read: the same ones every time, whatever their splits. All images are
            listed, and at least `MOST_COMPARED` of them are looked at for near-duplicates.
        out: The HTML file to write.
        answers: What the user says of masks whose label map nobody has stated.
        progress: Called with the number of images read so far and in all.

    Raises:
        DataError: There is no dataset, or it contains no usable image.
        WorkspaceError: The page cannot be written.
    """
    layout = open_dataset(config, files)
    plan = plan_splits(layout.splits())
    listing = _Listing(layout, config, plan)
    ranked = heapq.nsmallest(max(limit, MOST_COMPARED), listing.samples(), key=_chance)
    chosen = sorted(ranked[:limit], key=lambda pair: pair[0].key)
    if not chosen:
        raise DataError(f"no images: the {layout.name} layout finds none in {config.path}{_reasons(listing.bad)}")
    proposal = propose((sample for sample, _ in chosen), layout, config, answers) if config.label_map is None else None
    if proposal:
        config, labels = config.model_copy(update=dict(proposal.settings)), proposal.label_map
    else:
        labels = resolve_label_map(config.model_copy(update={"question": None}), layout)

    def look(pair: tuple[Sample, str]) -> _Look | BadEntry:
        corrected: Counter[str] = Counter()
        try:
            _, _, mask = read_pair(pair[0], labels, config, files, corrected)
        except DataError as error:
            return BadEntry(pair[0].key, str(error))
        return _Look(*pair, mask.shape, np.bincount(mask.ravel(), minlength=IGNORE_LABEL + 1), corrected)

    def hashed(pair: tuple[Sample, str]) -> _Hashed | None:
        hashes = _hashes(pair[0].image, config, files)
        return None if hashes is None else _Hashed(*pair, hashes)

    steps = len(chosen) + len(ranked)
    results = list(_in_threads(look, chosen, lambda done: progress and progress(done, steps)))
    for result in results:
        if isinstance(result, BadEntry):
            listing.set_aside(result)
    looks = [result for result in results if isinstance(result, _Look)]
    if not looks:
        raise DataError(f"no usable image among the {len(chosen)} looked at in {config.path}{_reasons(listing.bad)}")
    compared = _in_threads(hashed, ranked, lambda done: progress and progress(len(chosen) + done, steps))
    images = sorted((one for one in compared if one is not None), key=lambda one: one.sample.key)
    inspection = _summarize(config, layout, plan, labels, looks, images, listing, proposal)
    _write_page(inspection, looks, {image.sample.key: image.sample for image in images}, files, out)
    return inspection


def _in_threads(work: Callable[[Any], Any], items: Sequence[Any], done: Callable[[int], object]) -> Iterator[Any]:
    """The results in order; only as many are under way as memory holds easily. Pillow decodes beside Python."""
    left = iter(items)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(items), 64):
            for number, result in enumerate(pool.map(work, islice(left, 64)), start=first + 1):
                done(number)
                yield result


def _chance(pair: tuple[Sample, str]) -> bytes:
    """A pseudo-random rank of the image's key, which has nothing to do with the rank that decides about its split."""
    return blake2b(pair[0].key.encode(), digest_size=8, person=b"inspection").digest()


def _reasons(bad: Sequence[BadEntry]) -> str:
    shown = "".join(f"\n  {entry.path}: {entry.reason}" for entry in bad[:5])
    return f"; set aside:{shown}" if shown else ""


def _hashes(path: str, config: DataConfig, files: FileSystem) -> np.ndarray | None:
    """Two hashes of what an image shows; None if it cannot be read, which is reported where its mask is read."""
    try:
        with opened(read_bytes(path, files, "image"), "image") as image:
            if image.width * image.height > config.max_pixels:
                return None
            image.draft("L", (192, 192))  # A JPEG is decoded at an eighth of its size.
            small = image.convert("L").resize((96, 96), Image.Resampling.BOX)
    except (DataError, OSError, ValueError, SyntaxError):
        return None
    bits = np.stack([hashed(small).hash.ravel() for hashed in (imagehash.dhash, imagehash.phash)])  # (2, 64) bool
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def _summarize(
    config: DataConfig,
    layout: Layout,
    plan: SplitPlan,
    labels: LabelMap,
    looks: Sequence[_Look],
    images: Sequence[_Hashed],
    listing: _Listing,
    proposal: Proposal | None,
) -> Inspection:
    pixels = np.sum([look.pixels for look in looks], axis=0)
    classes = _class_counts(labels, looks, pixels, _own_colors(labels, looks, layout.files))
    void = float(pixels[IGNORE_LABEL] / pixels.sum())
    duplicates = _near_duplicates(images)
    splits = tuple(
        SplitCount(
            name,
            listing.splits[name],
            sum(look.split == name for look in looks),
            _origin(name, plan, config),
            name in plan.carved,
        )
        for name in SPLITS
    )
    emptied = any(listing.splits[name] == 0 for name in plan.carved)
    sizes = np.array([look.size for look in looks])
    heights, widths = ((int(side.min()), int(np.median(side)), int(side.max())) for side in sizes.T)
    found = Inspection(
        config=config,
        layout=layout.name,
        patterns=layout.patterns if isinstance(layout, Folder) else None,
        remarks=tuple(layout.remarks()),
        splits=splits,
        sources=tuple(listing.sources.most_common()),
        widths=widths,
        heights=heights,
        labels=labels,
        classes=classes,
        void=void,
        bad=tuple(listing.bad),
        num_bad=listing.num_bad,
        duplicates=tuple(duplicates[:MOST_DUPLICATES]),
        num_duplicates=len(duplicates),
        compared=len(images),
        fractions=sufficient_fractions(listing.groups, plan.carved) if emptied else None,
        proposal=proposal,
        corrected=sum((look.corrected for look in looks), Counter[str]()),
    )
    return replace(found, advice=tuple(advise(found)))


def _own_colors(labels: LabelMap, looks: Sequence[_Look], files: FileSystem) -> list[Color]:
    """The colours of the classes in the dataset itself: those of the label map, or of a palette mask; else ours."""
    own = {i: label.colors[0] for i, label in enumerate(labels.classes) if label.colors}
    mask = looks[0].sample.mask
    if not own and isinstance(mask, MaskFile):
        drawn = read_codes(mask.path, files, lambda size: None).palette
        values = [label.values[0] for label in labels.classes if label.values]
        if drawn is not None and max(values, default=256) < 256:
            own = dict(enumerate(unpacked(int(drawn[value])) for value in values))
    # Gray, and classes of one colour, could not be told apart.
    colored = any(len(set(color)) > 1 for color in own.values())
    distinct = len(own) == labels.num_classes == len(set(own.values()))
    return [own[i] for i in range(labels.num_classes)] if colored and distinct else palette(labels.num_classes)


def _class_counts(
    labels: LabelMap, looks: Sequence[_Look], pixels: np.ndarray, colors: Sequence[Color]
) -> tuple[ClassCount, ...]:
    images = np.sum([look.pixels > 0 for look in looks], axis=0)
    labelled = max(int(pixels[: labels.num_classes].sum()), 1)
    return tuple(
        ClassCount(name, int(pixels[i]), float(pixels[i] / labelled), int(images[i]), color)
        for i, (name, color) in enumerate(zip(labels.names, colors, strict=True))
    )


def _origin(split: str, plan: SplitPlan, config: DataConfig) -> str:
    officials = [official for official, name in plan.renamed.items() if name == split]
    if officials:
        return f"the dataset's {officials[0]}"
    if split not in plan.carved:
        return "the images left over"
    fraction = config.val_fraction if split == "val" else config.test_fraction
    return f"{fraction:.0%} of {'train' if plan.official else 'all images'}, by a hash of the group"


def _near_duplicates(images: Sequence[_Hashed]) -> list[Duplicate]:
    """Pairs of near-duplicates in different splits, the closest first."""
    by_split = {name: [image for image in images if image.split == name] for name in SPLITS}
    pairs = [
        pair
        for first, second in combinations(SPLITS, 2)
        if by_split[first] and by_split[second]
        for pair in _alike(by_split[first], by_split[second])
    ]
    return sorted(pairs, key=lambda pair: (pair.bits, pair.first, pair.second))


def _alike(first: Sequence[_Hashed], second: Sequence[_Hashed]) -> Iterator[Duplicate]:
    others = np.stack([image.hashes for image in second])  # (images, 2)
    for image in first:
        bits = np.bitwise_count(others ^ image.hashes).sum(axis=1)
        for i in np.flatnonzero(bits <= NEAR_DUPLICATE_BITS):
            other = second[int(i)]
            yield Duplicate(image.sample.key, other.sample.key, image.split, other.split, int(bits[i]))


def _write_page(
    inspection: Inspection, looks: Sequence[_Look], samples: Mapping[str, Sample], files: FileSystem, out: Path
) -> None:

    def photos(pair: Duplicate) -> list[str]:
        try:
            read = [read_bytes(samples[key].image, files, "image") for key in (pair.first, pair.second)]
            images = [read_image(encoded, inspection.config.max_pixels)[1] for encoded in read]
        except DataError:  # It is among the bad files, or was not looked at.
            return []
        return [photo_uri(image, PICTURE_SIDE) for image in images]

    step = max(len(looks) / PICTURES, 1.0)
    shown = [looks[int(i * step)] for i in range(min(PICTURES, len(looks)))]
    page = render(
        "inspection.html",
        found=inspection,
        pictures=[_picture(look, inspection, files) for look in shown],
        pairs=[
            (pair, *shown_pair) for pair in inspection.duplicates[:DUPLICATE_PICTURES] if (shown_pair := photos(pair))
        ],
        not_shown=max(inspection.num_bad - len(inspection.bad), 0),
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise WorkspaceError(f"{out}: the page cannot be written: {error.strerror}") from None


@dataclass(frozen=True)
class _Picture:
    """One image of the page, with its classes from the largest to the smallest."""

    look: _Look
    image: str
    overlay: str
    classes: tuple[ClassCount, ...]
    void: float


def _picture(look: _Look, inspection: Inspection, files: FileSystem) -> _Picture:
    _, image, mask = read_pair(look.sample, inspection.labels, inspection.config, files)
    present = [i for i in np.argsort(-look.pixels, kind="stable") if look.pixels[i] and i != IGNORE_LABEL]
    return _Picture(
        look,
        photo_uri(image, PICTURE_SIDE),
        photo_uri(overlay(image, mask, 0.6, [count.color for count in inspection.classes]), PICTURE_SIDE),
        tuple(inspection.classes[i] for i in present),
        float(look.pixels[IGNORE_LABEL] / look.pixels.sum()),
    )
