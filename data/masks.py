"""Masks as class ids: read from files through a label map, and drawn in colours."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import numpy as np

from data.errors import DataError
from data.features import IGNORE_LABEL
from data.files import FileSystem
from data.images import LARGEST_IMAGE, Size
from data.labels import Color, LabelMap
from data.layouts.base import Mask, MaskFile, PanopticFile, Shapes
from data.mask_files import MaskCodes, packed, read_codes, unpacked
from data.shapes import region

#: PASCAL VOC's colour of the ignore label (void).
VOID_COLOR = (224, 224, 192)

MOST_NAMED = 10

#: Number of colours of 8 bits a channel.
PACKED_CODES = 2**24

#: Largest number of colours of one mask that are compared with those of the label map; photos have more.
MOST_COLORS = 2**18

#: What `read_mask` counts: pixels within `color_tolerance`, pixels that `soft_edges` settled, and all pixels.
NEAR, EDGE, ALL = "near", "edge", "all"

#: Beginning of the reason where a mask holds something that the label map lacks.
UNKNOWN_LABEL = "label outside the label map"


@dataclass(frozen=True, slots=True)
class MaskRules:
    """How strictly masks are read, as the keys of the same names in section `data` say. The defaults allow nothing."""

    color_tolerance: int = 0
    soft_edges: Literal["refuse", "nearest", "ignore"] = "refuse"
    max_soft_edges: float = 0.1
    resize_masks: Literal["nearest"] | None = None

    def accept_size(self, mask: Size, image: Size) -> bool:
        """Whether a mask of one (height, width) can be used with an image of another."""
        return mask == image or (self.resize_masks is not None and same_aspect(mask, image))


#: Nothing but what the label map states, at the image's own size.
STRICT = MaskRules()


def read_mask(
    mask: Mask | None,
    label_map: LabelMap,
    size: Size,
    files: FileSystem,
    rules: MaskRules = STRICT,
    tally: Counter[str] | None = None,
) -> np.ndarray:
    """Reads a mask as class ids.

    Args:
        mask: file of the mask, or its shapes; None if there is none.
        label_map: meaning of the mask's values, colours or class names.
        size: (height, width) of the image.
        files: opens the mask's file.
        rules: what is corrected instead of refused.
        tally: counts of corrected pixels, to which those of this mask are added: NEAR, EDGE, and ALL pixels.

    Returns:
        (height, width) uint8: class ids in [0, num_classes), or `IGNORE_LABEL`.

    Raises:
        DataError: the reason why the mask cannot be used, beginning with a stable category.
    """
    tally = Counter() if tally is None else tally
    if isinstance(mask, MaskFile):
        ids = _from_file(mask, label_map, size, files, rules, tally)
    elif isinstance(mask, PanopticFile):
        ids = _from_panoptic(mask, label_map, size, files, rules)
    elif isinstance(mask, Shapes):
        ids = _from_shapes(mask, label_map, size)
    else:
        raise DataError("mask missing: the layout has none for this image")
    tally[ALL] += ids.size
    return ids


def corrections(tally: Counter[str]) -> str:
    """The share of the pixels that `read_mask` corrected, as text."""
    near, edge = tally[NEAR] / tally[ALL], tally[EDGE] / tally[ALL]
    return f"{near:.1%} of their pixels by data.color_tolerance, {edge:.1%} by data.soft_edges"


def same_aspect(mask: Size, image: Size) -> bool:
    """Whether a mask is its image scaled, within one pixel of the mask."""
    height, width = mask[1] * image[0] / image[1], mask[0] * image[1] / image[0]
    return abs(mask[0] - height) < 1 or abs(mask[1] - width) < 1


def size_mismatch(image: Size, other: Size, what: str) -> DataError:
    """Why an image and what labels it, a mask or an annotation, do not belong together."""
    remedy = "; data.resize_masks: nearest scales each mask to its image" if same_aspect(other, image) else ""
    remedy = remedy if what == "mask" else ""
    return DataError(f"size mismatch: image {image[1]}x{image[0]}, {what} {other[1]}x{other[0]}{remedy}")


def value_ids(label_map: LabelMap) -> dict[int, int]:
    """Label value -> class id or `IGNORE_LABEL`."""
    ids = {value: i for i, label in enumerate(label_map.classes) for value in label.values}
    return ids | dict.fromkeys(label_map.ignore_values, IGNORE_LABEL)


def color_ids(label_map: LabelMap) -> dict[Color, int]:
    """RGB colour -> class id or `IGNORE_LABEL`."""
    ids = {color: i for i, label in enumerate(label_map.classes) for color in label.colors}
    return ids | dict.fromkeys(label_map.ignore_colors, IGNORE_LABEL)


def apply_table(codes: np.ndarray, table: dict[int, int], spell: Callable[[int], str] = str) -> np.ndarray:
    """Replaces each code, an integer of any width, by its entry in the table; uint8, of the same shape.

    Raises:
        DataError: some codes are not in the table; the text lists them with their number of pixels, as `spell` writes
            them.
    """
    positions, ids = _looked_up(codes, table)
    unknown = positions == 0
    if unknown.any():
        raise _unknown(*np.unique(codes[unknown], return_counts=True), table, spell)
    return ids[positions]


def apply_nearest(
    found: MaskCodes, table: Mapping[int, int], rules: MaskRules, tally: Counter[str], spell: Callable[[int], str]
) -> np.ndarray:
    """Replaces each code by the entry of the nearest code in the table, as `rules` allow; uint8, of the same shape.

    The distance is the largest difference in any channel. Of two codes that are as near, the first in the table counts.

    Raises:
        DataError: some codes are too far from all in the table, or too many are.
    """
    positions, ids = _looked_up(found.codes, table)
    result = ids[positions]
    unknown = positions == 0
    if not unknown.any():
        return result
    present, inverse, counts = np.unique(found.codes[unknown], return_inverse=True, return_counts=True)
    if len(present) > MOST_COLORS:
        raise DataError(f"too many colours: {len(present)} different ones that the label map lacks; is this a photo?")
    channels = _channels(present, found.are_colors)  # (codes, channels)
    nearest, distances = np.zeros(len(present), np.int64), np.full(len(present), 2**30)
    for code in table:
        distance = np.abs(channels - _channels(np.array([code]), found.are_colors)).max(axis=1)
        closer = distance < distances
        nearest[closer], distances[closer] = table[code], distance[closer]
    far = distances > rules.color_tolerance
    if far.any() and rules.soft_edges == "refuse":
        raise _unknown(present[far], counts[far], table, spell)
    edges = int(counts[far].sum())
    if edges > rules.max_soft_edges * result.size:
        raise DataError(
            f"soft edges: {edges / result.size:.1%} of the pixels are farther than data.color_tolerance="
            f"{rules.color_tolerance} from all colours or values of the label map, more than data.max_soft_edges="
            f"{rules.max_soft_edges} allows; the most frequent is {spell(int(present[far][counts[far].argmax()]))}"
        )
    if rules.soft_edges == "ignore":
        nearest[far] = IGNORE_LABEL
    result[unknown] = nearest[inverse]
    tally[EDGE] += edges
    tally[NEAR] += int(counts.sum()) - edges
    return result


def palette(num_classes: int) -> list[Color]:
    """PASCAL VOC's colour map (VOCdevkit, `VOClabelcolormap.m`): RGB of the class ids 0, 1, ..., num_classes - 1."""

    def channel(index: int, first: int) -> int:
        # Every third bit of the index, from the lowest on, fills the channel from its highest bit down.
        return sum((index >> (3 * bit + first) & 1) << (7 - bit) for bit in range(8))

    return [(channel(i, 0), channel(i, 1), channel(i, 2)) for i in range(num_classes)]


def colorize(mask: np.ndarray, colors: Sequence[Color]) -> np.ndarray:
    """(height, width) uint8 class ids -> (height, width, 3) uint8 RGB; pixels without a colour are pale gray."""
    table = np.full((IGNORE_LABEL + 1, 3), VOID_COLOR, np.uint8)
    table[: len(colors)] = colors
    table[IGNORE_LABEL] = VOID_COLOR
    return table[mask]


def overlay(
    image: np.ndarray, mask: np.ndarray, alpha: float = 0.5, colors: Sequence[Color] | None = None
) -> np.ndarray:
    """Lays the mask's colours over a (height, width, 3) uint8 image with opacity `alpha`; ignored pixels stay bare.

    The colours are those of the class ids 0, 1, 2, ...; None takes `palette`.
    """
    drawn = colorize(mask, palette(IGNORE_LABEL) if colors is None else colors)
    opacity = np.where(mask == IGNORE_LABEL, 0.0, alpha)[:, :, None]  # (height, width, 1)
    return np.rint(image * (1 - opacity) + drawn * opacity).astype(np.uint8)


def _from_file(
    mask: MaskFile, label_map: LabelMap, size: Size, files: FileSystem, rules: MaskRules, tally: Counter[str]
) -> np.ndarray:
    found = _fitted(mask.path, size, files, rules)
    table = value_ids(label_map)
    spell: Callable[[int], str] = str
    if found.are_colors or not table:
        colors = color_ids(label_map)
        if found.colors is None and colors:
            raise DataError("unsupported mask: values, but the label map has colours alone; declare their values")
        if found.colors is not None and (colors or found.are_colors):
            if not colors:
                raise DataError(
                    "unsupported mask: RGB, but the label map has no colours; declare them, or save label values"
                )
            found = replace(found, codes=found.colors, are_colors=True)
            table = {packed(np.array(color)).item(): i for color, i in colors.items()}
            spell = _spell_color
    if found.continuous and (rules.color_tolerance or rules.soft_edges != "refuse"):
        return apply_nearest(found, table, rules, tally, spell)
    return apply_table(found.codes, table, spell)


def _from_panoptic(
    mask: PanopticFile, label_map: LabelMap, size: Size, files: FileSystem, rules: MaskRules
) -> np.ndarray:
    found = _fitted(mask.path, size, files, rules)
    if not found.are_colors:
        raise DataError("unsupported mask: no colours; a panoptic mask is an 8-bit RGB PNG")
    ids = _label_ids(label_map)
    table = {segment: _class_id(value, ids) for segment, value in mask.segments.items()}
    return apply_table(found.codes, {0: IGNORE_LABEL} | table, "segment {}".format)


def _from_shapes(mask: Shapes, label_map: LabelMap, size: Size) -> np.ndarray:
    if mask.size is not None and mask.size != size:
        raise size_mismatch(size, mask.size, "annotation")
    ids = _label_ids(label_map)
    canvas = np.full(size, _class_id(mask.background, ids), np.uint8)
    for shape in mask.shapes:
        canvas[region(shape, size)] = _class_id(shape.label, ids)
    return canvas


def _fitted(path: str, size: Size, files: FileSystem, rules: MaskRules) -> MaskCodes:
    """The codes of a mask file at the size of its image, which is checked before anything is decoded."""

    def check_size(found: Size) -> None:
        if not rules.accept_size(found, size) or prod(found) > LARGEST_IMAGE:
            raise size_mismatch(size, found, "mask")

    found = read_codes(path, files, check_size)
    if found.codes.shape == size:
        return found
    # The pixel in whose area the centre of the image's pixel lies.
    rows, columns = ((np.arange(n) * 2 + 1) * m // (2 * n) for n, m in zip(size, found.codes.shape, strict=True))
    return replace(found, codes=found.codes[rows[:, None], columns])


def _label_ids(label_map: LabelMap) -> dict[str | int, int]:
    """Label value or class name -> class id or `IGNORE_LABEL`."""
    ids: dict[str | int, int] = dict.fromkeys(label_map.ignore_values, IGNORE_LABEL)
    for i, label in enumerate(label_map.classes):
        ids.update(dict.fromkeys((label.name, *label.names, *label.values), i))
    return ids


def _class_id(label: str | int | None, ids: dict[str | int, int]) -> int:
    if label is None:
        return IGNORE_LABEL
    if label not in ids:
        allowed = ", ".join(str(known) for known in ids if isinstance(known, type(label)))
        raise DataError(f"{UNKNOWN_LABEL}: {label!r}; allowed: {allowed or 'none'}")
    return ids[label]


def _looked_up(codes: np.ndarray, table: Mapping[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Positions, of the codes' shape, in a uint8 array of the table's entries; position 0 is that of unknown codes."""
    keys = np.array(sorted(table), np.int64)
    ids = np.array([0, *(table[key] for key in keys.tolist())], np.uint8)
    largest = max(int(codes.max(initial=0)), int(keys.max(initial=0)))
    if codes.dtype.kind == "u" and largest < PACKED_CODES:
        # A table instead of a search. Of the 32 MB of one for colours, the system provides only what is touched.
        positions = np.zeros(largest + 1, np.uint16)
        positions[keys] = np.arange(1, len(keys) + 1)
        return positions[codes], ids
    places = np.searchsorted(keys, codes)
    return np.where(np.append(keys, -1)[places] == codes, places + 1, 0), ids


def _unknown(codes: np.ndarray, counts: np.ndarray, table: Mapping[int, int], spell: Callable[[int], str]) -> DataError:
    named = zip(codes[:MOST_NAMED].tolist(), counts[:MOST_NAMED].tolist(), strict=True)
    found = ", ".join(f"{spell(code)} ({count} pixels)" for code, count in named)
    more = f" and {len(codes) - MOST_NAMED} more" if len(codes) > MOST_NAMED else ""
    return DataError(f"{UNKNOWN_LABEL}: {found}{more}; allowed: {_spelled(table, spell)}")


def _channels(codes: np.ndarray, are_colors: bool) -> np.ndarray:
    """(codes, channels) int64: R, G and B of packed colours, or the label values."""
    wide = codes.astype(np.int64)
    return np.stack([wide & 255, wide >> 8 & 255, wide >> 16], axis=1) if are_colors else wide[:, None]


def _spell_color(code: int) -> str:
    return str(unpacked(code))


def _spelled(codes: Iterable[int], spell: Callable[[int], str]) -> str:
    """Codes in order; neighbouring numbers as ranges, such as '0-11, 255'."""
    if spell is not str:
        return ", ".join(spell(code) for code in sorted(codes)) or "none"
    spans: list[list[int]] = []
    for code in sorted(codes):
        if spans and code == spans[-1][1] + 1:
            spans[-1][1] = code
        else:
            spans.append([code, code])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in spans) or "none"
