"""Images and masks in any folders: `data.images` and `data.masks` say which belong together, or the names do.

The patterns are explained in `data.layouts.pairing`.
"""

from collections import defaultdict
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cached_property

from data.files import UNSAFE, FileSystem, walk
from data.labels import LabelMap
from data.layouts.base import IMAGE_ENDINGS, SPLIT_FOLDERS, SPLITS, BadEntry, Layout, Sample, is_image, stem_of
from data.layouts.class_table import table_label_map
from data.layouts.pairing import SPLIT_NAMES, PairingRule, find_rules, images_pattern, masks_pattern, only_rule

#: Endings of files that list, name or explain images, and are not images themselves.
TEXT_ENDINGS = (".csv", ".htm", ".html", ".json", ".md", ".pdf", ".py", ".txt", ".xml", ".yaml", ".yml")

#: So many missing masks are each compared with the names that are there.
_NEAR_MISSES = 20


class Folder(Layout):
    """Indexed, gray or RGB-palette masks; the label map in the configuration says what they mean."""

    name = "folder"

    @classmethod
    def detect(cls, root: str, files: FileSystem) -> bool:
        """Whether images/ and masks/ are there, in the folder or in that of a split."""
        layout = cls(root, files)
        folders = ["", *(f"{name}/" for names in SPLIT_FOLDERS.values() for name in names)]
        return any(layout.has(f"{folder}images") and layout.has(f"{folder}masks") for folder in folders)

    @cached_property
    def rule(self) -> PairingRule:
        """The patterns of images and masks: those that are stated, or else those that the names have.

        Raises:
            DataError: nothing corresponds, or it can be read in several ways.
        """
        images = images_pattern(self.images) if self.images else None
        masks = masks_pattern(self.masks) if self.masks else None
        if images and masks:
            return PairingRule(images, masks)
        paths = [path for path, _, _ in walk(self.root, self.files)]
        return only_rule(find_rules(paths, images, masks), self.root, paths)

    @property
    def patterns(self) -> tuple[str, str]:
        """`data.images` and `data.masks`."""
        return self.rule.images.text, self.rule.masks.text

    def splits(self) -> tuple[str, ...]:
        """Splits that have images and masks."""
        return tuple(split for split in SPLITS if self._split_names.get(split))

    def remarks(self) -> Iterator[str]:
        """The rule, and splits that have no masks at all."""
        images, masks = self.patterns
        shown = "; ".join(f"{image} and {mask}" for image, mask in self.rule.examples)
        yield f"Images are {images}, masks are {masks}{f', such as {shown}' if shown else ''}."
        for split in SPLITS:
            if split in self._split_names and not self._split_names[split]:
                yield f"Split {split} has no masks at all: it is left out."
        others = [path for path in self._below("") if is_image(path) and not self._fits(path)]
        if others:
            yield f"Image files that fit neither pattern, and are left out: {len(others)}, such as {min(others)}."

    def samples(self, split: str | None) -> Iterator[Sample | BadEntry]:
        """Streams the images, then the masks that have no image and the files that are neither."""
        images, masks = self.rule.images, self.rule.masks
        names = self._split_names.get(split, set()) if split else set()
        misses = 0
        for path in self._below(images.head):
            values = images.match(path)
            if values is None or (split and values.get("split") not in names) or self._is_mask(path):
                continue
            mask = self._first(masks.paths(values))
            if mask is not None or UNSAFE.search(path):
                yield self.listed(path, mask, split)
            else:
                misses += 1
                yield self._without_mask(path, next(masks.paths(values)), search=misses <= _NEAR_MISSES)
        yield from self._left_over(split, names)

    def label_map(self) -> LabelMap | None:
        """The classes that a file beside the folders names; None if there is none (see `data.layouts.class_table`)."""
        return table_label_map(self.root, self.files)

    @cached_property
    def _split_names(self) -> dict[str, set[str]]:
        """Official split -> its names in the paths; no name for a test split that has images but no masks at all.

        A folder of a split is one even if it is empty: then images are missing, and no others may take their place.
        """
        images, masks = self.rule.images, self.rule.masks
        if not images.has_split:
            return {}
        found: defaultdict[str, set[str]] = defaultdict(set)
        for name in SPLIT_NAMES:
            if self.has(images.split_folder(name)) and (not masks.has_split or self.has(masks.split_folder(name))):
                found[SPLIT_NAMES[name]].add(name)
        for path in self._below(images.head):
            values = images.match(path)
            if values:
                found[SPLIT_NAMES[values["split"].lower()]].add(values["split"])
        if masks.has_split and "test" in found:
            matches = (masks.match(path) for path in self._below(masks.head))
            if not any(values and SPLIT_NAMES[values["split"].lower()] == "test" for values in matches):
                found["test"] = set()
        return dict(found)

    def _fits(self, path: str) -> bool:
        return self.rule.images.match(path) is not None or self.rule.masks.match(path) is not None

    def _below(self, head: str) -> Iterator[str]:
        """Relative paths of the files below a folder, without litter, streamed."""
        prefix = f"{head}/" if head else ""
        for path, _, _ in walk(self.at(head), self.files):
            yield prefix + path

    def _first(self, candidates: Iterator[str]) -> str | None:
        return next((found for candidate in candidates if (found := self.locate(candidate))), None)

    def _is_mask(self, path: str) -> bool:
        """Whether a file that fits the pattern of the images is the mask of another image: `a_mask.png` of `a.png`."""
        values = self.rule.masks.match(path)
        return values is not None and self._first(self._images_of(values)) is not None

    def _images_of(self, values: dict[str, str]) -> Iterator[str]:
        """Where the image of a mask may be."""
        if self.rule.images.has_split and "split" not in values:
            for name in sorted(set().union(*self._split_names.values())):
                yield from self.rule.images.paths({**values, "split": name})
        else:
            yield from self.rule.images.paths(values)

    def _without_mask(self, image: str, mask: str, *, search: bool) -> BadEntry:
        folder, _, name = mask.rpartition("/")
        there = list(self.files.list(self.at(folder))) if search else []
        stem, stems = stem_of(name), {stem_of(one): one for one in there}
        near = sorted(one for one in stems if stem in one) or get_close_matches(stem, stems, n=1, cutoff=0.75)
        where = f"; {folder or self.root} holds {stems[near[0]]}" if near else ""
        return BadEntry(image, f"mask missing: no {mask}{where}; masks are named by data.masks={self.rule.masks.text}")

    def _left_over(self, split: str | None, names: set[str]) -> Iterator[BadEntry]:
        """Masks without an image, and files in the folders of either that are neither image, mask nor text."""
        images, masks = self.rule.images, self.rule.masks
        first = split in (None, *self.splits()[:1])  # What belongs to no split is reported once.
        heads = {images.head, masks.head}
        for head in sorted(heads):
            if any(head != other and f"{head}/".startswith(f"{other}/" if other else "") for other in heads):
                continue  # The other one is above it.
            for path in self._below(head):
                if images.match(path):
                    continue
                mask = masks.match(path)
                if mask is not None:
                    mine = mask["split"] in names if split and masks.has_split else first
                    if mine and self._first(self._images_of(mask)) is None:
                        expected = next(images.paths({"split": "{split}", **mask}))
                        yield BadEntry(path, f"image missing: no {expected} (data.images={images.text})")
                elif first and not path.lower().endswith(TEXT_ENDINGS):
                    if images.in_folder(path):
                        endings = ", ".join(IMAGE_ENDINGS)
                        reason = f"it does not fit data.images={images.text}; allowed endings are {endings}"
                        yield BadEntry(path, f"no image: {reason}")
                    elif masks.in_folder(path):
                        yield BadEntry(path, f"no mask: it does not fit data.masks={masks.text}")
