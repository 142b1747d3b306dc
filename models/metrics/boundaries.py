"""Bands around the boundaries of label maps, for the metrics that consider only boundaries.

All classes of a label map are processed at once: two labels near a pixel differ if and only if the largest and the
smallest do. So the cost does not depend on the number of classes, and grows with the logarithm of a band's width.

The ignore label (void) is a label like any other here, so ignored pixels bound the segments beside them.
"""

import tensorflow as tf

#: Width of the bands of boundary IoU, relative to the image's diagonal (Cheng et al., arXiv 2103.16562, section 4).
BOUNDARY_FRACTION = 0.02


def boundary_radius(size: tf.Tensor) -> tf.Tensor:
    """Width in pixels of the bands of boundary IoU, int32; `size` is (height, width) of the image, int32.

    It is 2 % of the diagonal and at least 1, as in `mask_to_boundary` of bowenc0221/boundary-iou-api.
    """
    diagonal = tf.norm(tf.cast(size, tf.float32))
    return tf.maximum(tf.cast(tf.round(BOUNDARY_FRACTION * diagonal), tf.int32), 1)


def inner_boundaries(labels: tf.Tensor, radius: tf.Tensor) -> tf.Tensor:
    """The pixels of each segment that are near its boundary, which may be the edge of the image.

    For any one class these are the pixels that `mask_to_boundary` of bowenc0221/boundary-iou-api gives for its mask.

    Args:
        labels: (maps, height, width) uint8.
        radius: width of the bands in pixels, int32.

    Returns:
        (maps, height, width) bool.
    """
    rows, columns = (_near_ends(tf.shape(labels)[axis], radius) for axis in (1, 2))
    return near_other_label(labels, radius) | rows[:, None] | columns


def near_other_label(labels: tf.Tensor, radius: tf.Tensor) -> tf.Tensor:
    """Whether two different labels lie within `radius` rows and columns of each pixel.

    Args:
        labels: (maps, height, width) uint8.
        radius: radius in pixels, int32.

    Returns:
        (maps, height, width) bool.
    """
    # Outside the image the windows hold 0, the lowest value, which never changes a maximum.
    largest = _window_maximum(labels, radius)
    smallest = 255 - _window_maximum(255 - labels, radius)
    return largest > smallest


def _near_ends(length: tf.Tensor, radius: tf.Tensor) -> tf.Tensor:
    """Which positions of an axis are among the first or last `radius` ones, (length,) bool."""
    places = tf.range(length)
    return (places < radius) | (places >= length - radius)


def _window_maximum(values: tf.Tensor, radius: tf.Tensor) -> tf.Tensor:
    """Maximum of (maps, height, width) values over a square with sides of 2 * radius + 1 pixels; 0 outside the map."""
    return _maximum_along(_maximum_along(values, radius, axis=1), radius, axis=2)


def _maximum_along(values: tf.Tensor, radius: tf.Tensor, axis: int) -> tf.Tensor:
    """Maximum over 2 * radius + 1 neighbours along one axis of (maps, height, width) values.

    The maxima over a span, combined with themselves some steps further on, are the maxima over a longer span, so the
    span doubles until it is long enough. TensorFlow's max pooling reads each pixel of the window one by one.
    """
    window = 2 * radius + 1
    lead = (slice(None),) * axis

    def widen(span: tf.Tensor, maxima: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        step = tf.minimum(span, window - span)
        here, further = maxima[(*lead, slice(None, -step))], maxima[(*lead, slice(step, None))]
        return span + step, tf.maximum(here, further)

    ends = tf.one_hot(axis, 3, dtype=tf.int32)[:, None] * tf.stack([radius, radius])  # (3, 2)
    shapes = tf.TensorShape(()), tf.TensorShape((None, None, None))
    start = tf.constant(1), tf.pad(values, ends)
    _, maxima = tf.while_loop(lambda span, _: span < window, widen, start, shape_invariants=shapes)
    return maxima
