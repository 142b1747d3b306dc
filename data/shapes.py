"""Regions of annotation files, drawn as pixels: outlines, polygons, run-length encodings and bitmaps."""

import base64
import math
import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco

from data.errors import DataError
from data.images import Size, decode, opened
from data.layouts.base import Shape
from data.rle import coco_runs, decoded_runs, label_studio_values

Points = tuple[tuple[float, float], ...]
Draw = Callable[[ImageDraw.ImageDraw, Points], None]

#: labelme draws lines this wide and points with this radius, in pixels (`labelme/utils/shape.py`).
LINE_WIDTH = 10
POINT_RADIUS = 5

#: Bytes that a PNG may have beside its pixels.
BITMAP_OVERHEAD = 2**16

PNG_BEGIN = b"\x89PNG"


def region(shape: Shape, size: Size) -> np.ndarray:
    """The pixels of a shape in an image of `size` (height, width), as a (height, width) bool array.

    Raises:
        DataError: the kind is unknown, or the shape is malformed or far outside the image.
    """
    if shape.kind in _ENCODINGS:
        return _ENCODINGS[shape.kind](shape, size)
    if shape.kind not in KINDS:
        raise DataError(f"unsupported shape: {shape.kind!r}; allowed: {', '.join(KINDS)}")
    if shape.kind == "unit_polygon":
        points = tuple((x * size[1], y * size[0]) for x, y in shape.points)
        shape = replace(shape, kind="coco_polygon", points=points)
    _check_points(shape, size)
    if shape.kind == "coco_polygon":
        flat = [value for point in shape.points for value in point]
        return _by_columns(coco.frPyObjects([flat], *size)[0], size)
    canvas = Image.new("1", size[::-1])
    draw = ImageDraw.Draw(canvas)
    _OUTLINES[shape.kind][2](draw, shape.points)
    for hole in shape.holes:
        draw.polygon(hole, outline=0, fill=0)
    return np.asarray(canvas)


def _check_points(shape: Shape, size: Size) -> None:
    fewest, most, _ = _OUTLINES.get(shape.kind, (3, math.inf, None))
    for points in (shape.points, *shape.holes):
        if not fewest <= len(points) <= most:
            allowed = f"{fewest}" if fewest == most else f"at least {fewest}"
            raise DataError(f"malformed shape: {shape.kind} with {len(points)} points; it needs {allowed}")
    # Drawing walks along every edge: one absurd coordinate would take minutes or overflow.
    for point in (point for points in (shape.points, *shape.holes) for point in points):
        for value, side in zip(point, size[::-1], strict=True):
            if not -side <= value <= 2 * side:
                raise DataError(
                    f"malformed shape: point ({point[0]:g}, {point[1]:g}) of a {shape.kind} is far outside "
                    f"the {size[1]}x{size[0]} image"
                )


def _polygon(draw: ImageDraw.ImageDraw, points: Points) -> None:
    draw.polygon(points, outline=1, fill=1)


def _rectangle(draw: ImageDraw.ImageDraw, points: Points) -> None:
    (x1, x2), (y1, y2) = (sorted(side) for side in zip(*points, strict=True))
    draw.rectangle((x1, y1, x2, y2), outline=1, fill=1)


def _circle(draw: ImageDraw.ImageDraw, points: Points) -> None:
    """The first point is the centre, the second lies on the circle."""
    _disc(draw, points[0], math.dist(points[0], points[1]))


def _line(draw: ImageDraw.ImageDraw, points: Points) -> None:
    draw.line(points, fill=1, width=LINE_WIDTH)


def _point(draw: ImageDraw.ImageDraw, points: Points) -> None:
    _disc(draw, points[0], POINT_RADIUS)


def _disc(draw: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float) -> None:
    x, y = centre
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=1, fill=1)


#: labelme's outlines: the fewest and most points, and how they are drawn.
_OUTLINES: dict[str, tuple[int, float, Draw]] = {
    "polygon": (3, math.inf, _polygon),
    "rectangle": (2, 2, _rectangle),
    "circle": (2, 2, _circle),
    "line": (2, 2, _line),
    "linestrip": (2, math.inf, _line),
    "point": (1, 1, _point),
}


def _by_columns(rle: dict, size: Size) -> np.ndarray:
    """COCO's run lengths go down the columns and begin with a run of zeros.

    pycocotools' own decoder leaves the pixels that damaged runs do not reach unset in memory.
    """
    if rle.get("size") != list(size):
        raise DataError(
            f"size mismatch: image {size[1]}x{size[0]}, run-length encoding {rle.get('size')} (height, width)"
        )
    columns = decoded_runs(coco_runs(rle.get("counts")), size[0] * size[1])  # (width * height,)
    return columns.reshape(size[::-1]).T


def _placed(part: np.ndarray, shape: Shape, size: Size) -> np.ndarray:
    """A (height, width) bool part of the image, with its upper left corner at the shape's point."""
    top, left = _corner(shape, part.shape, size)
    canvas = np.zeros(size, bool)
    canvas[top : top + part.shape[0], left : left + part.shape[1]] = part
    return canvas


def _corner(shape: Shape, part: tuple[int, ...], size: Size) -> Size:
    """(top, left) of a part of the image with a size (height, width), which must lie in the image."""
    (x, y), *_ = shape.points or ((math.nan, math.nan),)
    if not (0 <= x <= size[1] - part[1] and 0 <= y <= size[0] - part[0]):
        raise DataError(
            f"size mismatch: a {shape.kind} of {part[1]}x{part[0]} at ({x:g}, {y:g}) is not inside the "
            f"{size[1]}x{size[0]} image"
        )
    return int(y), int(x)


def _by_rows(shape: Shape, size: Size) -> np.ndarray:
    """CVAT's run lengths go along the rows of a box in the image and begin with a run of zeros."""
    rle = shape.rle or {}
    height, width = rle["size"]
    _corner(shape, (height, width), size)
    return _placed(decoded_runs(rle["counts"], height * width).reshape(height, width), shape, size)


def _brush(shape: Shape, size: Size) -> np.ndarray:
    """Label Studio encodes the RGBA of the whole image, of which the opacity counts."""
    values = label_studio_values((shape.rle or {})["counts"], size[0] * size[1] * 4)
    return values.reshape(*size, 4)[:, :, 3] > 0


def _bitmap(shape: Shape, size: Size) -> np.ndarray:
    """A PNG whose pixels belong to the shape where they are opaque or, if it has no transparency, not 0."""
    most = 4 * size[0] * size[1] + BITMAP_OVERHEAD  # A larger PNG of this image's size would be no mask.
    if len(shape.png) > 2 * most:
        raise DataError(f"bitmap too large: {len(shape.png)} characters for a {size[1]}x{size[0]} image")
    try:
        content = base64.b64decode(shape.png, validate=True)
        if not content.startswith(PNG_BEGIN):
            decompressor = zlib.decompressobj()
            content = decompressor.decompress(content, most)
            if not decompressor.eof:
                raise DataError(f"bitmap too large, or cut off: its PNG has not ended after {len(content)} bytes")
    except (ValueError, zlib.error) as error:
        raise DataError(f"malformed bitmap: {error}") from None
    with opened(content, "bitmap") as image:
        _corner(shape, image.size[::-1], size)
        decode(content, image, "bitmap")
        pixels = np.asarray(image.convert("RGBA"))[:, :, 3] if image.has_transparency_data else np.asarray(image)
    return _placed(pixels.reshape(*pixels.shape[:2], -1).max(axis=2) > 0, shape, size)


#: Regions that are stored as pixels, and how they are decoded.
_ENCODINGS: dict[str, Callable[[Shape, Size], np.ndarray]] = {
    "rle": lambda shape, size: _by_columns(shape.rle or {}, size),
    "row_rle": _by_rows,
    "brush": _brush,
    "bitmap": _bitmap,
}

#: COCO's polygons differ from labelme's by up to a pixel along the outline, so they are kinds of their own. A unit
#: polygon is one in fractions of the image's width and height.
KINDS = (*_OUTLINES, "coco_polygon", "unit_polygon", *_ENCODINGS)
