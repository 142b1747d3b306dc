"""Regions of annotation files, drawn as pixels: labelme's outlines, COCO's polygons and run-length encodings."""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco

from data.errors import DataError
from data.layouts.base import Shape

Size = tuple[int, int]
Points = tuple[tuple[float, float], ...]
Draw = Callable[[ImageDraw.ImageDraw, Points], None]

#: labelme draws lines this wide and points with this radius, in pixels (`labelme/utils/shape.py`).
LINE_WIDTH = 10
POINT_RADIUS = 5


def region(shape: Shape, size: Size) -> np.ndarray:
    """The pixels of a shape in an image of `size` (height, width), as a (height, width) bool array.

    Raises:
        DataError: the kind is unknown, or the shape is malformed or far outside the image.
    """
    if shape.kind == "rle":
        return _run_length_region(shape.rle or {}, size)
    if shape.kind not in KINDS:
        raise DataError(f"unsupported shape: {shape.kind!r}; allowed: {', '.join(KINDS)}")
    _check_points(shape, size)
    if shape.kind == "coco_polygon":
        flat = [value for point in shape.points for value in point]
        return _run_length_region(coco.frPyObjects([flat], *size)[0], size)
    canvas = Image.new("1", size[::-1])
    _OUTLINES[shape.kind][2](ImageDraw.Draw(canvas), shape.points)
    return np.asarray(canvas)


def _check_points(shape: Shape, size: Size) -> None:
    fewest, most, _ = _OUTLINES.get(shape.kind, (3, math.inf, None))
    if not fewest <= len(shape.points) <= most:
        allowed = f"{fewest}" if fewest == most else f"at least {fewest}"
        raise DataError(f"malformed shape: {shape.kind} with {len(shape.points)} points; it needs {allowed}")
    # Drawing walks along every edge: one absurd coordinate would take minutes or overflow.
    for point in shape.points:
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

#: COCO's polygons differ from labelme's by up to a pixel along the outline, so they are kinds of their own.
KINDS = (*_OUTLINES, "coco_polygon", "rle")


def _run_length_region(rle: dict, size: Size) -> np.ndarray:
    """COCO's run lengths go down the columns and begin with a run of zeros.

    pycocotools' own decoder leaves the pixels that damaged runs do not reach unset in memory.
    """
    if rle.get("size") != list(size):
        raise DataError(
            f"size mismatch: image {size[1]}x{size[0]}, run-length encoding {rle.get('size')} (height, width)"
        )
    counts = rle.get("counts")
    runs = counts if isinstance(counts, list) else _runs(counts)
    if not all(type(run) is int and run >= 0 for run in runs) or sum(runs) != size[0] * size[1]:
        raise DataError(f"malformed run-length encoding: the runs do not add up to {size[0]} x {size[1]} pixels")
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, runs)  # (width * height,)
    return columns.reshape(size[::-1]).T


def _runs(text: str | bytes | None) -> list[int]:
    """Run lengths from COCO's text: 5 bits a character, low bits first; from the third on, differences two back.

    Reference: `rleFrString` in cocoapi/common/maskApi.c.
    """
    if not isinstance(text, str | bytes):
        raise DataError(f"malformed run-length encoding: counts must be a text or a list, not {type(text).__name__}")
    runs: list[int] = []
    value, shift = 0, 0
    for code in text.encode() if isinstance(text, str) else text:
        bits = code - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value, shift = 0, 0
    return runs
