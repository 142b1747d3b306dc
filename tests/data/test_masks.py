"""Masks as class ids."""

from collections import Counter
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from data.errors import DataError
from data.features import IGNORE_LABEL as VOID
from data.files import LocalFiles
from data.labels import ClassLabel, LabelMap
from data.layouts.base import MaskFile, PanopticFile, Shape, Shapes
from data.mask_files import MaskCodes, packed
from data.masks import (
    ALL,
    EDGE,
    NEAR,
    MaskRules,
    apply_nearest,
    apply_table,
    color_ids,
    colorize,
    overlay,
    palette,
    read_mask,
    value_ids,
)

VALUES = LabelMap(
    classes=(ClassLabel(name="sky", values=(1, 7)), ClassLabel(name="road", values=(0,))), ignore_values=(255,)
)
RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)
COLORS = LabelMap(
    classes=(ClassLabel(name="sky", colors=(BLUE,)), ClassLabel(name="road", colors=(RED,))), ignore_colors=(BLACK,)
)
BOTH = LabelMap(classes=(ClassLabel(name="sky", values=(1,), colors=(BLUE,)), ClassLabel(name="road", values=(0,))))
CODES = np.array([[1, 0, 255], [7, 1, 0]], np.uint8)
IDS = [[0, 1, VOID], [0, 0, 1]]
SIZE = (2, 3)


@pytest.fixture
def read(files, write_image):
    def read(pixels: np.ndarray, label_map: LabelMap, name: str = "m.png", size: tuple[int, int] = SIZE, **how: object):
        return read_mask(MaskFile(str(write_image(name, pixels, **how))), label_map, size, files)

    return read


@pytest.mark.parametrize("name", ["m.png", "m.bmp", "m.tif"])
def test_gray_values_become_class_ids(read, name):
    ids = read(CODES, VALUES, name)
    assert ids.dtype == np.uint8
    assert ids.tolist() == IDS


def test_palette_indices_are_values_whatever_their_colours(read):
    assert read(CODES, VALUES, palette=[9, 9, 9] * 256).tolist() == IDS


def test_palette_colours_count_where_the_label_map_has_no_values(read):
    indices = np.array([[0, 1, 2], [1, 1, 0]], np.uint8)
    assert read(indices, COLORS, palette=[*BLUE, *RED, *BLACK]).tolist() == [[0, 1, VOID], [1, 1, 0]]


def test_rgb_colours_become_class_ids(read):
    pixels = np.array([[BLUE, RED, BLACK], [RED, RED, BLUE]], np.uint8)
    assert read(pixels, COLORS).tolist() == [[0, 1, VOID], [1, 1, 0]]


def test_wide_values_become_class_ids(read):
    label_map = LabelMap(classes=(ClassLabel(name="a", values=(300,)), ClassLabel(name="b", values=(70_000,))))
    assert read(np.full(SIZE, 300, np.uint16), label_map).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert read(np.full(SIZE, 70_000, np.int32), label_map, "m.tif").tolist() == [[1, 1, 1], [1, 1, 1]]


def test_two_colour_masks_hold_zero_and_one(read):
    assert read(np.array([[True, False, True]] * 2), VALUES).tolist() == [[0, 1, 0], [0, 1, 0]]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_small_palette_masks_hold_their_indices(read, bits):
    indices = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    assert read(indices, VALUES, palette=[*RED, *BLUE], bits=bits).tolist() == [[1, 0, 0], [0, 1, 1]]


def test_gray_of_four_bits_is_not_spread_over_eight(files, tmp_path):
    # Pillow shows the stored labels 1, 15 as 17, 255, and 255 would be void.
    (tmp_path / "m.png").write_bytes(bytes.fromhex(FOUR_BITS))
    label_map = LabelMap(classes=(ClassLabel(name="a", values=(15,)), ClassLabel(name="b", values=(1,))))
    assert read_mask(MaskFile(str(tmp_path / "m.png")), label_map, (1, 2), files).tolist() == [[1, 0]]


#: A PNG of 2x1 pixels, 4-bit gray, with the values 1 and 15.
FOUR_BITS = (
    "89504e470d0a1a0a0000000d494844520000000200000001040000000014b9cd57"
    "0000000a49444154789c639007000021002047b646f70000000049454e44ae426082"
)


def reason(read, pixels: np.ndarray, label_map: LabelMap, **how: object) -> str:
    with pytest.raises(DataError) as caught:
        read(pixels, label_map, **how)
    return str(caught.value)


def test_an_undeclared_value_is_named_with_its_pixels_and_what_is_allowed(read):
    codes = np.array([[17, 17, 1], [200, 1, 0]], np.uint8)
    expected = "label outside the label map: 17 (2 pixels), 200 (1 pixels); allowed: 0-1, 7, 255"
    assert reason(read, codes, VALUES) == expected
    assert reason(read, codes.astype(np.uint16), VALUES) == expected


def test_an_undeclared_colour_is_named(read):
    assert reason(read, np.full((*SIZE, 3), 9, np.uint8), COLORS) == (
        "label outside the label map: (9, 9, 9) (6 pixels); allowed: (0, 0, 0), (255, 0, 0), (0, 0, 255)"
    )


def test_many_undeclared_values_are_counted(read):
    assert "and 90 more" in reason(read, np.arange(100, 200, dtype=np.uint8).reshape(10, 10), VALUES, size=(10, 10))


def test_binary_masks_do_not_pass_for_void(read):
    """Masks of 0 and 255 with a label map that says nothing of 255 stop: 255 may be the object."""
    label_map = LabelMap(classes=(ClassLabel(name="ground", values=(0,)), ClassLabel(name="object", values=(1,))))
    assert reason(read, np.array([[0, 255, 0]] * 2, np.uint8), label_map) == (
        "label outside the label map: 255 (2 pixels); allowed: 0-1"
    )


def test_a_label_map_without_values_allows_none(read):
    assert reason(read, CODES, LabelMap(classes=(ClassLabel(name="a"),))).endswith("allowed: none")


def test_a_mask_of_another_size_is_refused_before_it_is_decoded(read):
    assert reason(read, CODES, VALUES, size=(2, 8)) == "size mismatch: image 8x2, mask 3x2"


@pytest.mark.parametrize(
    ("pixels", "label_map", "name", "text"),
    [
        (np.zeros((*SIZE, 4), np.uint8), COLORS, "m.png", "unsupported mask: mode RGBA"),
        (np.zeros((*SIZE, 4), np.uint8), VALUES, "m.png", "unsupported mask: mode RGBA"),
        (np.zeros((*SIZE, 2), np.uint8), VALUES, "m.png", "unsupported mask: mode LA"),
        (np.zeros(SIZE, np.float32), VALUES, "m.tif", "unsupported mask: mode F"),
        (np.zeros((*SIZE, 3), np.uint8), VALUES, "m.png", "unsupported mask: RGB, but the label map has no colours"),
    ],
)
def test_odd_masks_are_refused(read, pixels, label_map, name, text):
    assert reason(read, pixels, label_map, name=name).startswith(text)


def test_a_missing_mask_is_named(files, tmp_path):
    with pytest.raises(DataError, match=r"^mask missing: no file .*absent\.png"):
        read_mask(MaskFile(str(tmp_path / "absent.png")), VALUES, SIZE, files)
    with pytest.raises(DataError, match="^mask missing: "):
        read_mask(None, VALUES, SIZE, files)


def test_a_damaged_mask_is_refused(files, write_image):
    path = write_image("m.png", CODES)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="^(truncated|unreadable) mask: "):
        read_mask(MaskFile(str(path)), VALUES, SIZE, files)


def test_a_rotated_mask_is_refused(read):
    block = Image.Exif()
    block[0x0112] = 3
    assert reason(read, CODES, VALUES, exif=block).startswith("rotated by EXIF: the mask has orientation 3")


# What is corrected where the configuration says so


def corrected(
    files, write_image, pixels: np.ndarray, label_map: LabelMap, **rules: object
) -> tuple[list[list[int]], Counter[str]]:
    tally: Counter[str] = Counter()
    path = str(write_image("m.png", pixels))
    ids = read_mask(MaskFile(path), label_map, pixels.shape[:2], files, MaskRules(**rules), tally)
    return ids.tolist(), tally


#: A little off blue, half-way to red, and a little off black.
SMOOTH = np.array([[(3, 0, 251), (128, 0, 127), RED], [RED, (0, 4, 0), BLUE]], np.uint8)


def test_colours_a_little_off_are_the_nearest_of_the_label_map(files, write_image):
    pixels = np.array([[(3, 0, 251), (255, 4, 0), RED], [RED, (0, 4, 0), BLUE]], np.uint8)
    ids, tally = corrected(files, write_image, pixels, COLORS, color_tolerance=4)
    assert ids == [[0, 1, 1], [1, VOID, 0]]
    assert tally == {NEAR: 3, EDGE: 0, ALL: 6}
    with pytest.raises(DataError, match=r"^label outside the label map: \(0, 4, 0\) \(1 pixels\), \(255, 4, 0\)"):
        corrected(files, write_image, pixels, COLORS, color_tolerance=3)


@pytest.mark.parametrize(("edges", "middle"), [("nearest", 1), ("ignore", VOID)])
def test_soft_edges_become_what_is_said(files, write_image, edges, middle):
    ids, tally = corrected(files, write_image, SMOOTH, COLORS, color_tolerance=4, soft_edges=edges, max_soft_edges=0.2)
    assert ids == [[0, middle, 1], [1, VOID, 0]]
    assert tally == {NEAR: 2, EDGE: 1, ALL: 6}


def test_too_many_soft_edges_are_refused(files, write_image):
    with pytest.raises(DataError) as caught:
        corrected(files, write_image, SMOOTH, COLORS, color_tolerance=4, soft_edges="nearest", max_soft_edges=0.1)
    assert str(caught.value) == (
        "soft edges: 16.7% of the pixels are farther than data.color_tolerance=4 from all colours or values of the "
        "label map, more than data.max_soft_edges=0.1 allows; the most frequent is (128, 0, 127)"
    )


def test_smoothed_gray_masks_are_read_as_their_two_values(files, write_image):
    label_map = LabelMap(classes=(ClassLabel(name="ground", values=(0,)), ClassLabel(name="thing", values=(255,))))
    gray = np.array([[0, 60, 200, 255]], np.uint8)
    assert corrected(files, write_image, gray, label_map, soft_edges="nearest", max_soft_edges=0.5)[0] == [[0, 0, 1, 1]]
    assert corrected(files, write_image, gray, label_map, soft_edges="ignore", max_soft_edges=0.5)[0] == [
        [0, VOID, VOID, 1]
    ]


def test_indices_and_wide_values_are_never_corrected(files, write_image):
    rules = MaskRules(color_tolerance=255, soft_edges="nearest", max_soft_edges=1)
    for pixels, palette_ in ((np.full(SIZE, 2, np.uint8), [9, 9, 9] * 256), (np.full(SIZE, 2, np.uint16), None)):
        path = str(write_image("m.png", pixels, palette_))
        with pytest.raises(DataError, match=r"^label outside the label map: 2 \(6 pixels\)"):
            read_mask(MaskFile(path), VALUES, SIZE, files, rules)


@given(st.integers(0, 20), st.integers(0, 2**32 - 1))
def test_noise_within_the_tolerance_changes_no_class(tolerance, seed):
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 3, (5, 6))
    colors = np.array([BLUE, RED, BLACK])[mask]
    noisy = (colors + rng.integers(-tolerance, tolerance + 1, colors.shape)).clip(0, 255)
    table = {int(packed(np.array(color))): i for i, color in enumerate((BLUE, RED, BLACK))}
    rules = MaskRules(color_tolerance=tolerance)
    found = MaskCodes(packed(noisy), are_colors=True, continuous=True)
    assert apply_nearest(found, table, rules, Counter(), str).tolist() == mask.tolist()


def test_a_mask_of_another_size_is_scaled_where_the_configuration_says_so(read, files, write_image):
    values = np.array([[0, 1], [7, 255]], np.uint8)
    assert reason(read, values, VALUES, size=(4, 4)) == (
        "size mismatch: image 4x4, mask 2x2; data.resize_masks: nearest scales each mask to its image"
    )
    rules = MaskRules(resize_masks="nearest")
    path = str(write_image("m.png", values))
    assert read_mask(MaskFile(path), VALUES, (4, 4), files, rules).tolist() == [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 0, VOID, VOID],
        [0, 0, VOID, VOID],
    ]
    assert read_mask(MaskFile(path), VALUES, (5, 4), files, rules).shape == (5, 4)  # 2 x 2 is 2.5 x 2, rounded
    with pytest.raises(DataError, match="^size mismatch: image 8x4, mask 2x2$"):
        read_mask(MaskFile(path), VALUES, (4, 8), files, rules)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3))
def test_a_scaled_mask_is_the_one_that_pillow_scales(height, width, factor):
    mask = np.random.default_rng(0).integers(0, 2, (height, width), np.uint8)
    size = (height * factor, width * factor)
    with TemporaryDirectory() as folder:
        Image.fromarray(mask).save(f"{folder}/m.png")
        ids = read_mask(MaskFile(f"{folder}/m.png"), VALUES, size, LocalFiles(), MaskRules(resize_masks="nearest"))
    expected = Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST)
    assert ids.tolist() == (1 - np.asarray(expected)).tolist()


# Other annotations


def test_panoptic_segments_become_the_classes_of_their_values(files, write_image):
    # R + 256 G + 65536 B
    pixels = np.array([[(5, 0, 0), (0, 1, 0), (0, 0, 0)], [(0, 0, 1), (5, 0, 0), (5, 0, 0)]], np.uint8)
    mask = PanopticFile(str(write_image("p.png", pixels)), {5: 7, 256: 0, 65536: None})
    assert read_mask(mask, VALUES, SIZE, files).tolist() == [[0, 1, VOID], [VOID, 0, 0]]


def test_an_undescribed_segment_or_category_is_named(files, write_image):
    path = str(write_image("p.png", np.full((*SIZE, 3), 1, np.uint8)))
    with pytest.raises(DataError, match=r"segment 65793 \(6 pixels\); allowed: segment 0, segment 5"):
        read_mask(PanopticFile(path, {5: 7}), VALUES, SIZE, files)
    with pytest.raises(DataError, match="label outside the label map: 9; allowed: 255, 1, 7, 0"):
        read_mask(PanopticFile(path, {5: 9}), VALUES, SIZE, files)
    gray = str(write_image("g.png", CODES))
    with pytest.raises(DataError, match="a panoptic mask is an 8-bit RGB PNG"):
        read_mask(PanopticFile(gray, {}), VALUES, SIZE, files)


def rectangle(label: str | int | None, *points: tuple[float, float]) -> Shape:
    return Shape(label, "rectangle", points)


def test_later_shapes_lie_on_top_and_the_rest_is_background(files):
    shapes = (rectangle("sky", (0, 0), (1, 1)), rectangle(None, (1, 0), (2, 0)))
    assert read_mask(Shapes(shapes, "road", SIZE), VALUES, SIZE, files).tolist() == [[0, VOID, VOID], [0, 0, 1]]
    assert read_mask(Shapes(shapes), VALUES, SIZE, files).tolist() == [[0, VOID, VOID], [0, 0, VOID]]


def test_shapes_may_name_label_values(files):
    shapes = (rectangle(7, (0, 0), (0, 1)), rectangle(255, (1, 0), (1, 1)))
    assert read_mask(Shapes(shapes, "road"), VALUES, SIZE, files).tolist() == [[0, VOID, 1], [0, VOID, 1]]


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        (Shapes((rectangle("dog", (0, 0), (1, 1)),)), "label outside the label map: 'dog'; allowed: sky, road"),
        (Shapes((), "_background_"), "label outside the label map: '_background_'; allowed: sky, road"),
        (Shapes((), None, (5, 7)), "size mismatch: image 3x2, annotation 7x5"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(files, shapes, text):
    with pytest.raises(DataError) as caught:
        read_mask(shapes, VALUES, SIZE, files)
    assert str(caught.value) == text


@given(st.data())
def test_a_label_map_is_a_lookup(data):
    values = data.draw(st.lists(st.integers(0, 70_000), min_size=3, max_size=20, unique=True))
    cut = data.draw(st.integers(1, len(values)))
    label_map = LabelMap(
        classes=tuple(ClassLabel(name=str(v), values=(v,)) for v in values[:cut]), ignore_values=tuple(values[cut:])
    )
    dtype = np.uint8 if max(values) < 256 else np.int64
    codes = data.draw(arrays(dtype, (4, 5), elements=st.sampled_from(values)))
    ids = apply_table(codes, value_ids(label_map))
    expected = [[VOID if values.index(v) >= cut else values.index(v) for v in row] for row in codes.tolist()]
    assert ids.dtype == np.uint8
    assert ids.tolist() == expected


@given(arrays(np.uint8, (3, 4)), st.sets(st.integers(0, 255)))
def test_no_value_that_is_not_declared_gets_through(codes, declared):
    table = dict.fromkeys(declared, 0)
    if set(codes.ravel().tolist()) <= declared:
        assert not apply_table(codes, table).any()
    else:
        with pytest.raises(DataError, match="label outside the label map"):
            apply_table(codes, table)


def test_colours_are_void_or_ids():
    assert color_ids(COLORS) == {BLUE: 0, RED: 1, BLACK: VOID}


def test_the_palette_is_that_of_pascal_voc():
    published = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)]
    assert palette(7) == published
    assert palette(21)[20] == (0, 64, 128)
    assert len(set(palette(255))) == 255


def test_the_palette_is_that_of_the_real_masks(test_data):
    mask = Image.open(test_data / "layouts/voc/VOCdevkit/VOC2011/SegmentationClass/2011_000003.png")
    stored = np.reshape(mask.getpalette(), (-1, 3))[:21]
    assert stored.tolist() == [list(color) for color in palette(21)]


def test_images_of_masks():
    mask = np.array([[0, 1, VOID]], np.uint8)
    assert colorize(mask, palette(2)).tolist() == [[[0, 0, 0], [128, 0, 0], [224, 224, 192]]]
    assert colorize(mask, palette(1)).tolist() == [[[0, 0, 0], [224, 224, 192], [224, 224, 192]]]
    image = np.full((1, 3, 3), 100, np.uint8)
    assert overlay(image, mask, 0.25).tolist() == [[[75, 75, 75], [107, 75, 75], [100, 100, 100]]]
