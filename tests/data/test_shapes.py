"""Rendering shapes."""

import base64
import io
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from data.errors import DataError
from data.layouts.base import Shape
from data.shapes import region

SIZE = (20, 30)
SQUARE = ((2.0, 3.0), (6.0, 3.0), (6.0, 5.0), (2.0, 5.0))


def shape(kind: str, *points: tuple[float, float]) -> Shape:
    return Shape("a", kind, points)


def rows(size: list[int], counts: list[int], corner: tuple[float, float] = (0, 0)) -> Shape:
    return Shape("a", "row_rle", (corner,), {"size": size, "counts": counts})


def brush(counts: bytes) -> Shape:
    return Shape("a", "brush", rle={"counts": counts})


def bitmap(content: bytes, corner: tuple[float, float] = (0, 0)) -> Shape:
    return Shape("a", "bitmap", (corner,), png=base64.b64encode(content).decode())


def png(width: int, height: int, mode: str = "1") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height), 1).save(file, "PNG")
    return file.getvalue()


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    """Rows top..bottom and columns left..right, both ends included."""
    expected = np.zeros(SIZE, bool)
    expected[top : bottom + 1, left : right + 1] = True
    return expected


@pytest.mark.parametrize("kind", ["polygon", "rectangle"])
def test_labelme_outlines_belong_to_the_shape(kind):
    points = SQUARE if kind == "polygon" else (SQUARE[2], SQUARE[0])
    assert np.array_equal(region(shape(kind, *points), SIZE), box(3, 2, 5, 6))


def test_coco_polygons_end_at_their_edges():
    assert np.array_equal(region(shape("coco_polygon", *SQUARE), SIZE), box(3, 2, 4, 5))


def test_a_circle_is_given_by_its_centre_and_a_point_on_it():
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    distance = np.hypot(rows - 10, columns - 12)
    inside = region(shape("circle", (12, 10), (12, 4)), SIZE)
    assert inside[distance < 5.5].all()
    assert not inside[distance > 6.5].any()


def test_lines_are_ten_pixels_wide_and_points_have_radius_five():
    assert region(shape("line", (5, 10), (25, 10)), SIZE).sum(axis=0)[15] == 10
    assert region(shape("linestrip", (5, 10), (15, 10), (25, 10)), SIZE).sum(axis=0)[12] == 10
    assert region(shape("point", (12, 10)), SIZE).sum(axis=0).max() == 11


def test_a_shape_may_reach_beyond_the_image():
    assert region(shape("rectangle", (-5, -5), (40, 30)), SIZE).all()
    assert region(shape("coco_polygon", (-5, -5), (40, -5), (40, 30), (-5, 30)), SIZE).all()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (shape("mask", (0, 0)), "unsupported shape: 'mask'; allowed: polygon, rectangle"),
        (shape("polygon", (0, 0), (1, 1)), "malformed shape: polygon with 2 points; it needs at least 3"),
        (shape("coco_polygon", (0, 0)), "malformed shape: coco_polygon with 1 points; it needs at least 3"),
        (shape("rectangle", (0, 0), (1, 1), (2, 2)), "malformed shape: rectangle with 3 points; it needs 2"),
        (shape("point"), "malformed shape: point with 0 points; it needs 1"),
        (shape("polygon", (0, 0), (5, 5), (1e9, 0)), r"point \(1e\+09, 0\) of a polygon is far outside the 30x20"),
        (shape("circle", (0, 0), (float("nan"), 0)), r"point \(nan, 0\) of a circle is far outside"),
        (Shape("a", "rle"), "size mismatch: image 30x20, run-length encoding None"),
        (Shape("a", "rle", rle={"size": [30, 20], "counts": [600]}), r"encoding \[30, 20\] \(height, width\)"),
        (Shape("a", "rle", rle={"size": [20, 30], "counts": [1, 598]}), "do not add up to 600 pixels"),
        (Shape("a", "rle", rle={"size": [20, 30], "counts": [-1, 601]}), "do not add up"),
        (Shape("a", "rle", rle={"size": [20, 30], "counts": ["x", 600]}), "do not add up"),
        (Shape("a", "rle", rle={"size": [20, 30], "counts": "zzzzz"}), "do not add up"),
        (Shape("a", "rle", rle={"size": [20, 30], "counts": ""}), "do not add up"),
        (Shape("a", "rle", rle={"size": [20, 30], "counts": "\ud800"}), "do not add up"),
        (Shape("a", "rle", rle={"size": [20, 30]}), "counts must be a text or a list, not NoneType"),
        (Shape("a", "rle", rle={"size": 7, "counts": [600]}), "run-length encoding 7"),
        (rows([2, 2], [1, 2]), "do not add up to 4 pixels"),
        (rows([2, 10**6], [10**6, 10**6]), "a row_rle of 1000000x2 .* is not inside the 30x20 image"),
        (rows([2, 2], [4], (29, 0)), r"a row_rle of 2x2 at \(29, 0\) is not inside"),
        (rows([2, 2], [4], (-1, 0)), r"a row_rle of 2x2 at \(-1, 0\) is not inside"),
        (brush(b""), "truncated run-length encoding"),
        (brush(bytes([0, 0, 9, 97, 56, 0, 0, 0])), "a brush has 2401 values of 8 bits, not 2400 of 8"),
        (brush(bytes([0, 0, 9, 96, 56, 0, 0, 0])), "truncated run-length encoding"),
        (brush(bytes([0, 0, 9, 96, 63, 255, 255, 255, 255, 255, 255, 255])), "a brush has more than 2400 values"),
        (bitmap(png(2, 2), (29, 0)), r"a bitmap of 2x2 at \(29, 0\) is not inside the 30x20 image"),
        (bitmap(png(2, 2), (0.5, float("nan"))), "is not inside"),
        (bitmap(png(4000, 4000)), "a bitmap of 4000x4000 .* is not inside the 30x20 image"),
        (bitmap(zlib.compress(bytes(10**7))), "bitmap too large, or cut off: its PNG has not ended after 67936 bytes"),
        (bitmap(bytes(10**6)), "bitmap too large: 1333336 characters for a 30x20 image"),
        (bitmap(b"PNG"), "malformed bitmap"),
        (Shape("a", "bitmap", ((0, 0),), png="#"), "malformed bitmap"),
        (Shape("a", "polygon", SQUARE, holes=(((0, 0), (1, 1)),)), "polygon with 2 points; it needs at least 3"),
    ],
)
def test_a_malformed_shape_is_named(bad, reason):
    with pytest.raises(DataError, match=reason):
        region(bad, SIZE)


def test_a_hole_is_cut_out_of_a_polygon():
    hole = ((3.0, 4.0), (5.0, 4.0), (5.0, 4.0))
    assert np.array_equal(
        region(Shape("a", "polygon", SQUARE, holes=(hole,)), SIZE), box(3, 2, 5, 6) & ~box(4, 3, 4, 5)
    )


def test_a_unit_polygon_is_in_fractions_of_the_image():
    points = tuple((x / SIZE[1], y / SIZE[0]) for x, y in SQUARE)
    assert np.array_equal(region(shape("unit_polygon", *points), SIZE), box(3, 2, 4, 5))


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P"])
@pytest.mark.parametrize("pack", [bytes, zlib.compress])
def test_a_bitmap_lies_at_its_corner(mode, pack):
    assert np.array_equal(region(bitmap(pack(png(4, 2, mode)), (26, 18)), SIZE), box(18, 26, 19, 29))


def test_run_lengths_by_rows_lie_in_their_box():
    decoded = region(rows([2, 3], [1, 2, 3], (27, 18)), SIZE)
    assert np.array_equal(decoded, box(18, 28, 18, 29))


def test_run_lengths_go_down_the_columns():
    decoded = region(Shape("a", "rle", rle={"size": [2, 3], "counts": [1, 2, 3]}), (2, 3))
    assert decoded.astype(int).tolist() == [[0, 1, 0], [1, 0, 0]]


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_run_lengths_read_back_what_pycocotools_writes(seed, height, width, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    for counts in (rle["counts"], rle["counts"].decode()):
        decoded = region(Shape("a", "rle", rle={"size": [height, width], "counts": counts}), (height, width))
        assert np.array_equal(decoded, mask)


@given(st.text(st.characters(max_codepoint=255), max_size=30))
def test_any_text_for_run_lengths_is_decoded_or_refused(counts):
    try:
        decoded = region(Shape("a", "rle", rle={"size": [2, 3], "counts": counts}), (2, 3))
    except DataError:
        return
    assert decoded.shape == (2, 3)
