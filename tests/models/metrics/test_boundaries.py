"""Bands around boundaries: by hand, and against a slow look at every neighbour and the reference's erosion."""

import numpy as np
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from models.metrics.boundaries import boundary_radius, inner_boundaries, near_other_label

VOID = 255


def near(labels: list[list[int]], radius: int) -> np.ndarray:
    """`near_other_label` of one map."""
    return near_other_label(tf.constant(np.uint8(labels)[None]), tf.constant(radius))[0].numpy()


def band(labels: np.ndarray, radius: int) -> np.ndarray:
    """`inner_boundaries` of one map."""
    return inner_boundaries(tf.constant(labels[None]), tf.constant(radius))[0].numpy()


def slowly_near(labels: np.ndarray, radius: int) -> np.ndarray:
    """The same, window by window."""
    found = np.zeros(labels.shape, bool)
    for row, column in np.ndindex(labels.shape):
        window = labels[max(row - radius, 0) : row + radius + 1, max(column - radius, 0) : column + radius + 1]
        found[row, column] = len(np.unique(window)) > 1
    return found


def reference_boundary(mask: np.ndarray, radius: int) -> np.ndarray:
    """`mask_to_boundary` of bowenc0221/boundary-iou-api: cv2.erode takes what is outside for set, hence the padding."""
    padded = np.pad(mask, 1)
    eroded = ndimage.binary_erosion(padded, np.ones((3, 3)), iterations=radius, border_value=1)
    return mask & ~eroded[1:-1, 1:-1]


label_maps = arrays.arrays(
    np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.sampled_from([0, 1, 2, 254, VOID])
)


def test_pixels_within_the_radius_of_another_label_are_near_one():
    assert near([[0, 0, 0, 7, 7, 7]], radius=1).tolist() == [[False, False, True, True, False, False]]
    assert near([[0, 0, 0, 7, 7, 7]], radius=2).tolist() == [[False, True, True, True, True, False]]


def test_the_neighbourhood_is_a_square():
    corner = [[3, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert near(corner, radius=1).tolist() == [[True, True, False], [True, True, False], [False, False, False]]


def test_the_ignore_label_is_a_label_like_any_other():
    assert near([[0, 0, VOID, 0, 0]], radius=1).tolist() == [[False, True, True, True, False]]
    assert not near([[VOID, VOID, VOID]], radius=1).any()


@settings(max_examples=40)
@given(arrays.arrays(np.uint8, (2, 7, 5), elements=st.sampled_from([0, 1, 254, VOID])), st.integers(1, 9))
@example(np.full((2, 7, 5), VOID, np.uint8), 1)
def test_a_stack_of_maps_is_as_a_slow_look_at_every_neighbour(maps: np.ndarray, radius: int):
    found = near_other_label(tf.constant(maps), tf.constant(radius)).numpy()
    for one, fast in zip(maps, found, strict=True):
        np.testing.assert_array_equal(fast, slowly_near(one, radius))


@settings(max_examples=40)
@given(label_maps, st.integers(1, 5))
def test_each_class_has_the_boundary_of_the_reference_implementation(labels: np.ndarray, radius: int):
    for label in np.unique(labels):
        mask = labels == label
        np.testing.assert_array_equal(band(labels, radius) & mask, reference_boundary(mask, radius))


def test_a_segment_has_its_band_beside_a_ring_of_ignored_pixels_of_any_width():
    # A square of side 7 in the middle of 25 pixels: its outline of 24 pixels, and two of them, 24 + 16.
    for ring in range(1, 9):
        labels = np.zeros((25, 25), np.uint8)
        labels[9 - ring : 16 + ring, 9 - ring : 16 + ring] = VOID
        labels[9:16, 9:16] = 1
        assert [(band(labels, radius) & (labels == 1)).sum() for radius in (1, 2)] == [24, 40]


def test_the_edge_of_the_image_bounds_a_segment():
    edge = np.ones((9, 9), bool)
    edge[1:-1, 1:-1] = False
    np.testing.assert_array_equal(band(np.zeros((9, 9), np.uint8), radius=1), edge)


def test_the_radius_is_two_percent_of_the_diagonal_and_at_least_one():
    assert [int(boundary_radius(tf.constant(size))) for size in ((300, 400), (480, 360), (3, 4))] == [10, 12, 1]
