"""Proposes a label map from the contents of the masks, which the user corrects and confirms."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import yaml

from data.dataset import DataConfig
from data.errors import DataError
from data.features import IGNORE_LABEL, MAX_CLASSES
from data.files import FileSystem, read_bytes
from data.images import decode, opened, raw_mode
from data.labels import ClassLabel, Color, LabelMap
from data.layouts.base import Layout, Mask, MaskFile, PanopticFile, Sample, Shapes
from data.masks import SPREAD

Code = int | str | Color
"""The code of a class in the masks: a label value, a class name of a shape, or an RGB colour."""

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
BINARY: tuple[frozenset[Code], ...] = (frozenset({0, 255}), frozenset({0, 1}), frozenset({BLACK, WHITE}))
"""Codes of binary masks; only their author knows whether one of the two is the ignore label (void)."""


@dataclass(frozen=True)
class Proposal:
    """A proposed label map, which the configuration does not state."""

    label_map: LabelMap
    masks: Mapping[Code, int]
    """Number of masks that contain each code."""
    binary: bool
    """Whether the masks contain at most two codes, so that even the ignore label (void) is a guess."""
    place: str
    """The dataset and its layout, for messages."""

    @property
    def text(self) -> str:
        """The text that states the codes found, the proposal, and what the user has to do."""
        found = ", ".join(str(code) for code in _in_order(self.masks))
        return (
            f"label map to confirm: the masks of {self.place} hold {'only ' * self.binary}{found}, and no label map "
            f"says what that means. {self.doubt}\nProposed:\n\n{label_map_yaml(self.label_map, self.masks)}\n"
            "Write it to a file with --write-config FILE, correct it there, and look again with --config FILE."
        )

    @property
    def doubt(self) -> str:
        """Why binary masks are ambiguous; empty for others."""
        if not self.binary:
            return ""
        if 255 in self.masks:
            return "255 may be the object, or void as in many datasets: if it is void, move 255 to ignore_values."
        return "Both may be classes, or one of them void: if so, move it to ignore_values or ignore_colors."


def propose(samples: Iterable[Sample], layout: Layout, config: DataConfig) -> Proposal | None:
    """Proposes a label map for a dataset whose configuration does not state one.

    A layout's own label map needs no confirmation, unless the masks are binary: then they hardly belong to that layout.

    Returns:
        None if the layout states the label map.

    Raises:
        DataError: No mask can be read, or they contain too many codes to be label masks.
    """
    stated = layout.label_map()
    masks: Counter[Code] = Counter()
    for sample in samples:
        masks.update(_readable_codes(sample.mask, layout.files, config.max_pixels))
        if stated is not None and not (isinstance(sample.mask, MaskFile) and _is_binary(masks)):
            return None
        if len(masks) > MAX_CLASSES:
            raise DataError(
                f"too many labels: the masks of {config.path} hold over {MAX_CLASSES} different values or colours; "
                "they look like photos, instance ids, or label images that were smoothed or saved as JPEG"
            )
    if stated is not None and not _is_doubtful(masks, stated):
        return None
    if not masks:
        raise DataError(f"no readable mask among those looked at in {config.path}")
    binary = _is_binary(masks)
    place = f"{config.path} (layout {layout.name})"
    return Proposal(_binary_map(masks) if binary else _map_of(masks), dict(masks), binary, place)


def codes_of(mask: Mask, files: FileSystem, max_pixels: int) -> set[Code]:
    """The distinct codes of one mask.

    Raises:
        DataError: The mask cannot be read.
    """
    if isinstance(mask, Shapes):
        return _named(*(shape.label for shape in mask.shapes), mask.background)
    if isinstance(mask, PanopticFile):
        return _named(*mask.segments.values())
    encoded = read_bytes(mask.path, files, "mask")
    with opened(encoded, "mask") as image:
        if image.width * image.height > max_pixels:
            raise DataError(f"mask too large: {image.width}x{image.height}; data.max_pixels allows {max_pixels} pixels")
        raw = raw_mode(image)
        decode(encoded, image, "mask")
        if image.mode in ("L", "P", "1"):
            return set(np.unique(np.asarray(image).astype(np.uint8) // SPREAD.get(raw, 1)).tolist())
        if image.mode.startswith("I"):
            return set(np.unique(np.asarray(image)).tolist())
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
        return {(int(r), int(g), int(b)) for r, g, b in np.unique(pixels, axis=0)}


def label_map_yaml(label_map: LabelMap, masks: Mapping[Code, int]) -> str:
    """A label map as YAML, one class per line, with the number of masks that contain its codes as a comment."""
    lines = ["label_map:", "  classes:"]
    for label in label_map.classes:
        parts = [f"name: {scalar_yaml(label.name)}"]
        parts += [f"values: {list(label.values)}"] * bool(label.values)
        parts += [f"colors: {[list(color) for color in label.colors]}"] * bool(label.colors)
        codes: list[Code] = [*label.values, *label.colors, label.name]
        counts = [masks[code] for code in codes if code in masks]
        lines.append(f"    - {{{', '.join(parts)}}}" + (f"  # in {max(counts)} masks" if counts else ""))
    lines.append(f"  ignore_values: {list(label_map.ignore_values)}")
    if label_map.ignore_colors or any(label.colors for label in label_map.classes):
        lines.append(f"  ignore_colors: {[list(color) for color in label_map.ignore_colors]}")
    return "".join(f"{line}\n" for line in lines)


def scalar_yaml(text: str) -> str:
    """Any string as YAML on one line."""
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=2**20).strip()


def _readable_codes(mask: Mask | None, files: FileSystem, max_pixels: int) -> set[Code]:
    """The codes of a mask; empty if it cannot be read, which is reported with the reason when the pair is read."""
    try:
        return set() if mask is None else codes_of(mask, files, max_pixels)
    except DataError:
        return set()


def _named(*codes: Code | None) -> set[Code]:
    """The codes without None, which stands for the ignore label (void)."""
    return {code for code in codes if code is not None}


def _is_binary(masks: Mapping[Code, int]) -> bool:
    return any(masks.keys() <= codes for codes in BINARY)


def _is_doubtful(masks: Mapping[Code, int], stated: LabelMap) -> bool:
    """Whether binary masks do not seem to match the label map that the layout states."""
    return 255 in masks or (1 in masks and stated.num_classes > 2)


def _binary_map(masks: Mapping[Code, int]) -> LabelMap:
    names: dict[Code, str] = {0: "background", BLACK: "background"}
    return LabelMap(classes=tuple(_label(code, names.get(code, "foreground")) for code in _in_order(masks)))


def _map_of(masks: Mapping[Code, int]) -> LabelMap:
    """A class for each code except 255, which by convention is the ignore label (void)."""
    classes = [_label(code, _name(code)) for code in _in_order(masks) if code != IGNORE_LABEL]
    return LabelMap(classes=tuple(classes), ignore_values=(IGNORE_LABEL,) if IGNORE_LABEL in masks else ())


def _label(code: Code, name: str) -> ClassLabel:
    values = (code,) if isinstance(code, int) else ()
    return ClassLabel(name=name, values=values, colors=(code,) if isinstance(code, tuple) else ())


def _name(code: Code) -> str:
    if isinstance(code, int):
        return f"class_{code}"
    return code if isinstance(code, str) else "color_{:02x}{:02x}{:02x}".format(*code)


def _in_order(codes: Iterable[Code]) -> list[Code]:
    """Values, then names, then colours, each sorted."""
    return sorted(codes, key=lambda code: (str(type(code)), code))
