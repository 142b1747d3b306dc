"""Augmentation: numbers by hand, then alignment of image and mask, then equality of all the ways to call it."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data.augment import (
    View,
    augment,
    choose_view,
    color_matrix,
    crop_image,
    crop_mask,
    crop_offset,
    dominant_fraction,
    inside,
    jitter_color,
    scale_factor,
    scaled_size,
)
from data.config import AugmentConfig, ProgressiveResizingConfig
from data.features import IGNORE_LABEL

MEAN = tf.constant([90.0, 100.0, 110.0])
JITTER = {"brightness": 0.2, "contrast": 0.3, "saturation": 0.4, "hue": 0.1}


def view(size: tuple[int, int], offset: tuple[int, int]) -> View:
    return View(tf.constant(size), tf.constant(offset))


def labelled_image(height: int, width: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Blocks of black, gray and white in two sizes, and a mask of their class: round(pixel / 127.5)."""
    rows, columns = np.mgrid[:height, :width]
    mask = ((rows // 17 + columns // 23) % 3).astype(np.uint8)
    image = np.repeat(np.rint(mask * 127.5).astype(np.uint8)[:, :, None], 3, axis=2)
    return tf.constant(image), tf.constant(mask)


def noise(height: int, width: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize(
    ("uniform", "size", "offset"),
    [(0.0, 10, 0), (0.999, 10, 6), (0.5, 10, 3), (0.7, 4, 0), (0.0, 2, 0), (0.999, 2, -2)],
)
def test_a_crop_of_4_lies_inside_the_image_or_around_it(uniform: float, size: int, offset: int) -> None:
    offsets = crop_offset(tf.constant([uniform, uniform]), tf.constant([size, size]), (4, 4))
    assert offsets.numpy().tolist() == [offset, offset]


def test_stepped_scales_are_the_steps_and_both_ends() -> None:
    config = AugmentConfig(scale_min=0.5, scale_max=2.0, scale_step=0.25)
    factors = {float(scale_factor(tf.constant(u), config)) for u in np.linspace(0, 0.9999, 200, dtype=np.float32)}
    assert sorted(factors) == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]


def test_continuous_scales_fill_the_range() -> None:
    config = AugmentConfig(scale_min=0.5, scale_max=2.0)
    assert float(scale_factor(tf.constant(0.0), config)) == 0.5
    assert float(scale_factor(tf.constant(0.5), config)) == 1.25


def test_no_image_vanishes() -> None:
    assert scaled_size(tf.constant([3, 100]), tf.constant(0.1)).numpy().tolist() == [1, 10]


@pytest.mark.parametrize("size", [(25, 70), (80, 33), (40, 50)])
@pytest.mark.parametrize("offset", [(0, 0), (7, 11)])
def test_cropping_equals_resizing_the_whole_and_slicing(size: tuple[int, int], offset: tuple[int, int]) -> None:
    image, (_, mask) = noise(40, 50), labelled_image(40, 50)
    crop = (16, 20)
    window = (slice(offset[0], offset[0] + crop[0]), slice(offset[1], offset[1] + crop[1]))
    whole = tf.image.resize(image, size, antialias=True)[window]
    classes = tf.image.resize(mask[:, :, None], size, method="nearest")[:, :, 0][window]
    np.testing.assert_allclose(crop_image(image, view(size, offset), crop), whole, atol=0.02)
    np.testing.assert_array_equal(crop_mask(mask, view(size, offset), crop), classes)


def test_outside_the_image_the_mask_is_void() -> None:
    mask = tf.constant([[1, 2], [3, 4]], tf.uint8)
    around = view((2, 2), (-1, 0))
    void = IGNORE_LABEL
    assert crop_mask(mask, around, (4, 3)).numpy().tolist() == [
        [void, void, void],
        [1, 2, void],
        [3, 4, void],
        [void, void, void],
    ]
    assert int(tf.reduce_sum(tf.cast(inside(around, (4, 3)), tf.int32))) == 4


def is_aligned(image: np.ndarray, mask: np.ndarray) -> bool:
    """Whether the mask of a `labelled_image` fits it, wherever the 5x5 pixels around are of one class."""
    around = np.lib.stride_tricks.sliding_window_view(mask, (5, 5))  # (height - 4, width - 4, 5, 5)
    middle = mask[2:-2, 2:-2]
    flat = (around == middle[:, :, None, None]).all(axis=(2, 3)) & (middle != IGNORE_LABEL)
    assert flat.any()
    return np.array_equal(np.rint(image[2:-2, 2:-2, 0] / 127.5)[flat], middle[flat])


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), height=st.integers(60, 140), width=st.integers(60, 140))
def test_image_and_mask_stay_aligned(seed: int, height: int, width: int) -> None:
    config = AugmentConfig(crop=(96, 80), scale_min=0.6, scale_max=1.6)
    image, mask = augment(*labelled_image(height, width), tf.constant([seed, 1], tf.int64), config, MEAN)
    assert is_aligned(image.numpy(), mask.numpy())
    # The pattern shows a shift, so the line above could fail.
    assert not is_aligned(image.numpy(), np.roll(mask.numpy(), 4, axis=1))


def test_outside_the_image_the_color_is_the_mean_whatever_the_jitter() -> None:
    config = AugmentConfig(crop=64, scale_min=0.5, scale_max=0.5, **JITTER)
    image, mask = augment(*labelled_image(60, 80), tf.constant([3, 4]), config, MEAN)
    outside = mask.numpy() == IGNORE_LABEL
    assert outside.sum() == 64 * 64 - 30 * 40
    assert (image.numpy()[outside] == MEAN.numpy()).all()


def test_about_half_of_the_images_are_mirrored_and_nothing_else_changes() -> None:
    source = noise(50, 60), labelled_image(50, 60)[1]
    mirrored = 0
    for number in range(40):
        seed = tf.constant([7, number])
        image, mask = augment(*source, seed, AugmentConfig(crop=32), MEAN)
        plain, plain_mask = augment(*source, seed, AugmentConfig(crop=32, flip=False), MEAN)
        if np.array_equal(image, plain[:, ::-1]):
            mirrored += 1
            np.testing.assert_array_equal(mask, plain_mask[:, ::-1])
        else:
            np.testing.assert_array_equal(image, plain)
            np.testing.assert_array_equal(mask, plain_mask)
    assert 10 <= mirrored <= 30


def test_color_matrix_by_hand() -> None:
    np.testing.assert_allclose(color_matrix(1.0, 0.0), np.eye(3), atol=1e-5)
    gray = tf.constant([[10.0, 20.0, 30.0]]) @ color_matrix(0.0, 0.0)
    np.testing.assert_allclose(gray, np.full((1, 3), 0.299 * 10 + 0.587 * 20 + 0.114 * 30), atol=0.05)
    third = color_matrix(1.0, 1 / 3)
    np.testing.assert_allclose(third @ third @ third, np.eye(3), atol=1e-4)
    np.testing.assert_allclose(tf.constant([[50.0, 50.0, 50.0]]) @ third, [[50.0, 50.0, 50.0]], atol=0.1)


def test_jitter_by_hand() -> None:
    image = tf.constant([[[90.0, 100.0, 110.0], [100.0, 110.0, 120.0]]])
    config = AugmentConfig(brightness=0.1, contrast=0.5)
    unchanged = jitter_color(image, tf.constant([0.5, 0.5, 0.5, 0.5]), config, MEAN)
    np.testing.assert_allclose(unchanged, image, atol=1e-3)
    brighter = jitter_color(image, tf.constant([1.0, 0.5, 0.5, 0.5]), config, MEAN)
    np.testing.assert_allclose(brighter, image + 25.5, atol=1e-3)
    flatter = jitter_color(image, tf.constant([0.5, 0.0, 0.5, 0.5]), config, MEAN)
    np.testing.assert_allclose(flatter, [[[90, 100, 110], [95, 105, 115]]], atol=1e-3)


@settings(max_examples=20)
@given(draws=st.lists(st.floats(0, 0.99), min_size=4, max_size=4))
def test_jittered_pixels_stay_pixels(draws: list[float]) -> None:
    pixels = jitter_color(tf.cast(noise(8, 8), tf.float32), tf.constant(draws), AugmentConfig(**JITTER), MEAN).numpy()
    assert np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 255


def test_dominant_fraction_counts_void_like_a_class() -> None:
    assert float(dominant_fraction(tf.constant([[255, 255], [255, 1]], tf.uint8))) == 0.75


def test_a_monotonous_crop_is_drawn_again() -> None:
    # Class 1 fills but the rightmost sixth: most crops show nothing else.
    mask = np.ones((60, 180), np.uint8)
    mask[:, 150:] = 2
    fractions = {}
    for limit in (1.0, 0.75):
        config = AugmentConfig(crop=40, max_class_fraction=limit)
        views = [
            choose_view(tf.constant(mask), tf.constant(mask.shape), tf.constant([1, n]), config) for n in range(30)
        ]
        fractions[limit] = [float(dominant_fraction(crop_mask(mask, view, (40, 40)))) for view in views]
    assert np.mean(np.array(fractions[1.0]) > 0.75) > 0.5
    assert np.mean(np.array(fractions[0.75]) > 0.75) < 0.3


def test_an_image_of_one_class_is_cropped_all_the_same() -> None:
    image, mask = noise(50, 50), tf.zeros((50, 50), tf.uint8)
    config = AugmentConfig(crop=32, scale_min=1, scale_max=1, max_class_fraction=0.5)
    assert (augment(image, mask, tf.constant([0, 0]), config, MEAN)[1].numpy() == 0).all()


@pytest.mark.parametrize("jitter", [{}, JITTER])
def test_tf_data_gives_what_an_eager_call_gives(jitter: dict[str, float]) -> None:
    config = AugmentConfig(crop=(24, 32), max_class_fraction=0.6, **jitter)
    image, mask = noise(40, 50), labelled_image(40, 50)[1]
    numbers = tf.data.Dataset.range(6)
    dataset = numbers.map(
        lambda number: augment(image, mask, tf.stack([tf.constant(5, tf.int64), number]), config, MEAN)
    )
    assert [spec.shape.as_list() for spec in dataset.element_spec] == [[24, 32, 3], [24, 32]]
    for number, (pixels, classes) in enumerate(dataset):
        eager = augment(image, mask, tf.constant([5, number], tf.int64), config, MEAN)
        np.testing.assert_allclose(pixels, eager[0], atol=1e-3)
        np.testing.assert_array_equal(classes, eager[1])


def test_equal_seeds_give_equal_crops_and_others_do_not() -> None:
    image, mask = noise(60, 60), labelled_image(60, 60)[1]
    crops = [
        augment(image, mask, tf.constant(seed), AugmentConfig(crop=32), MEAN)[0] for seed in ([1, 2], [1, 2], [1, 3])
    ]
    np.testing.assert_array_equal(crops[0], crops[1])
    assert not np.array_equal(crops[0], crops[2])


def test_scales_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValidationError, match="scale_min 2.0 is larger than scale_max 1.0"):
        AugmentConfig(scale_min=2.0, scale_max=1.0)


def test_the_finish_takes_the_place_of_the_first_view() -> None:
    config = AugmentConfig(
        crop=64,
        scale_max=0.9,
        hue=0.1,
        progressive_resizing=ProgressiveResizingConfig(after=0.7, crop=(96, 128), scale_min=0.8, scale_max=1.2),
    )
    first = AugmentConfig(crop=64, scale_max=0.9, hue=0.1)
    last = AugmentConfig(crop=(96, 128), scale_min=0.8, scale_max=1.2, hue=0.1)

    assert list(config.stages(0, 10)) == [(0, 7, first), (7, 10, last)]
    assert list(config.stages(3, 10)) == [(3, 7, first), (7, 10, last)]
    assert list(config.stages(7, 10)) == [(7, 10, last)]
    assert list(config.stages(10, 10)) == []
    assert list(first.stages(3, 10)) == [(3, 10, first)]
