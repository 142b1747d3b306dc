"""Random scale, crop, flip and colour jitter of one labelled image: training only, and a pure function of a seed.

The image is scaled first and then cropped, as in the training protocol of arXiv 1706.05587, section 4.1, but only the
pixels inside the crop are computed.
"""

import math
from typing import Annotated, NamedTuple

import numpy as np
import tensorflow as tf
from pydantic import Field

from data.config import AugmentConfig
from data.features import IGNORE_LABEL

Pixels = Annotated[int, Field(ge=1)]

_CROP_ATTEMPTS = 10
_RGB_TO_YIQ = np.array([[0.299, 0.596, 0.211], [0.587, -0.274, -0.523], [0.114, -0.322, 0.312]], np.float32)
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)


class View(NamedTuple):
    """The part of the scaled image that a crop shows; in scaled pixels."""

    size: tf.Tensor
    """(height, width) of the whole image after scaling, int32."""
    offset: tf.Tensor
    """(row, column) at which the crop begins, int32; negative where the image begins inside the crop."""


def augment(
    image: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor, config: AugmentConfig, channel_mean: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """One variation of a labelled image; image and mask stay aligned.

    Args:
        image: (height, width, 3) uint8 RGB of any size.
        mask: (height, width) uint8 class ids, or `IGNORE_LABEL`.
        seed: (2,) integers; equal seeds give equal variations.
        config: the kinds of variation and their ranges.
        channel_mean: (3,) float32 in [0, 255]: the colour outside the image, where the mask is `IGNORE_LABEL`.

    Returns:
        (crop height, crop width, 3) float32 in [0, 255] and (crop height, crop width) uint8.
    """
    seeds = tf.random.split(seed, 2)
    scale, flip, *color = tf.unstack(tf.random.stateless_uniform([6], seeds[0]))
    size = scaled_size(tf.shape(mask), scale_factor(scale, config))
    view = choose_view(mask, size, seeds[1], config)
    crop = config.crop_size
    pixels, classes = crop_image(image, view, crop), crop_mask(mask, view, crop)
    if config.jitters_color:
        pixels = jitter_color(pixels, tf.stack(color), config, channel_mean)
    # The colour outside the image is filled in last: it stays the mean whatever the jitter.
    pixels = tf.where(inside(view, crop)[:, :, None], pixels, channel_mean)
    if config.flip:
        pixels, classes = tf.cond(flip < 0.5, lambda: (pixels[:, ::-1], classes[:, ::-1]), lambda: (pixels, classes))
    return tf.ensure_shape(pixels, (*crop, 3)), tf.ensure_shape(classes, crop)


def scale_factor(uniform: tf.Tensor, config: AugmentConfig) -> tf.Tensor:
    """The scale factor for a draw from [0, 1)."""
    span = config.scale_max - config.scale_min
    if not config.scale_step:
        return config.scale_min + span * uniform
    # The tolerance keeps scale_max itself where the steps reach it but for rounding.
    choices = math.floor(span / config.scale_step + 1e-6) + 1
    return config.scale_min + config.scale_step * tf.floor(uniform * choices)


def scaled_size(size: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """(height, width) int32 times a factor, at least one pixel."""
    return tf.maximum(tf.cast(tf.round(tf.cast(size, tf.float32) * factor), tf.int32), 1)


def crop_offset(uniform: tf.Tensor, size: tf.Tensor, crop: tuple[int, int]) -> tf.Tensor:
    """The (row, column) at which a crop begins, for draws from [0, 1).

    Each crop inside the image is equally likely and, where the image is smaller than the crop, each around it.
    Reference implementations pad a small image below and to the right; here it lies anywhere in the crop.
    """
    room = size - tf.constant(crop)
    steps = tf.floor(uniform * tf.cast(tf.abs(room) + 1, tf.float32))
    return tf.sign(room) * tf.cast(steps, tf.int32)


def choose_view(mask: tf.Tensor, size: tf.Tensor, seed: tf.Tensor, config: AugmentConfig) -> View:
    """A random crop of the image scaled to `size`; the first one that `max_class_fraction` allows, else the last."""
    attempts = 1 if config.max_class_fraction == 1.0 else _CROP_ATTEMPTS
    draws = tf.random.stateless_uniform([attempts, 2], seed)
    offsets = crop_offset(draws, size, config.crop_size)  # (attempts, 2)
    if attempts == 1:
        return View(size, offsets[0])

    def monotonous(attempt: tf.Tensor) -> tf.Tensor:
        classes = crop_mask(mask, View(size, offsets[attempt]), config.crop_size)
        return (attempt < attempts - 1) & (dominant_fraction(classes) > config.max_class_fraction)

    (chosen,) = tf.while_loop(monotonous, lambda attempt: (attempt + 1,), (tf.constant(0),))
    return View(size, offsets[chosen])


def dominant_fraction(mask: tf.Tensor) -> tf.Tensor:
    """The fraction of a mask that its most frequent value covers, where the ignore label counts as a class; float32."""
    counts = tf.math.bincount(tf.cast(tf.reshape(mask, [-1]), tf.int32), minlength=256, maxlength=256)
    return tf.cast(tf.reduce_max(counts), tf.float32) / tf.cast(tf.size(mask), tf.float32)


def crop_image(image: tf.Tensor, view: View, crop: tuple[int, int]) -> tf.Tensor:
    """The crop of the image scaled as `tf.image.resize(..., antialias=True)` does; float32, 0 outside the image.

    It runs the operation inside `tf.image.resize` for the crop alone.
    """
    scale = tf.cast(view.size, tf.float32) / tf.cast(tf.shape(image)[:2], tf.float32)
    scaled = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=tf.constant(crop),
        scale=scale,
        translation=-tf.cast(view.offset, tf.float32),
        kernel_type="triangle",
        antialias=True,
    )
    return tf.clip_by_value(scaled[0], 0.0, 255.0)  # (crop height, crop width, 3)


def crop_mask(mask: tf.Tensor, view: View, crop: tuple[int, int]) -> tf.Tensor:
    """The crop of the mask scaled by nearest neighbour (pixel centres); `IGNORE_LABEL` outside the image."""
    height, width = tf.unstack(tf.shape(mask))
    rows = _nearest(_positions(view, crop, 0), view.size[0], height)
    columns = _nearest(_positions(view, crop, 1), view.size[1], width)
    classes = tf.gather(tf.gather(mask, rows), columns, axis=1)
    return tf.where(inside(view, crop), classes, tf.constant(IGNORE_LABEL, tf.uint8))


def inside(view: View, crop: tuple[int, int]) -> tf.Tensor:
    """(crop height, crop width) bool: where the crop shows the image."""
    rows, columns = (
        (position >= 0) & (position < view.size[axis])
        for axis, position in enumerate((_positions(view, crop, 0), _positions(view, crop, 1)))
    )
    return rows[:, None] & columns[None, :]


def jitter_color(image: tf.Tensor, uniform: tf.Tensor, config: AugmentConfig, channel_mean: tf.Tensor) -> tf.Tensor:
    """Changes brightness, contrast, saturation and hue in one affine map of RGB, clipped to [0, 255].

    Args:
        image: (height, width, 3) float32 in [0, 255].
        uniform: four draws from [0, 1), in the order above; 0.5 changes nothing.
        config: the largest changes.
        channel_mean: (3,) float32 in [0, 255]: the colour that contrast and hue do not change.
    """
    brightness, contrast, saturation, hue = tf.unstack(2.0 * uniform - 1.0)
    color = color_matrix(1.0 + config.saturation * saturation, config.hue * hue)
    matrix = (1.0 + config.contrast * contrast) * color
    shift = (
        channel_mean + 255.0 * config.brightness * brightness - tf.linalg.matvec(matrix, channel_mean, transpose_a=True)
    )
    pixels = tf.reshape(image, [-1, 3]) @ matrix + shift
    return tf.reshape(tf.clip_by_value(pixels, 0.0, 255.0), tf.shape(image))


def color_matrix(saturation: tf.Tensor, hue: tf.Tensor) -> tf.Tensor:
    """(3, 3) matrix that turns the hue of RGB row vectors by `hue` turns, in YIQ, and multiplies the saturation."""
    angle = 2.0 * math.pi * tf.convert_to_tensor(hue, tf.float32)
    cosine, sine = saturation * tf.cos(angle), saturation * tf.sin(angle)
    zero, one = tf.zeros_like(cosine), tf.ones_like(cosine)
    rotation = tf.stack([[one, zero, zero], [zero, cosine, sine], [zero, -sine, cosine]])
    return tf.constant(_RGB_TO_YIQ) @ rotation @ tf.constant(_YIQ_TO_RGB)


def _positions(view: View, crop: tuple[int, int], axis: int) -> tf.Tensor:
    """Rows or columns of the scaled image that the crop shows."""
    return view.offset[axis] + tf.range(crop[axis])


def _nearest(positions: tf.Tensor, scaled: tf.Tensor, original: tf.Tensor) -> tf.Tensor:
    """Rows or columns of the original under the centres of scaled ones, in exact integers, clipped to the image."""
    return tf.clip_by_value((2 * positions + 1) * original // (2 * scaled), 0, original - 1)
