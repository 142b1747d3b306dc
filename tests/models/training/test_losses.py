"""Losses by hand on 2x2 masks, against slow references in NumPy, and their laws; the objective that adds them up."""

from itertools import pairwise

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from data.features import IGNORE_LABEL
from models.config import LossConfig
from models.training.losses import STRIDE, Objective, dice_loss, hardest, lovasz_softmax, weighted_cross_entropy

# One image, 2x2 pixels, 2 classes. Probability of class 0: 1/4, 1/2, 3/4, 1/2.
ODDS = np.float32([[[1, 3], [1, 1]], [[3, 1], [1, 1]]])
LOGITS = np.log(ODDS)[None]  # (1, 2, 2, 2)
ALL_VOID = np.full((1, 2, 2), 255, np.uint8)
REGIONS = [dice_loss, lovasz_softmax]

SHAPE = (2, 3, 4)
NUM_CLASSES = 3


def masks(*ids: int) -> np.ndarray:
    return np.uint8(ids).reshape(1, 2, 2)


def cross_entropy(labels, logits, class_weights=None, **options):
    total, weight = weighted_cross_entropy(labels, logits, class_weights, **options)
    return total / weight


@st.composite
def labels_and_logits(draw):
    labels = draw(arrays.arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 1, 2, 255])))
    return labels, draw(arrays.arrays(np.float32, (*SHAPE, NUM_CLASSES), elements=st.floats(-5, 5, width=16)))


def softmax(logits):
    powers = np.exp(np.float64(logits))
    return powers / powers.sum(axis=-1, keepdims=True)


def all_losses(labels, logits) -> list[float]:
    """Each loss of this file."""
    parts = [*weighted_cross_entropy(labels, logits), *weighted_cross_entropy(labels, logits, fraction=0.5)]
    return [float(value) for value in [*parts, dice_loss(labels, logits), lovasz_softmax(labels, logits)]]


def test_every_pixel_counts_alike():
    expected = np.log(4) + np.log(2) + np.log(4 / 3) + np.log(2)
    total, weight = weighted_cross_entropy(masks(0, 1, 0, 0), LOGITS)
    assert (float(total), float(weight)) == pytest.approx((expected, 4))


def test_void_pixels_count_neither_in_the_sum_nor_in_the_weight():
    total, weight = weighted_cross_entropy(masks(0, 255, 255, 1), LOGITS)
    assert (float(total), float(weight)) == pytest.approx((np.log(4) + np.log(2), 2))


def test_class_weights_weigh_the_mean():
    total, weight = weighted_cross_entropy(masks(0, 1, 0, 255), LOGITS, [1.0, 3.0])
    assert (float(total), float(weight)) == pytest.approx((1 * np.log(4) + 3 * np.log(2) + 1 * np.log(4 / 3), 5))


@pytest.mark.parametrize("fraction", [None, 0.5])
@pytest.mark.parametrize(
    ("labels", "weights"), [(ALL_VOID, None), (ALL_VOID, [1.0, 2.0]), (masks(0, 0, 0, 255), [0.0, 1.0])]
)
def test_without_a_pixel_that_counts_sum_weight_and_gradient_are_zero(labels, weights, fraction):
    logits = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total, weight = weighted_cross_entropy(labels, logits, weights, fraction=fraction)
    assert (float(total), float(weight)) == (0.0, 0.0)
    np.testing.assert_array_equal(tape.gradient(total, logits), np.zeros(LOGITS.shape))


@pytest.mark.parametrize("loss", REGIONS)
def test_a_region_loss_of_nothing_but_void_is_zero_and_so_is_its_gradient(loss):
    logits = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(ALL_VOID, logits)
    assert float(value) == 0.0
    np.testing.assert_array_equal(tape.gradient(value, logits), np.zeros(LOGITS.shape))


def test_label_smoothing_spreads_the_target_over_all_classes():
    target = np.float64([0.9, 0.1])  # 0.8 on the label, 0.2 shared by both classes
    expected = -(target @ np.log([0.25, 0.75]))
    assert float(cross_entropy(masks(0, 255, 255, 255), LOGITS, label_smoothing=0.2)) == pytest.approx(expected)


def test_huge_logits_give_finite_losses():
    logits = np.float32([[[[-1e4, 1e4]] * 2] * 2])
    assert np.isfinite(all_losses(masks(0, 0, 0, 0), logits)).all()


def test_a_loss_that_is_not_a_number_shows_even_where_only_the_hardest_count():
    logits = LOGITS.copy()
    logits[0, 0, 0] = np.nan
    assert np.isnan(all_losses(masks(0, 1, 0, 1), logits)[::2]).all()


@pytest.mark.parametrize(
    ("fraction", "losses"),
    [
        (1.0, [np.log(4), np.log(2), np.log(4 / 3)]),
        (0.67, [np.log(4), np.log(2)]),
        (0.5, [np.log(4)]),
        (0.01, [np.log(4)]),
    ],
)
def test_the_fraction_is_of_the_pixels_with_a_label_and_at_least_one(fraction, losses):
    total, weight = weighted_cross_entropy(masks(0, 1, 0, 255), LOGITS, fraction=fraction)
    assert (float(total), float(weight)) == pytest.approx((sum(losses), len(losses)))


def test_the_hardest_pixels_are_those_with_the_largest_weighted_loss():
    # Weighted: log 4, 3 log 2, log 4/3. The second is the largest, and its weight is what the sum is divided by.
    total, weight = weighted_cross_entropy(masks(0, 1, 0, 255), LOGITS, [1.0, 3.0], fraction=0.34)
    assert (float(total), float(weight)) == pytest.approx((3 * np.log(2), 3))


def test_pixels_that_tie_with_the_last_chosen_one_are_chosen_too():
    total, weight = weighted_cross_entropy(masks(0, 1, 0, 1), LOGITS, fraction=0.5)
    assert (float(total), float(weight)) == pytest.approx((np.log(4) + 2 * np.log(2), 3))


def test_only_the_hardest_pixels_have_a_gradient():
    logits = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = cross_entropy(masks(0, 1, 0, 255), logits, fraction=0.34)
    expected = np.zeros(LOGITS.shape)
    expected[0, 0, 0] = [-0.75, 0.75]  # softmax - onehot of the first pixel
    np.testing.assert_allclose(tape.gradient(loss, logits), expected, atol=1e-6)


@given(
    arrays.arrays(np.float32, 12, elements=st.floats(0, 100, width=32, allow_subnormal=False), unique=True),
    arrays.arrays(np.bool_, 12),
    st.floats(0.0625, 1, width=32),
)
@settings(max_examples=40)
def test_the_hardest_are_the_first_of_the_sorted(losses, counted, fraction):
    number = max(int(np.float32(fraction) * np.float32(counted.sum())), 1)
    expected = np.isin(losses, np.sort(losses[counted])[::-1][:number]) & counted
    np.testing.assert_array_equal(hardest(losses, counted, fraction), expected)


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_perfect_pixels_are_chosen_where_all_are(zero):
    np.testing.assert_array_equal(hardest(np.float32([1, zero, zero]), np.array([True, True, False]), 1.0), [1, 1, 0])


def test_dice_by_hand():
    # Class 0: overlap 1/4 + 3/4, probability 1/4 + 1/2 + 3/4, label 2. Class 1: 1/2; 3/4 + 1/2 + 1/4; 1.
    expected = 1 - (2 * 1 / (1.5 + 2) + 2 * 0.5 / (1.5 + 1)) / 2
    assert float(dice_loss(masks(0, 1, 0, 255), LOGITS)) == pytest.approx(expected)


def test_dice_and_lovasz_are_the_mean_over_the_classes_that_occur():
    # Class 1 does not occur. Dice of class 0: 2 (1/4 + 1/2) / (3/4 + 2). All pixels are of class 0, so each error
    # costs a half: (3/4 + 1/2) / 2.
    labels = masks(0, 0, 255, 255)
    assert float(dice_loss(labels, LOGITS)) == pytest.approx(1 - 2 * 0.75 / 2.75)
    assert float(lovasz_softmax(labels, LOGITS)) == pytest.approx(0.625)


def test_lovasz_by_hand():
    # Errors of the first three pixels: 3/4, 1/2, 1/4, the same for both classes.
    # Class 0 has pixels 0 and 2. Wrong pixels {0}: IoU 1/2; {0, 1}: 1/3; all: 0. Slopes 1/2, 1/6, 1/3.
    first = 3 / 4 * 1 / 2 + 1 / 2 * 1 / 6 + 1 / 4 * 1 / 3
    # Class 1 has pixel 1. {0}: 1/2; {0, 1}: 0. Slopes 1/2, 1/2, 0.
    second = 3 / 4 * 1 / 2 + 1 / 2 * 1 / 2
    assert float(lovasz_softmax(masks(0, 1, 0, 255), LOGITS)) == pytest.approx((first + second) / 2)


def lovasz_reference(labels, logits) -> float:
    """The Lovasz extension as an integral: 1 - IoU of the pixels with an error above t, over t from 0 to 1."""
    valid = labels != IGNORE_LABEL
    probabilities, labels = softmax(logits)[valid], labels[valid]
    losses = []
    for c in np.unique(labels):
        truth = labels == c
        errors = np.abs(truth - probabilities[:, c])
        steps = np.unique([0.0, *errors])
        total = 0.0
        for lower, upper in pairwise(steps):
            wrong = errors > lower
            total += (upper - lower) * (1 - (truth & ~wrong).sum() / (truth | wrong).sum())
        losses.append(total)
    return float(np.mean(losses)) if losses else 0.0


@given(labels_and_logits())
@settings(max_examples=40)
def test_lovasz_is_the_integral_of_the_jaccard_loss(pair):
    assert float(lovasz_softmax(*pair)) == pytest.approx(lovasz_reference(*pair), abs=1e-5)


@given(labels_and_logits())
@settings(max_examples=40)
def test_dice_is_one_minus_the_overlap_over_the_mean_size(pair):
    labels, logits = pair
    valid = labels != IGNORE_LABEL
    probabilities, labels = softmax(logits)[valid], labels[valid]
    present = np.unique(labels)
    overlap = [probabilities[labels == c, c].sum() for c in present]
    sizes = [probabilities[:, c].sum() + (labels == c).sum() for c in present]
    expected = 1 - np.mean(2 * np.array(overlap) / sizes) if present.size else 0.0
    assert float(dice_loss(*pair)) == pytest.approx(expected, abs=1e-5)


def gradient_of_all(labels, logits) -> np.ndarray:
    """Of the sum of all losses of this file, (batch, height, width, classes)."""
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        entropy, _ = weighted_cross_entropy(labels, logits, fraction=0.5)
        total = entropy + dice_loss(labels, logits) + lovasz_softmax(labels, logits)
    return tape.gradient(total, logits).numpy()


@given(labels_and_logits())
@settings(max_examples=25)
def test_logits_of_void_pixels_change_neither_losses_nor_gradients(pair):
    labels, logits = pair
    void = labels == IGNORE_LABEL
    other = np.where(void[..., None], np.float32([7, -3, 1]), logits)
    assert all_losses(labels, other) == pytest.approx(all_losses(labels, logits), abs=1e-5)
    gradient = gradient_of_all(labels, other)
    np.testing.assert_allclose(gradient, gradient_of_all(labels, logits), atol=1e-5)
    assert (gradient[void] == 0).all()


@given(labels_and_logits(), st.permutations(range(np.prod(SHAPE))))
@settings(max_examples=30)
def test_the_order_of_the_pixels_does_not_matter(pair, order):
    labels, logits = pair
    moved = labels.reshape(-1)[order].reshape(SHAPE), logits.reshape(-1, NUM_CLASSES)[order].reshape(logits.shape)
    assert all_losses(*moved) == pytest.approx(all_losses(labels, logits), rel=1e-4, abs=1e-5)


@given(labels_and_logits())
@settings(max_examples=30)
def test_a_perfect_prediction_has_no_loss_and_every_pixel_weighs(pair):
    labels, _ = pair
    logits = 100 * np.float32(labels[..., None] == np.arange(NUM_CLASSES))
    entropy, weight, hard, hard_weight, dice, lovasz = all_losses(labels, logits)
    assert (entropy, hard, dice, lovasz) == pytest.approx((0, 0, 0, 0), abs=1e-6)
    assert weight == hard_weight == (labels != IGNORE_LABEL).sum()


@pytest.mark.parametrize("loss", REGIONS)
def test_descending_a_region_loss_alone_learns_the_labels(loss):
    labels = masks(0, 1, 1, 255)
    logits = tf.Variable(tf.zeros((1, 2, 2, 2)))
    for _ in range(50):
        with tf.GradientTape() as tape:
            value = loss(labels, logits)
        logits.assign_sub(10.0 * tape.gradient(value, logits))
    np.testing.assert_array_equal(np.argmax(logits, axis=-1)[0], [[0, 1], [1, 0]])
    assert float(value) < 0.05
    np.testing.assert_array_equal(logits[0, 1, 1], [0.0, 0.0])


WEIGHTS = [1.0, 2.0, 0.5]
EVERYTHING = LossConfig(label_smoothing=0.1, ohem_fraction=0.25, ohem_ramp_steps=10, dice=0.5, lovasz=2.0)


def batch(seed: int = 0) -> tuple[tf.Tensor, tf.Tensor]:
    """Logits and masks of 2 images of 8x8 pixels, 3 classes and some void."""
    random = np.random.default_rng(seed)
    masks = random.choice(np.uint8([0, 1, 2, IGNORE_LABEL]), (2, 8, 8))
    return tf.constant(random.normal(size=(2, 8, 8, 3)), tf.float32), tf.constant(masks)


def with_gradient(objective: Objective, logits: tf.Tensor, masks: tf.Tensor, step: tf.Tensor):
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total, weight, extra = objective(logits, masks, step)
        loss = tf.math.divide_no_nan(total, weight) + extra
    return loss, tape.gradient(loss, logits)


def test_the_default_is_the_weighted_cross_entropy_of_all_pixels() -> None:
    logits, masks = batch()
    total, weight = weighted_cross_entropy(masks, logits, WEIGHTS)
    parts = [float(part) for part in Objective(LossConfig(), WEIGHTS)(logits, masks, 0)]
    assert parts == [float(total), float(weight), 0.0]


def test_smoothing_is_passed_on() -> None:
    logits, masks = batch()
    total, _ = weighted_cross_entropy(masks, logits, WEIGHTS, label_smoothing=0.3)
    assert float(Objective(LossConfig(label_smoothing=0.3), WEIGHTS)(logits, masks, 0)[0]) == float(total)


@pytest.mark.parametrize(
    ("ramp", "step", "fraction"), [(0, 0, 0.2), (8, 0, 1.0), (8, 2, 0.8), (8, 8, 0.2), (8, 99, 0.2)]
)
def test_the_fraction_of_hard_pixels_falls_linearly_over_the_ramp(ramp: int, step: int, fraction: float) -> None:
    logits, masks = batch()
    objective = Objective(LossConfig(ohem_fraction=0.2, ohem_ramp_steps=ramp), [1.0, 1.0, 1.0])
    total, weight, _ = objective(logits, masks, tf.constant(step, tf.int64))
    expected, _ = weighted_cross_entropy(masks, logits, fraction=fraction)
    assert int(weight) == int(np.float32(fraction) * np.sum(masks != IGNORE_LABEL))
    assert float(total) == pytest.approx(float(expected))


def test_dice_and_lovasz_are_added_with_their_weights_and_see_a_part_of_the_pixels() -> None:
    logits, masks = batch()
    *_, extra = Objective(LossConfig(dice=0.5, lovasz=2.0), WEIGHTS)(logits, masks, 0)
    seen = masks[:, ::STRIDE, ::STRIDE], logits[:, ::STRIDE, ::STRIDE]
    assert float(extra) == pytest.approx(0.5 * float(dice_loss(*seen)) + 2.0 * float(lovasz_softmax(*seen)))


def test_sums_and_weights_of_parts_add_up_to_those_of_the_whole_batch() -> None:
    logits, masks = batch()
    objective = Objective(LossConfig(label_smoothing=0.1), WEIGHTS)
    whole = objective(logits, masks, 0)
    parts = [objective(logits[i : i + 1], masks[i : i + 1], 0) for i in range(2)]
    for index in range(2):
        assert float(parts[0][index] + parts[1][index]) == pytest.approx(float(whole[index]))


@pytest.mark.parametrize("config", [LossConfig(), EVERYTHING])
def test_a_batch_of_void_has_no_loss_and_no_gradient(config: LossConfig) -> None:
    logits, masks = batch()
    loss, gradient = with_gradient(
        Objective(config, WEIGHTS), logits, tf.fill(masks.shape, IGNORE_LABEL), tf.constant(5)
    )
    assert float(loss) == 0.0
    np.testing.assert_array_equal(gradient, np.zeros(logits.shape))


def test_images_smaller_than_the_stride_have_all_losses() -> None:
    logits, masks = (tensor[:, :1, :3] for tensor in batch())
    assert all(np.isfinite(part) for part in Objective(EVERYTHING, WEIGHTS)(logits, masks, 0))


def test_xla_compiles_all_of_it_once_and_the_numbers_stay() -> None:
    objective = Objective(EVERYTHING, WEIGHTS)
    traces = []

    @tf.function(jit_compile=True, autograph=False)
    def compiled(logits: tf.Tensor, masks: tf.Tensor, step: tf.Tensor):
        traces.append(logits.shape)
        return with_gradient(objective, logits, masks, step)

    for step in (0, 5, 20):
        logits, masks = batch(step)
        arguments = logits, masks, tf.constant(step)
        for ours, eager in zip(compiled(*arguments), with_gradient(objective, *arguments), strict=True):
            np.testing.assert_allclose(ours, eager, rtol=1e-4, atol=1e-6)
    assert len(traces) == 1
