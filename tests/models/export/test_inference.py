"""Windows cover the image, views are averaged as probabilities, and evaluation sees what is predicted."""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from data.config import PreprocessConfig
from data.features import IMAGE, MASK
from data.labels import ClassLabel, LabelMap
from data.preprocess import shrink_image
from models.config import InferenceConfig, ModelConfig
from models.export import saved_model as export
from models.export.inference import InferenceProtocol, add_overlapping, window_starts
from models.export.saved_model import InferenceModule, export_saved_model, load_description
from models.metrics.confusion import confusion_matrix
from models.metrics.counts import CONFUSION
from models.network.deeplab import DeepLabV3Plus, build_model
from models.network.kernels import resize_bilinear

Network = Callable[[tf.Tensor], tf.Tensor]


def two_classes(odds: tf.Tensor) -> tf.Tensor:
    """Logits of a class with these odds, (batch, height, width), against another."""
    return tf.stack([tf.math.log(tf.cast(odds, tf.float32)), tf.zeros(tf.shape(odds))], axis=-1)


def of_pixels(images: tf.Tensor) -> tf.Tensor:
    """Odds of the first class: the red value of each pixel."""
    return two_classes(images[..., 0])


def of_columns(images: tf.Tensor) -> tf.Tensor:
    """Odds of the first class: red times 1, 3, 5, ... from left to right."""
    return two_classes(images[..., 0] * (1.0 + 2.0 * tf.range(tf.cast(tf.shape(images)[2], tf.float32))))


def of_mean(images: tf.Tensor) -> tf.Tensor:
    """Odds of the first class: the mean red value of all that is seen; one cell an image."""
    return two_classes(tf.reduce_mean(images[..., 0], axis=(1, 2))[:, None, None])


def of_size(images: tf.Tensor) -> tf.Tensor:
    """Odds of the first class: height times 100 plus width; one cell an image."""
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    return two_classes(tf.fill((tf.shape(images)[0], 1, 1), height * 100 + width))


def constant(images: tf.Tensor) -> tf.Tensor:
    """The same odds everywhere, on a grid of quarters."""
    _, height, width, _ = tf.unstack(tf.shape(images))
    return two_classes(tf.fill((tf.shape(images)[0], -(-height // 4), -(-width // 4)), 3.0))


def red(rows: list[list[int]]) -> np.ndarray:
    """One image, (1, height, width, 3) uint8, of these red values."""
    return np.stack([np.array(rows, np.uint8)] * 3, axis=-1)[None]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).integers(1, 256, (*shape, 3), np.uint8)


def probabilities(
    network: Network,
    images: np.ndarray,
    size: tuple[int, int] | None = None,
    align_corners: bool = False,
    **config: object,
) -> np.ndarray:
    """Of the first of two classes, (batch, height, width)."""
    protocol = InferenceProtocol(network, 2, InferenceConfig(**config), align_corners)
    return tf.nn.softmax(protocol.logits(tf.constant(images), tf.constant(size or images.shape[1:3])))[..., 0].numpy()


@pytest.mark.parametrize(
    ("side", "window", "overlap", "starts"),
    [
        (10, 4, 0.0, [0, 4, 6]),
        (10, 4, 0.25, [0, 3, 6]),
        (11, 4, 0.25, [0, 3, 6, 7]),
        (6, 4, 0.5, [0, 2]),
        (4, 4, 0.5, [0]),
        (3, 4, 0.5, [0]),
        (6, 4, 0.99, [0, 1, 2]),
    ],
)
def test_windows_begin_where_one_works_it_out_by_hand(side, window, overlap, starts):
    assert window_starts(tf.constant(side), window, overlap).numpy().tolist() == starts


@given(side=st.integers(1, 300), window=st.integers(1, 80), overlap=st.floats(0, 0.95))
@settings(max_examples=60)
def test_windows_cover_every_pixel_overlap_enough_and_end_with_the_image(side, window, overlap):
    starts = window_starts(tf.constant(side), window, overlap).numpy()
    covered = np.zeros(side, int)
    for start in starts:
        covered[start : start + window] += 1
    assert covered.min() >= 1
    assert starts[0] == 0
    assert starts[-1] == max(side - window, 0)
    assert np.all(np.diff(starts) >= 1)
    # A step of one pixel is the least.
    assert np.all((window - np.diff(starts) >= overlap * window - 1e-6) | (np.diff(starts) == 1))


def test_overlapping_parts_are_added():
    parts = tf.constant([[[1.0], [2.0], [3.0]], [[10.0], [20.0], [30.0]]])
    total = add_overlapping(parts, tf.constant([0, 2]), tf.constant(6))
    assert total[:, 0].numpy().tolist() == [1, 2, 13, 20, 30, 0]


def test_by_default_logits_go_from_the_networks_grid_straight_to_the_size_asked_for():
    images = noise(2, 9, 14)
    coarse = lambda x: x[:, ::4, ::4]  # noqa: E731
    protocol = InferenceProtocol(coarse, 3, InferenceConfig())
    expected = resize_bilinear(coarse(tf.cast(images, tf.float32)), (20, 31))
    np.testing.assert_array_equal(protocol.logits(images, tf.constant((20, 31))), expected)


@pytest.mark.parametrize("window", [14, 100])
def test_an_image_that_fits_in_the_window_is_seen_whole(window):
    images = noise(1, 9, 14)
    whole = probabilities(of_columns, images)
    np.testing.assert_array_equal(probabilities(of_columns, images, window=window), whole)
    assert np.abs(probabilities(of_columns, images, window=13) - whole).max() > 0.01


def test_the_mean_probability_counts_where_windows_overlap():
    # Windows over columns 0-3 and 2-5 with means 1 and 3, so probabilities 1/2 and 3/4.
    found = probabilities(of_mean, red([[1, 1, 1, 1, 5, 5]]), window=4, overlap=0.5)
    np.testing.assert_allclose(found, [[[0.5, 0.5, 0.625, 0.625, 0.75, 0.75]]], atol=1e-6)


def test_windows_slide_down_as_well_as_sideways():
    # Four windows of 2x2 with means 1, 3, 7 and 9, each pair sharing the middle row or column of 3x3.
    pixels = np.array([[1, 1, 3], [1, 1, 7], [7, 19, 3]])
    means = [pixels[row : row + 2, column : column + 2].mean() for row in (0, 1) for column in (0, 1)]
    one, two, three, four = (mean / (1 + mean) for mean in means)
    expected = [
        [one, (one + two) / 2, two],
        [(one + three) / 2, (one + two + three + four) / 4, (two + four) / 2],
        [three, (three + four) / 2, four],
    ]
    found = probabilities(of_mean, red(pixels.tolist()), window=2, overlap=0.5)
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    window=st.integers(1, 40),
    overlap=st.floats(0, 0.6),
    flip=st.booleans(),
)
@settings(max_examples=12)
def test_windows_and_mirroring_change_nothing_for_a_network_that_looks_at_single_pixels(
    height, width, window, overlap, flip
):
    images = noise(2, height, width)
    found = probabilities(of_pixels, images, window=window, overlap=overlap, flip=flip)
    np.testing.assert_allclose(found, probabilities(of_pixels, images), atol=1e-5)


@given(
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    window=st.integers(0, 20),
    scales=st.lists(st.sampled_from([0.1, 0.5, 0.75, 1.0, 1.3]), min_size=1, max_size=3),
    flip=st.booleans(),
    align_corners=st.booleans(),
)
@settings(max_examples=12)
def test_a_constant_network_gives_a_constant_answer(size, window, scales, flip, align_corners):
    found = probabilities(constant, noise(1, *size), (17, 23), align_corners, window=window, scales=scales, flip=flip)
    np.testing.assert_allclose(found, np.full((1, 17, 23), 0.75), atol=1e-5)


def test_the_mirrored_answer_is_turned_back_and_averaged():
    # Seen as it is: odds 1 x 1 and 3 x 3. Mirrored: 3 x 1 and 1 x 3, turned back the same.
    found = probabilities(of_columns, red([[1, 3]]), flip=True)
    np.testing.assert_allclose(found, [[[(0.5 + 0.75) / 2, (0.9 + 0.75) / 2]]], atol=1e-6)


@pytest.mark.parametrize(
    ("align_corners", "scale", "seen"),
    [(False, 0.5, (4, 6)), (True, 0.5, (5, 7)), (False, 2.0, (16, 24)), (False, 0.01, (1, 1))],
)
def test_each_scale_gives_a_view_of_its_size(align_corners, scale, seen):
    height, width = (9, 13) if align_corners else (8, 12)
    found = probabilities(of_size, noise(1, height, width), align_corners=align_corners, scales=(scale,))
    odds = seen[0] * 100 + seen[1]
    np.testing.assert_allclose(found, np.full((1, height, width), odds / (1 + odds)), rtol=1e-6)


def test_scales_are_averaged_as_probabilities():
    # At half the size one pixel remains, the mean of all: odds 3.
    found = probabilities(of_pixels, red([[1, 1], [1, 9]]), scales=(1.0, 0.5))
    np.testing.assert_allclose(found, [[[0.625, 0.625], [0.625, (0.9 + 0.75) / 2]]], atol=1e-6)


def test_windows_slide_over_each_scaled_view():
    # Doubled, the image is 8 wide, and windows of 4 see one half each; at scale 1 the window holds it all.
    found = probabilities(of_mean, red([[1, 1, 3, 3]] * 2), scales=(1.0, 2.0), window=4, overlap=0.0)
    doubled = resize_bilinear(tf.constant([[[[1.0], [1.0], [3.0], [3.0]]]]), (1, 8))[0, 0, :, 0]
    left, right = (float(tf.reduce_mean(half)) for half in (doubled[:4], doubled[4:]))
    views = [2 / 3, left / (1 + left), right / (1 + right)]
    assert found[0, 0, 0] == pytest.approx((views[0] + views[1]) / 2, abs=1e-5)
    assert found[0, 1, 3] == pytest.approx((views[0] + views[2]) / 2, abs=1e-5)


def test_images_of_a_batch_do_not_mix():
    images = noise(3, 20, 33)
    together = probabilities(of_mean, images, window=8)
    for image, answer in zip(images, together, strict=True):
        np.testing.assert_allclose(probabilities(of_mean, image[None], window=8)[0], answer, atol=1e-6)


def test_impossible_probabilities_leave_finite_logits():
    certain = lambda x: tf.stack([x[..., 0] * 1e4, tf.zeros(tf.shape(x)[:3])], axis=-1)  # noqa: E731
    protocol = InferenceProtocol(certain, 2, InferenceConfig(window=4, flip=True))
    class_ids, scores = protocol.segment(noise(1, 7, 9), tf.constant((13, 13)))
    np.testing.assert_array_equal(class_ids, np.zeros((1, 13, 13)))
    np.testing.assert_allclose(scores, [1.0], atol=1e-5)


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -1.0), (float("inf"),), (float("nan"),)])
def test_scales_that_show_nothing_are_refused(scales):
    with pytest.raises(ValidationError, match="scales"):
        InferenceConfig(scales=scales)


LABELS = LabelMap(classes=tuple(ClassLabel(name=name) for name in ("sky", "road", "tree")))
NETWORK = ModelConfig(width=0.35, aspp_channels=8, decoder_channels=8, low_level_channels=4, batch_norm_momentum=0.0)


def make_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Coarse random blocks, (height, width, 3) uint8."""
    blocks = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]


def encode(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def example(image: np.ndarray, mask: np.ndarray) -> bytes:
    feature = {
        key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[encode(array)]))
        for key, array in ((IMAGE, image), (MASK, mask))
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def of_places(images: tf.Tensor) -> tf.Tensor:
    """Logits of three classes: red, which counts the more the further right, green and blue; on a grid of quarters."""
    coarse = images[:, ::4, ::4] / 50.0
    columns = tf.range(tf.cast(tf.shape(coarse)[2], tf.float32))
    return coarse * tf.stack([0.5 + columns / 5.0, tf.ones_like(columns), tf.ones_like(columns)], axis=-1)


@pytest.mark.parametrize(
    ("config", "max_side"),
    [
        ({}, 0),
        ({"window": 32, "overlap": 0.5}, 0),
        ({"scales": (0.5, 1.0, 1.5), "flip": True}, 0),
        ({"scales": (0.5, 1.25), "flip": True, "window": 24}, 64),
    ],
)
def test_evaluation_counts_the_classes_that_are_predicted(config, max_side):
    preprocess = PreprocessConfig(max_side=max_side)
    protocol = InferenceProtocol(of_places, 3, InferenceConfig(**config))
    signatures = InferenceModule([], protocol, preprocess, []).signatures()
    images = [make_image(41, 75, 1), make_image(20, 90, 2)]
    labels = [np.random.default_rng(3).choice([0, 1, 2, 255], i.shape[:2]).astype(np.uint8) for i in images]

    served = signatures[export.SERVING_SIGNATURE](tf.constant([encode(image) for image in images]))
    counted = signatures[export.EVALUATE_SIGNATURE](tf.constant(list(map(example, images, labels))))

    masks = [tf.io.decode_png(mask)[:, :, 0].numpy() for mask in served[export.MASK_BYTES]]
    whole = InferenceProtocol(of_places, 3, InferenceConfig())
    for image, label, mask, counts in zip(images, labels, masks, counted[CONFUSION].numpy(), strict=True):
        np.testing.assert_array_equal(counts.reshape(3, 3), confusion_matrix(label, mask, 3))
        pixels = signatures[export.PIXELS_SIGNATURE](tf.constant(image[None]))
        np.testing.assert_array_equal(pixels[export.CLASS_IDS][0], mask)
        by_default, _ = whole.segment(tf.constant(image[None]), tf.constant(label.shape))
        assert bool(config) == bool(np.mean(mask != by_default[0]) > 0.001)


@pytest.mark.long
def test_the_protocol_of_an_exported_network_is_the_one_asked_for(tmp_path):
    keras.utils.set_random_seed(0)
    model = build_model(NETWORK, 3, mean=[120, 110, 100], variance=[3000, 2900, 3100])
    # With momentum 0 the moving statistics are at once those of a batch, and no signal fades on its way.
    model(np.stack([make_image(64, 64, seed) for seed in range(4)]), training=True)
    model.classifier.kernel.assign(model.classifier.kernel * 100.0)
    inference = InferenceConfig(output_stride=8, window=48, scales=(0.5, 1.0), flip=True)
    preprocess = PreprocessConfig(max_side=64)
    export_saved_model(model, tmp_path, label_map=LABELS, preprocess=preprocess, inference=inference)
    image = make_image(50, 80)

    answer = tf.saved_model.load(str(tmp_path)).signatures[export.PIXELS_SIGNATURE](pixels=tf.constant(image[None]))

    def class_ids(network: DeepLabV3Plus) -> tf.Tensor:
        protocol = InferenceProtocol(network.coarse_logits, 3, inference)
        return protocol.segment(shrink_image(image, preprocess)[None], tf.constant((50, 80)))[0]

    np.testing.assert_array_equal(answer[export.CLASS_IDS], class_ids(model.with_output_stride(8)))
    assert np.mean(answer[export.CLASS_IDS] != class_ids(model)) > 0.001, "both output strides give the same"
    assert load_description(tmp_path).inference == inference
    assert load_description(tmp_path).model.output_stride == 16


MEMORY = r"""
import pathlib, re
import tensorflow as tf
from models.config import InferenceConfig
from models.export.inference import InferenceProtocol

kernel = tf.random.stateless_uniform((3, 3, 3, 64), (1, 2))

def network(images):
    return tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "SAME"))[:, ::4, ::4, :4]

def after(window, side):
    protocol = InferenceProtocol(network, 4, InferenceConfig(window=window))
    segment = tf.function(protocol.segment, autograph=False)
    segment(tf.zeros((1, side, side, 3), tf.uint8), tf.constant((side, side)))
    # The peak that `resource` tells begins with that of the parent.
    return int(re.search(r"VmHWM:\s*(\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024

# The peak never falls, so what needs least goes first.
start, sliding, whole = after(128, 200), after(128, 1400), after(0, 1400)
print(sliding - start, whole - start)
"""


def test_the_memory_of_windows_is_that_of_a_few_not_of_the_image():
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], cwd=root, capture_output=True, text=True, timeout=300, check=True
    )
    sliding, whole = map(float, done.stdout.split())
    # 64 channels of 1400 x 1400 pixels are 480 MiB, and probabilities of 4 classes 30.
    assert whole > 400
    assert sliding < 240
