"""Masks as class ids: read from files through a label map, and drawn in colours."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from PIL import Image

from data.errors import DataError
from data.features import IGNORE_LABEL
from data.files import FileSystem, read_bytes
from data.images import decode, opened, raw_mode
from data.labels import Color, LabelMap
from data.layouts.base import Mask, MaskFile, PanopticFile, Shapes
from data.shapes import Size, region

#: Pillow spreads gray of 2 and 4 bits over 0..255; the stored label is the quotient.
SPREAD = {"L;2": 85, "L;4": 17}

#: PASCAL VOC's colour of the ignore label (void).
VOID_COLOR = (224, 224, 192)

MOST_NAMED = 10

#: Beginning of the reason where a mask holds something that the label map lacks.
UNKNOWN_LABEL = "label outside the label map"


def read_mask(mask: Mask | None, label_map: LabelMap, size: Size, files: FileSystem) -> np.ndarray:
    """Reads a mask as class ids.

    Args:
        mask: file of the mask, or its shapes; None if there is none.
        label_map: meaning of the mask's values, colours or class names.
        size: (height, width) of the image.
        files: opens the mask's file.

    Returns:
        (height, width) uint8: class ids in [0, num_classes), or `IGNORE_LABEL`.

    Raises:
        DataError: the reason why the mask cannot be used, beginning with a stable category.
    """
    if isinstance(mask, MaskFile):
        return _from_file(mask, label_map, size, files)
    if isinstance(mask, PanopticFile):
        return _from_panoptic(mask, label_map, size, files)
    if isinstance(mask, Shapes):
        return _from_shapes(mask, label_map, size)
    raise DataError("mask missing: the layout has none for this image")


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
    present, counts, positions = _distinct(codes)
    unknown = [(int(code), int(count)) for code, count in zip(present, counts, strict=True) if int(code) not in table]
    if unknown:
        found = ", ".join(f"{spell(code)} ({count} pixels)" for code, count in unknown[:MOST_NAMED])
        more = f" and {len(unknown) - MOST_NAMED} more" if len(unknown) > MOST_NAMED else ""
        raise DataError(f"{UNKNOWN_LABEL}: {found}{more}; allowed: {_spelled(table, spell)}")
    return np.array([table[int(code)] for code in present], np.uint8)[positions]


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


def overlay(image: np.ndarray, mask: np.ndarray, alpha: float = 0.5) -> np.ndarray:
    """Lays the mask's colours over a (height, width, 3) uint8 image with opacity `alpha`; ignored pixels stay bare."""
    colors = colorize(mask, palette(IGNORE_LABEL))
    opacity = np.where(mask == IGNORE_LABEL, 0.0, alpha)[:, :, None]  # (height, width, 1)
    return np.rint(image * (1 - opacity) + colors * opacity).astype(np.uint8)


def _from_file(mask: MaskFile, label_map: LabelMap, size: Size, files: FileSystem) -> np.ndarray:
    image, raw = _decoded(mask.path, size, files)
    values, colors = value_ids(label_map), color_ids(label_map)
    indexed = image.mode in ("L", "P", "1")
    if indexed and (values or not colors):
        return apply_table(np.asarray(image).astype(np.uint8) // SPREAD.get(raw, 1), values)
    if image.mode.startswith("I"):
        return apply_table(np.asarray(image).astype(np.int64), values)
    if (indexed or raw == "RGB") and colors and not image.has_transparency_data:
        packed = {_pack(np.array(color)).item(): i for color, i in colors.items()}
        return apply_table(
            _pack(np.asarray(image.convert("RGB"))),
            packed,
            lambda code: str((code % 256, code // 256 % 256, code >> 16)),
        )
    if raw == "RGB" and not colors:
        raise DataError("unsupported mask: RGB, but the label map has no colours; declare them, or save label values")
    raise DataError(f"unsupported mask: mode {image.mode} ({raw}); save it as palette, gray or RGB, not transparent")


def _from_panoptic(mask: PanopticFile, label_map: LabelMap, size: Size, files: FileSystem) -> np.ndarray:
    image, raw = _decoded(mask.path, size, files)
    if raw != "RGB":
        raise DataError(f"unsupported mask: mode {image.mode} ({raw}); a panoptic mask is an 8-bit RGB PNG")
    ids = _label_ids(label_map)
    table = {segment: _class_id(value, ids) for segment, value in mask.segments.items()}
    return apply_table(_pack(np.asarray(image)), {0: IGNORE_LABEL} | table, "segment {}".format)


def _from_shapes(mask: Shapes, label_map: LabelMap, size: Size) -> np.ndarray:
    if mask.size is not None and mask.size != size:
        raise _size_mismatch(size, mask.size, "annotation")
    ids = _label_ids(label_map)
    canvas = np.full(size, _class_id(mask.background, ids), np.uint8)
    for shape in mask.shapes:
        canvas[region(shape, size)] = _class_id(shape.label, ids)
    return canvas


def _decoded(path: str, size: Size, files: FileSystem) -> tuple[Image.Image, str]:
    """The decoded mask and its raw mode; the size is checked before anything is decoded."""
    encoded = read_bytes(path, files, "mask")
    with opened(encoded, "mask") as image:
        if image.size != size[::-1]:
            raise _size_mismatch(size, image.size[::-1], "mask")
        raw = raw_mode(image)
        decode(encoded, image, "mask")
        return image.copy(), raw


def _size_mismatch(image: Size, other: Size, what: str) -> DataError:
    return DataError(f"size mismatch: image {image[1]}x{image[0]}, {what} {other[1]}x{other[0]}")


def _label_ids(label_map: LabelMap) -> dict[str | int, int]:
    """Label value or class name -> class id or `IGNORE_LABEL`."""
    ids: dict[str | int, int] = dict.fromkeys(label_map.ignore_values, IGNORE_LABEL)
    for i, label in enumerate(label_map.classes):
        ids.update(dict.fromkeys((label.name, *label.values), i))
    return ids


def _class_id(label: str | int | None, ids: dict[str | int, int]) -> int:
    if label is None:
        return IGNORE_LABEL
    if label not in ids:
        allowed = ", ".join(str(known) for known in ids if isinstance(known, type(label)))
        raise DataError(f"{UNKNOWN_LABEL}: {label!r}; allowed: {allowed or 'none'}")
    return ids[label]


def _distinct(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct codes, their numbers of pixels, and for every pixel the position of its code among them."""
    if codes.dtype != np.uint8:
        present, positions, counts = np.unique(codes, return_inverse=True, return_counts=True)
        return present, counts, positions.reshape(codes.shape)
    # Counting instead of sorting: 30 times as fast on the masks that nearly every dataset has.
    histogram = np.bincount(codes.ravel(), minlength=256)
    present = np.flatnonzero(histogram)
    table = np.zeros(256, np.uint8)
    table[present] = np.arange(len(present))
    return present, histogram[present], table[codes]


def _pack(rgb: np.ndarray) -> np.ndarray:
    """RGB in the last axis -> R + 256 G + 65536 B, which is also how COCO's panoptic masks store segment ids."""
    return rgb.astype(np.int32) @ np.array([1, 256, 65536], np.int32)


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
