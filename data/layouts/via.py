"""VGG Image Annotator (VIA) 1 and 2: a project, or its exported annotations, as one JSON file.

Format: robots.ox.ac.uk/~vgg/software/via. MakeSense exports polygons so, too.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

from data.errors import DataError
from data.files import read_json
from data.layouts.annotations import Annotated, Points, RegionFiles, ellipse, field, numbers
from data.layouts.base import BadEntry, Shape, Shapes

PROJECT = "_via_img_metadata"

#: Names of the attribute that is the class, where regions have several.
CLASS_ATTRIBUTES = ("class", "label", "category", "name", "type")


class Via(RegionFiles):
    """Polygons, rectangles, circles and ellipses, later ones on top; all other pixels are the background.

    The class is the regions' only attribute or, of several, the only one in `CLASS_ATTRIBUTES`.
    """

    name = "via"

    def find(self) -> Iterator[str]:
        """Files that begin like VIA's."""
        return self.beginning_with(_is_via)

    def read(self, path: str) -> tuple[list[str], list[Annotated | BadEntry]]:
        """The options of the attribute and the classes in use, and the images."""
        content = read_json(self.at(path), self.files)
        entries = content.get(PROJECT, content) if isinstance(content, dict) else None
        if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
            raise DataError(f"no annotation file of VIA: {path}: it needs an object for each image")
        attribute = _class_attribute(path, [_regions(entry) for entry in entries.values()])
        options = _options(content, attribute)
        images: list[Annotated | BadEntry] = []
        used: set[str] = set()
        for key, entry in entries.items():
            regions = _regions(entry)
            mask: Shapes | DataError
            try:
                mask = Shapes(tuple(_shape(region, attribute) for region in regions))
                used.update(str(shape.label) for shape in mask.shapes)
            except DataError as error:
                mask = error
            name = entry.get("filename")
            if isinstance(name, str) and name:
                images.append(Annotated(name, mask, len(regions)))
            else:
                images.append(BadEntry(key, "malformed annotation: an image has no filename", len(regions)))
        return [*options, *sorted(used - set(options))], images


def _is_via(head: str) -> bool:
    exported = all(f'"{key}"' in head for key in ("filename", "regions", "file_attributes"))
    return head.startswith("{") and ('"_via_' in head or exported)


def _regions(entry: dict) -> list[Any]:
    """VIA 1 numbers the regions, VIA 2 lists them."""
    regions = entry.get("regions")
    return list(regions.values()) if isinstance(regions, dict) else regions if isinstance(regions, list) else []


def _class_attribute(path: str, regions: list[list[Any]]) -> str | None:
    """The name of the attribute that is the class; None if there are no regions."""
    names: dict[str, None] = {}
    for region in (one for several in regions for one in several if isinstance(one, dict)):
        attributes = region.get("region_attributes")
        names.update(dict.fromkeys(attributes if isinstance(attributes, dict) else ()))
    known = [name for name in names if name.lower() in CLASS_ATTRIBUTES]
    if len(names) > 1 and len(known) != 1:
        raise DataError(
            f"ambiguous class: the regions of {path} have the attributes {', '.join(names)}; delete those that are not "
            f"the class, or call one of them {CLASS_ATTRIBUTES[0]}"
        )
    return known[0] if len(names) > 1 else next(iter(names), None)


def _options(content: dict, attribute: str | None) -> list[str]:
    """The values of the attribute that a project lists."""
    found: Any = content
    for key in ("_via_attributes", "region", attribute, "options"):
        found = found.get(key) if isinstance(found, dict) else None
    return [name for name in found if name] if isinstance(found, dict) else []


def _shape(region: Any, attribute: str | None) -> Shape:
    attributes = field(region, "region_attributes", dict)
    value = attributes.get(attribute)
    # A checkbox has a value for each option.
    chosen = [name for name, on in value.items() if on] if isinstance(value, dict) else [value]
    if len(chosen) != 1 or not isinstance(chosen[0], str | int | float) or not str(chosen[0]).strip():
        raise DataError(f"malformed annotation: a region needs one class in {attribute!r}, not {value!r:.80}")
    outline = field(region, "shape_attributes", dict)
    kind = field(outline, "name", str)
    if kind not in OUTLINES:
        raise DataError(f"unsupported shape: {kind}; allowed: {', '.join(OUTLINES)}")
    drawn, points = OUTLINES[kind](outline)
    return Shape(str(chosen[0]).strip(), drawn, points)


def _values(outline: dict, *keys: str) -> list[float]:
    return numbers([outline.get(key) for key in keys])


def _polygon(outline: dict) -> tuple[str, Points]:
    xs, ys = (numbers(outline.get(f"all_points_{axis}")) for axis in "xy")
    if len(xs) != len(ys):
        raise DataError(f"malformed annotation: a polygon has {len(xs)} x and {len(ys)} y")
    return "polygon", tuple(zip(xs, ys, strict=True))


def _rectangle(outline: dict) -> tuple[str, Points]:
    x, y, width, height = _values(outline, "x", "y", "width", "height")
    return "coco_polygon", ((x, y), (x + width, y), (x + width, y + height), (x, y + height))


def _circle(outline: dict) -> tuple[str, Points]:
    x, y, radius = _values(outline, "cx", "cy", "r")
    return "circle", ((x, y), (x + radius, y))


def _ellipse(outline: dict) -> tuple[str, Points]:
    x, y, rx, ry = _values(outline, "cx", "cy", "rx", "ry")
    (theta,) = numbers([outline.get("theta", 0)])  # In radians.
    return "coco_polygon", ellipse((x, y), (rx, ry), math.degrees(theta))


OUTLINES: dict[str, Callable[[dict], tuple[str, Points]]] = {
    "polygon": _polygon,
    "rect": _rectangle,
    "circle": _circle,
    "ellipse": _ellipse,
}
