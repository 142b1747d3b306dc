"""CVAT's own format, "CVAT for images 1.1": annotations.xml, and images/ beside it.

Format: docs.cvat.ai/docs/other/xml_format. CVAT's "Segmentation mask 1.1" is read by `data.layouts.voc`, its "COCO
1.0" by `data.layouts.coco`, its "CamVid 1.0" by `data.layouts.camvid`.
"""

import math
import re
from collections.abc import Callable, Iterator
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import iterparse

from data.errors import DataError
from data.layouts.annotations import (
    Annotated,
    Points,
    RegionFiles,
    background_of,
    ellipse,
    identifier,
    rotated,
    split_in,
)
from data.layouts.base import SPLITS, BadEntry, Sample, Shape, Shapes

#: How an annotation file of CVAT begins.
SIGNATURE = re.compile(r"<annotations>\s*<version>1\.1</version>")

#: Elements of an image that are not regions: the image's own labels.
NOT_REGIONS = ("tag", "attribute")


class Cvat(RegionFiles):
    """Polygons, boxes, ellipses and masks in the order of `z_order`; all other pixels are the background.

    The official splits are the subsets of the images, if all of them are in one for training, validation or test.
    """

    name = "cvat"

    def find(self) -> Iterator[str]:
        """Files that begin like CVAT's."""
        return self.beginning_with(SIGNATURE.search, ".xml")

    def splits(self) -> tuple[str, ...]:
        """The splits that the files' folders say, or else the subsets in the file."""
        stated = super().splits()
        if stated:
            return stated
        subsets = {_subset(image) for image in _elements(self, self.annotation_files()[None], "image")}
        return () if None in subsets else tuple(split for split in SPLITS if split in subsets)

    def samples(self, split: str | None) -> Iterator[Sample | BadEntry]:
        """Streams the images of a split."""
        files = self.annotation_files()
        if split is None or split in files:
            yield from super().samples(split)
            return
        subset = [_annotated(image) for image in _elements(self, files[None], "image") if _subset(image) == split]
        yield from self.found(files[None], subset, split, background_of(self.label_map().names))

    def read(self, path: str) -> tuple[list[str], list[Annotated | BadEntry]]:
        """The labels of the task or project, and the images."""
        names: list[str] = []
        images: list[Annotated | BadEntry] = []
        for element in _elements(self, path, "label", "image", "track"):
            if element.tag == "track":
                raise DataError(
                    f"unsupported annotation: {path} holds tracks of a video; export it as 'CVAT for images 1.1'"
                )
            if element.tag == "image":
                images.append(_annotated(element))
            # The points of a skeleton are labels, too.
            elif element.findtext("parent") is None and (name := element.findtext("name")):
                names.append(name)
        return names, images


def _elements(layout: Cvat, path: str, *tags: str) -> Iterator[Element]:
    """Streams the elements of some tags; no document type, entity or external reference is accepted."""
    try:
        with layout.files.open(layout.at(path)) as file:
            for _, element in iterparse(file, events=("end",), forbid_dtd=True):
                if element.tag in tags:
                    yield element
                    element.clear()
    except (ParseError, DefusedXmlException, LookupError, UnicodeError, OSError) as error:
        raise DataError(f"invalid XML: {path}: {error!s:.200}") from None


def _subset(image: Element) -> str | None:
    return split_in(image.get("subset") or "")


def _annotated(image: Element) -> Annotated | BadEntry:
    name = image.get("name")
    regions = [element for element in image if element.tag not in NOT_REGIONS]
    if not name:
        return BadEntry(f"image {image.get('id')}", "malformed annotation: an image has no name", len(regions))
    mask: Shapes | DataError
    try:
        # Python's sort is stable: of regions at one height, later ones are on top.
        regions.sort(key=lambda element: _number(element, "z_order", "0"))
        size = (_whole(image, "height"), _whole(image, "width"))
        mask = Shapes(tuple(map(_shape, regions)), size=size)
    except DataError as error:
        mask = error
    return Annotated(name, mask, len(regions))


def _shape(element: Element) -> Shape:
    label = element.get("label")
    if not label:
        raise DataError(f"malformed annotation: a {element.tag} has no label")
    if element.tag == "mask":
        size = [_whole(element, "height"), _whole(element, "width")]
        runs = [run if (run := identifier(text)) is not None else -1 for text in (element.get("rle") or "").split(",")]
        corner = (_number(element, "left"), _number(element, "top"))
        return Shape(label, "row_rle", (corner,), {"size": size, "counts": runs})
    if element.tag not in OUTLINES:
        raise DataError(f"unsupported shape: {element.tag}; allowed: mask, {', '.join(OUTLINES)}")
    return Shape(label, "coco_polygon", OUTLINES[element.tag](element))


def _polygon(element: Element) -> Points:
    try:
        pairs = [point.split(",") for point in (element.get("points") or "").split(";")]
        return tuple((float(x), float(y)) for x, y in pairs)
    except ValueError:
        raise DataError(f"malformed annotation: points of a polygon are {element.get('points')!r:.80}") from None


def _box(element: Element) -> Points:
    left, top, right, bottom = (_number(element, side) for side in ("xtl", "ytl", "xbr", "ybr"))
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return rotated(corners, ((left + right) / 2, (top + bottom) / 2), _number(element, "rotation", "0"))


def _ellipse(element: Element) -> Points:
    cx, cy, rx, ry = (_number(element, side) for side in ("cx", "cy", "rx", "ry"))
    return ellipse((cx, cy), (rx, ry), _number(element, "rotation", "0"))


OUTLINES: dict[str, Callable[[Element], Points]] = {"polygon": _polygon, "box": _box, "ellipse": _ellipse}


def _number(element: Element, key: str, default: str = "") -> float:
    try:
        value = float(element.get(key, default))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"malformed annotation: {key!r} of a {element.tag} must be a number, not {element.get(key)!r:.80}"
        )
    return value


def _whole(element: Element, key: str) -> int:
    value = identifier(element.get(key))
    if not isinstance(value, int) or value < 1:
        raise DataError(
            f"malformed annotation: {key!r} of a {element.tag} must be a whole number of pixels, not "
            f"{element.get(key)!r:.80}"
        )
    return value
