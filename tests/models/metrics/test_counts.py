"""What is counted in an image: by hand, by independent loops, and its laws."""

from dataclasses import dataclass

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from models.metrics import confusion as metrics
from models.metrics.boundaries import boundary_radius
from models.metrics.counts import (
    BINS,
    BOUNDARY,
    CALIBRATION,
    CONFIDENCE_UNIT,
    CONFUSION,
    TRIMAP,
    TRIMAP_RADIUS,
    Counts,
    count_pixels,
)
from models.metrics.scores import SliceScores
from tests.models.metrics.test_boundaries import reference_boundary

VOID = 255
NUM_CLASSES = 3
NAMES = ("a", "b", "c")

SIDE = 14
Image = tuple[np.ndarray, np.ndarray, np.ndarray]


@st.composite
def images(draw) -> Image:
    """Labels, predictions, confidences: patches, so that there are pixels away from boundaries too."""

    def patches(values: list[int]) -> np.ndarray:
        small = draw(arrays.arrays(np.uint8, (2, 2), elements=st.sampled_from(values)))
        return small.repeat(SIDE // 2, axis=0).repeat(SIDE // 2, axis=1)

    confidences = draw(arrays.arrays(np.float32, (SIDE, SIDE), elements=st.floats(0, 1, width=32)))
    return patches([0, 1, 2, VOID]), patches([0, 1, 2]), confidences


#: Shapes by name: whether (y, x), in [-1, 1] over the image, is inside.
SHAPES = {
    "disc": lambda y, x: y**2 + x**2 < 0.4,
    "rectangle": lambda y, x: (abs(y) < 0.5) & (abs(x) < 0.7),
    "at the edge of the image": lambda y, x: (y < 0.2) & (x > -0.3),
    "annulus": lambda y, x: abs(y**2 + x**2 - 0.5) < 0.3,
    "two": lambda y, x: (abs(y) < 0.6) & (abs(abs(x) - 0.4) < 0.25),
}


@dataclass(frozen=True)
class Scene:
    """A shape of class 1 on class 0 whose outline lies anywhere within a ring of ignored pixels."""

    shape: str
    height: int
    width: int
    inner: int
    outer: int
    """How many pixels of the ring lie inside the shape, and outside."""

    @property
    def distance(self) -> np.ndarray:
        """(height, width): rows or columns from the shape, 1 next to it; inside, 0 along its outline and falling."""
        inside = SHAPES[self.shape](*np.ogrid[-1 : 1 : self.height * 1j, -1 : 1 : self.width * 1j])
        within, beyond = (ndimage.distance_transform_cdt(part, "chessboard") for part in (inside, ~inside))
        return np.where(inside, 1 - within, beyond)

    @property
    def labels(self) -> np.ndarray:
        return np.select([self.distance <= -self.inner, self.distance > self.outer], [1, 0], VOID).astype(np.uint8)

    def prediction(self, edge: int) -> np.ndarray:
        """The shape grown by `edge` pixels, which is right wherever labelled if -inner <= edge <= outer."""
        return (self.distance <= edge).astype(np.uint8)


#: Sides from 20 to 300 pixels make bands from 1 to 8 pixels wide.
scenes = st.builds(
    Scene,
    shape=st.sampled_from(sorted(SHAPES)),
    height=st.integers(20, 300),
    width=st.integers(20, 300),
    inner=st.integers(0, 12),
    outer=st.integers(0, 12),
)


@tf.function(input_signature=[tf.TensorSpec((None, None), tf.uint8)] * 2)
def count_certain(labels: tf.Tensor, predictions: tf.Tensor) -> dict[str, tf.Tensor]:
    return count_pixels(labels, predictions, tf.ones(tf.shape(labels)), NUM_CLASSES)


def certain(labels: np.ndarray, predictions: np.ndarray) -> Counts:
    """Counts where every prediction is certain, made in a graph for images of any size, as in an exported model."""
    return Counts.of(count_certain(labels, predictions), NUM_CLASSES)


def count(image: Image) -> Counts:
    return Counts.of(count_pixels(*map(tf.constant, image), NUM_CLASSES), NUM_CLASSES)


def assert_equal(found: Counts, expected: Counts) -> None:
    for name, array in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), array, name)


def window_has_other(labels: np.ndarray, row: int, column: int, radius: int, *, edge: bool) -> bool:
    """Whether a nearby label, ignored or not, differs from the pixel's own; with `edge`, what is outside does."""
    for r in range(row - radius, row + radius + 1):
        for c in range(column - radius, column + radius + 1):
            if not (0 <= r < labels.shape[0] and 0 <= c < labels.shape[1]):
                if edge:
                    return True
            elif labels[r, c] != labels[row, column]:
                return True
    return False


def count_slowly(image: Image) -> Counts:
    """Pixel by pixel, class by class."""
    labels, predictions, confidences = image
    visible = np.where(labels == VOID, VOID, predictions)
    radius = int(boundary_radius(tf.constant(labels.shape)))
    found = Counts.zeros(NUM_CLASSES)
    for place in np.ndindex(labels.shape):
        label, prediction, confidence = labels[place], predictions[place], confidences[place]
        if label == VOID:
            continue
        found.confusion[label, prediction] += 1
        if window_has_other(labels, *place, TRIMAP_RADIUS, edge=False):
            found.trimap[label, prediction] += 1
        of_label = window_has_other(labels, *place, radius, edge=True)
        of_prediction = window_has_other(visible, *place, radius, edge=True)
        found.boundary[0, label] += of_label and of_prediction and label == prediction
        found.boundary[1, label] += of_label
        found.boundary[2, prediction] += of_prediction
        bin_number = min(int(confidence * np.float32(BINS)), BINS - 1)
        units = int(np.round(confidence / np.float32(CONFIDENCE_UNIT)))
        found.calibration[:, bin_number] += (1, label == prediction, units)
    return found


def test_a_two_by_two_image_by_hand():
    labels, predictions = np.uint8([[0, 0], [1, VOID]]), np.uint8([[0, 1], [1, 2]])
    confidences = np.float32([[0.95, 0.5], [0.75, 0.1]])
    found = count((labels, predictions, confidences))
    assert found.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    # So small an image is all boundary.
    assert found.boundary.tolist() == [[1, 1, 0], [2, 1, 0], [1, 2, 0]]
    assert found.trimap.tolist() == found.confusion.tolist()
    # Bins 14, 7 and 11 of 15; the pixel at 0.5 is wrong.
    pixels, right, confidence = found.calibration
    assert np.flatnonzero(pixels).tolist() == [7, 11, 14]
    assert right[[7, 11, 14]].tolist() == [0, 1, 1]
    assert confidence[[7, 11, 14]].tolist() == [500_000, 750_000, 950_000]
    scores = SliceScores.of(found, NAMES)
    assert scores.calibration_error == pytest.approx((0.5 + 0.25 + 0.05) / 3)
    assert scores.mean_boundary_iou == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_a_wrong_outline_costs_more_boundary_iou_than_iou():
    labels = np.zeros((200, 200), np.uint8)
    labels[50:150, 50:150] = 1
    predictions = np.zeros_like(labels)
    predictions[53:147, 53:147] = 1
    found = SliceScores.of(count((labels, predictions, np.ones(labels.shape, np.float32))), NAMES)
    # Of the square of side 100, a smaller one of side 94 is found.
    assert found.iou["b"] == pytest.approx(94**2 / 100**2)
    # Bands of 2 % of 283 pixels, that is 6: 100² - 88² and 94² - 82² pixels; both hold 94² - 88².
    label, prediction, both = 100**2 - 88**2, 94**2 - 82**2, 94**2 - 88**2
    assert found.boundary_iou["b"] == pytest.approx(both / (label + prediction - both))
    assert (round(found.boundary_iou["b"], 2), round(found.iou["b"], 2)) == (0.33, 0.88)
    # Of the trimap's class 1, 5 pixels inside the outline, the outer 3 are missed.
    assert found.trimap_mean_iou < found.mean_iou


def test_a_ring_of_ignored_pixels_wider_than_the_bands_by_hand():
    # From the edge of 13 x 13 pixels: two outlines of background, two ignored, a square of side 5. Bands are 1 wide.
    labels = np.full((13, 13), VOID, np.uint8)
    labels[[0, 1, -2, -1]] = labels[:, [0, 1, -2, -1]] = 0
    labels[4:9, 4:9] = 1
    # Of background, 12 * 4 pixels are at the edge of the image and 10 * 4 beside the ring; of the square, 4 * 4.
    predictions = np.zeros_like(labels)
    predictions[4:9, 4:9] = 1
    right = certain(labels, predictions)
    assert right.boundary.tolist() == [[88, 16, 0]] * 3
    assert SliceScores.of(right, NAMES).mean_boundary_iou == 1.0
    # A wrong pixel in the middle is all boundary, and so are the 8 around it.
    predictions[6, 6] = 0
    wrong = certain(labels, predictions)
    assert wrong.boundary.tolist() == [[88, 16, 0], [88, 16, 0], [89, 24, 0]]
    assert SliceScores.of(wrong, NAMES).mean_boundary_iou == pytest.approx((88 / 89 + 16 / 24) / 2)


def test_ignored_pixels_and_the_edge_of_the_image_bound_segments_alike_by_hand():
    # Three columns of class 1, one ignored, three of class 2: of 3 x 7 pixels, all but 1 x 5 are boundary.
    labels = np.uint8([[1, 1, 1, VOID, 2, 2, 2]] * 7)
    for anything in range(NUM_CLASSES):
        found = certain(labels, np.where(labels == VOID, anything, labels).astype(np.uint8))
        assert found.boundary.tolist() == [[0, 16, 16]] * 3


@settings(max_examples=60)
@given(scenes, st.data())
def test_a_right_prediction_scores_one_with_its_edge_anywhere_in_a_ring_of_ignored_pixels(
    scene: Scene, data: st.DataObject
):
    found = certain(scene.labels, scene.prediction(data.draw(st.integers(-scene.inner, scene.outer), label="edge")))
    scores = SliceScores.of(found, NAMES)
    assert {name for name, iou in scores.boundary_iou.items() if iou == 1.0} == {
        NAMES[label] for label in np.unique(scene.labels) if label != VOID
    }
    assert_equal(found, certain(scene.labels, scene.prediction(-scene.inner)))


@settings(max_examples=60)
@given(st.data())
def test_a_wrong_speck_costs_its_own_band_whatever_the_ring(data: st.DataObject):
    image = data.draw(st.integers(60, 300), label="side of the image")
    radius = int(boundary_radius(tf.constant((image, image))))
    speck = data.draw(st.integers(1, 5), label="side of the speck")
    margin = data.draw(st.integers(2 * radius, 2 * radius + 6), label="pixels around the speck")
    side = speck + 2 * margin
    ring = data.draw(st.integers(0, 12), label="width of the ring")
    labels = np.zeros((image, image), np.uint8)
    predictions = np.zeros_like(labels)
    for array, value, distance, length in (
        (labels, VOID, 1, side + 2 * ring),
        (labels, 1, 1 + ring, side),
        (predictions, 1, 1 + ring, side),
        (predictions, 2, 1 + ring + margin, speck),
    ):
        array[distance : distance + length, distance : distance + length] = value
    found = SliceScores.of(certain(labels, predictions), NAMES)
    band = side**2 - (side - 2 * radius) ** 2
    assert found.boundary_iou["b"] == pytest.approx(band / (band + (speck + 2 * radius) ** 2 - speck**2))
    assert found.boundary_iou["a"] == 1.0
    assert found.boundary_iou["c"] == 0.0


@settings(max_examples=60)
@given(scenes, st.integers(-12, 12), st.data())
def test_boundaries_are_those_of_the_reference_implementation_for_what_is_not_ignored(
    scene: Scene, edge: int, data: st.DataObject
):
    labels, predictions = scene.labels, scene.prediction(edge)
    rows, columns = (
        slice(start, start + data.draw(st.integers(0, 9)))
        for start in (data.draw(st.integers(0, length - 1)) for length in labels.shape)
    )
    predictions[rows, columns] = 2
    radius = int(boundary_radius(tf.constant(labels.shape)))
    found = count((labels, predictions, np.ones(labels.shape, np.float32)))
    assert_equal(certain(labels, predictions), found)
    for label in range(NUM_CLASSES):
        of_label = reference_boundary(labels == label, radius)
        of_prediction = reference_boundary((predictions == label) & (labels != VOID), radius)
        expected = (of_label & of_prediction).sum(), of_label.sum(), of_prediction.sum()
        assert found.boundary[:, label].tolist() == list(expected)


def test_void_bounds_the_trimap_as_in_the_papers():
    labels = np.zeros((1, 40), np.uint8)
    labels[0, 20] = VOID
    found = count((labels, labels * 0, np.ones(labels.shape, np.float32)))
    assert found.trimap[0, 0] == 2 * TRIMAP_RADIUS
    assert found.confusion[0, 0] == 39


@settings(max_examples=25)
@given(images())
def test_counts_are_those_of_independent_loops(image: Image):
    assert_equal(count(image), count_slowly(image))


@settings(max_examples=25)
@given(images(), st.integers(0, NUM_CLASSES - 1))
def test_what_is_predicted_in_void_counts_for_nothing(image: Image, anything: int):
    labels, predictions, confidences = image
    other = np.where(labels == VOID, anything, predictions).astype(np.uint8)
    assert_equal(count((labels, other, np.where(labels == VOID, 0.5, confidences).astype(np.float32))), count(image))


@settings(max_examples=25)
@given(images())
def test_a_right_prediction_has_every_score_of_one(image: Image):
    labels, predictions, confidences = image
    right = np.where(labels == VOID, predictions, labels)
    scores = SliceScores.of(count((labels, right, np.ones_like(confidences))), NAMES)
    if (labels == VOID).all():
        assert np.isnan(scores.mean_boundary_iou)
        return
    assert scores.mean_iou == scores.mean_boundary_iou == scores.mean_accuracy == 1.0
    assert scores.calibration_error == 0.0


@settings(max_examples=25)
@given(images(), st.permutations(range(NUM_CLASSES)))
def test_the_order_of_the_labels_does_not_matter(image: Image, order: list[int]):
    renaming = np.arange(256, dtype=np.uint8)
    renaming[:NUM_CLASSES] = order
    labels, predictions, confidences = image
    before = SliceScores.of(count(image), NAMES)
    after = SliceScores.of(
        count((renaming[labels], renaming[predictions], confidences)),
        [NAMES[order.index(label)] for label in range(NUM_CLASSES)],
    )
    assert after.boundary_iou == pytest.approx(before.boundary_iou, nan_ok=True)
    assert after.precision == pytest.approx(before.precision, nan_ok=True)
    for score in ("mean_iou", "mean_boundary_iou", "trimap_mean_iou", "calibration_error", "mean_accuracy"):
        assert getattr(after, score) == pytest.approx(getattr(before, score), nan_ok=True)


@settings(max_examples=25)
@given(st.lists(images(), min_size=1, max_size=4), st.randoms(use_true_random=False), st.integers(0, 4))
def test_neither_the_order_of_images_nor_their_shards_matter(several: list[Image], random, cut: int):
    counted = [count(image) for image in several]
    whole = sum(counted, Counts.zeros(NUM_CLASSES))
    random.shuffle(counted)
    shards = (sum(shard, Counts.zeros(NUM_CLASSES)) for shard in (counted[:cut], counted[cut:]))
    assert_equal(sum(shards, Counts.zeros(NUM_CLASSES)), whole)


def test_counts_that_a_model_does_not_give_leave_their_scores_open():
    found = SliceScores.of(Counts.of({CONFUSION: np.eye(NUM_CLASSES)}, NUM_CLASSES), NAMES)
    assert found.mean_iou == 1.0
    assert np.isnan([found.mean_boundary_iou, found.trimap_mean_iou, found.calibration_error]).all()


def test_the_outputs_are_whole_numbers_under_the_names_of_the_counts():
    outputs = count_pixels(tf.zeros((2, 2), tf.uint8), tf.zeros((2, 2), tf.uint8), tf.ones((2, 2)), NUM_CLASSES)
    assert set(outputs) == {CONFUSION, BOUNDARY, TRIMAP, CALIBRATION} == set(vars(Counts.zeros(NUM_CLASSES)))
    assert {output.dtype for output in outputs.values()} == {tf.int64}


def test_scores_of_nothing_are_nan_without_a_warning():
    scores = SliceScores.of(Counts.zeros(NUM_CLASSES), NAMES)
    assert np.isnan(scores.calibration_error)
    assert np.isnan(list(scores.recall.values())).all()
    assert np.isnan(metrics.mean_boundary_iou(np.zeros((3, 2))))
