"""The SavedModel answers from encoded bytes, for any size, and agrees with itself and with the network."""

import io
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data.config import PreprocessConfig
from data.errors import DataError, WorkspaceError
from data.features import IGNORE_LABEL, IMAGE, MASK
from data.labels import ClassLabel, LabelMap
from models.config import InferenceConfig, ModelConfig
from models.export import saved_model as export
from models.export.saved_model import export_saved_model, load_description, load_label_map
from models.export.segmenter import Segmenter
from models.metrics.counts import BOUNDARY, CONFUSION, TRIMAP, Counts, count_pixels
from models.network.deeplab import DeepLabV3Plus, build_model

LABELS = LabelMap(
    classes=(ClassLabel(name="sky", values=(3,)), ClassLabel(name="straße"), ClassLabel(name="tree")),
    ignore_colors=((0, 0, 0),),
)
CONFIG = ModelConfig(width=0.35, aspp_channels=8, decoder_channels=8, low_level_channels=4, batch_norm_momentum=0.0)
PROJECT = Path(__file__).parents[3]


def random_model() -> DeepLabV3Plus:
    """A network whose random classes vary over an image."""
    keras.utils.set_random_seed(0)
    model = build_model(CONFIG, LABELS.num_classes, mean=[120, 110, 100], variance=[3000, 2900, 3100])
    # With momentum 0 the moving statistics are at once those of a batch, and no signal fades on its way.
    model(np.stack([pixels(64, 64, seed) for seed in range(4)]), training=True)
    model.classifier.kernel.assign(model.classifier.kernel * 100.0)
    return model


def pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Coarse random blocks, (height, width, 3) uint8."""
    blocks = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]


def encode(array: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


def example(image: np.ndarray, mask: np.ndarray) -> bytes:
    feature = {
        key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[encode(array)]))
        for key, array in ((IMAGE, image), (MASK, mask))
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


@pytest.fixture(scope="module")
def model() -> DeepLabV3Plus:
    return random_model()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model"
    export_saved_model(model, path, label_map=LABELS, preprocess=PreprocessConfig())
    return path


@pytest.fixture(scope="module")
def loaded(saved):
    return tf.saved_model.load(str(saved))


@pytest.fixture(scope="module")
def segmenter(saved):
    return Segmenter(saved)


def serve(loaded, *encoded: bytes) -> tuple[list[np.ndarray], np.ndarray]:
    outputs = loaded.signatures[export.SERVING_SIGNATURE](image_bytes=tf.constant(encoded))
    masks = [np.asarray(Image.open(io.BytesIO(mask))) for mask in outputs[export.MASK_BYTES].numpy()]
    return masks, outputs[export.SCORES].numpy()


def test_one_batch_of_many_sizes_gives_masks_of_those_sizes(loaded):
    sizes = [(1, 1), (33, 47), (64, 20), (5, 1)]
    masks, scores = serve(loaded, *[encode(pixels(*size)) for size in sizes])
    assert [mask.shape for mask in masks] == sizes
    assert all(mask.dtype == np.uint8 and mask.max() < LABELS.num_classes for mask in masks)
    assert scores.shape == (4,)
    assert np.all((scores >= 1 / LABELS.num_classes - 1e-6) & (scores <= 1 + 1e-6))


def test_the_signatures_and_their_outputs_are_those_that_the_infra_check_requires(loaded):
    found = {name: set(signature.structured_outputs) for name, signature in loaded.signatures.items()}
    assert found == {name: set(outputs) for name, outputs in export.SIGNATURES.items()}


def test_the_mask_and_score_are_those_of_the_network(loaded, model):
    image = pixels(40, 52)
    probabilities = tf.nn.softmax(model(image[None]))[0].numpy()
    (mask,), (score,) = serve(loaded, encode(image))
    assert len(np.unique(mask)) > 1
    np.testing.assert_array_equal(mask, probabilities.argmax(-1))
    assert score == pytest.approx(probabilities.max(-1).mean(), abs=1e-4)


def test_gray_images_are_read_as_three_equal_channels(loaded):
    gray = pixels(24, 24)[:, :, 0]
    np.testing.assert_array_equal(
        serve(loaded, encode(gray))[0][0], serve(loaded, encode(np.stack([gray] * 3, axis=-1)))[0][0]
    )


def test_jpegs_are_answered(loaded):
    assert serve(loaded, encode(pixels(30, 20), "JPEG"))[0][0].shape == (30, 20)


def test_pixels_and_encoded_bytes_give_equal_masks(loaded):
    images = np.stack([pixels(31, 45, seed) for seed in range(2)])
    outputs = loaded.signatures[export.PIXELS_SIGNATURE](pixels=tf.constant(images))
    masks, scores = serve(loaded, *map(encode, images))
    assert outputs[export.CLASS_IDS].dtype == tf.uint8
    np.testing.assert_array_equal(outputs[export.CLASS_IDS], masks)
    np.testing.assert_allclose(outputs[export.SCORES], scores, atol=1e-5)


def test_evaluation_counts_what_serving_predicts(loaded, model):
    images = [pixels(40, 52, 1), pixels(17, 9, 2)]
    labels = [np.random.default_rng(3).choice([0, 1, 2, IGNORE_LABEL], i.shape[:2]).astype(np.uint8) for i in images]
    ring = np.zeros((90, 80), np.uint8)
    ring[10:70, 10:70] = IGNORE_LABEL
    ring[20:60, 20:60] = 1
    images.append(pixels(*ring.shape, 3))
    labels.append(ring)
    outputs = loaded.signatures[export.EVALUATE_SIGNATURE](examples=tf.constant(list(map(example, images, labels))))
    masks, _ = serve(loaded, *map(encode, images))
    for index, (image, label, mask) in enumerate(zip(images, labels, masks, strict=True)):
        found = Counts.of({name: output[index] for name, output in outputs.items()}, 3)
        confidences = tf.nn.softmax(model(image[None]))[0].numpy().max(-1)
        expected = Counts.of(count_pixels(*map(tf.constant, (label, mask, confidences)), 3), 3)
        for name in (CONFUSION, BOUNDARY, TRIMAP):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
        assert found.calibration[:2].sum(axis=1).tolist() == [(label < 3).sum(), (label == mask).sum()]
        assert found.calibration[2].sum() == pytest.approx(1e6 * confidences[label < 3].sum(), rel=1e-4)


@pytest.mark.parametrize("encoded", [b"", b"no image", encode(np.zeros((9, 9, 3), np.uint8))[:40]])
def test_corrupt_bytes_are_an_error_that_names_the_image(segmenter, encoded):
    with pytest.raises(DataError, match=rf"image 1 \({len(encoded)} bytes\) cannot be decoded; allowed: JPEG, PNG"):
        segmenter.predict([encode(pixels(8, 8)), encoded])


def test_the_segmenter_answers_as_the_signature_does(segmenter, loaded):
    images = [encode(pixels(20, 30)), encode(pixels(7, 5))]
    answers = segmenter.predict(images)
    masks, scores = serve(loaded, *images)
    assert segmenter.label_map == LABELS
    for (mask, score), expected_mask, expected_score in zip(answers, masks, scores, strict=True):
        np.testing.assert_array_equal(mask, expected_mask)
        assert score == pytest.approx(expected_score)


def test_the_label_map_travels_with_the_model(saved, tmp_path):
    moved = saved.rename(tmp_path / "moved")
    assert load_label_map(moved) == LABELS
    moved.rename(saved)


def test_the_description_names_the_weights_in_their_order(saved, loaded, model):
    description = load_description(saved)
    assert description.model == CONFIG
    assert description.preprocess == PreprocessConfig()
    assert description.inference == InferenceConfig()
    assert description.weights == tuple(weight.path for weight in model.weights)
    assert len(set(description.weights)) == len(description.weights)
    for found, weight in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(found, weight)


def test_a_description_that_is_not_understood_is_an_error_that_names_file_and_place(saved, tmp_path):
    (tmp_path / "assets").mkdir()
    description = json.loads((saved / "assets" / "model.json").read_text())
    description["model"]["backbone"] = "vgg"
    (tmp_path / "assets" / "model.json").write_text(json.dumps(description))
    with pytest.raises(WorkspaceError, match=rf"{tmp_path}/assets/model.json: model.backbone: Input should be"):
        load_description(tmp_path)


def test_a_folder_without_a_model_is_an_error_that_names_it(tmp_path):
    with pytest.raises(WorkspaceError, match=rf"{tmp_path} is not a model"):
        Segmenter(tmp_path)


def test_a_label_map_of_other_classes_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="the label map has 1 classes, the model 3"):
        export_saved_model(
            model, tmp_path, label_map=LabelMap(classes=(ClassLabel(name="a"),)), preprocess=PreprocessConfig()
        )


def test_large_images_are_shrunk_for_the_network_and_masks_keep_their_size(model, tmp_path):
    path = tmp_path / "model"
    export_saved_model(model, path, label_map=LABELS, preprocess=PreprocessConfig(max_side=32))
    loaded = tf.saved_model.load(str(path))
    image = pixels(64, 48)
    # Blocks of 8 equal pixels, halved.
    small = np.asarray(tf.image.resize(image, (32, 24), antialias=True)).round().astype(np.uint8)
    expected = tf.image.resize(model.coarse_logits(small[None]), (64, 48))[0].numpy().argmax(-1)
    (mask,), _ = serve(loaded, encode(image))
    np.testing.assert_array_equal(mask, expected)
    outputs = loaded.signatures[export.PIXELS_SIGNATURE](pixels=tf.constant(image[None]))
    np.testing.assert_array_equal(outputs[export.CLASS_IDS][0], expected)
    labels = np.uint8(np.full((64, 48), 2))
    confusion = loaded.signatures[export.EVALUATE_SIGNATURE](examples=tf.constant([example(image, labels)]))
    np.testing.assert_array_equal(confusion[CONFUSION][0, 6:], np.bincount(expected.ravel(), minlength=3))


def test_a_model_trained_in_bfloat16_is_exported_in_float32(model, loaded, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        trained = build_model(CONFIG, LABELS.num_classes)
        trained.set_weights(model.get_weights())
        export_saved_model(trained, tmp_path / "model", label_map=LABELS, preprocess=PreprocessConfig())
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    image = encode(pixels(40, 52))
    (mask,), (score,) = serve(tf.saved_model.load(str(tmp_path / "model")), image)
    (expected_mask,), (expected_score,) = serve(loaded, image)
    np.testing.assert_array_equal(mask, expected_mask)
    assert score == pytest.approx(expected_score, abs=1e-6)


def test_a_fresh_process_without_the_code_of_the_network_answers(saved, loaded, tmp_path):
    (tmp_path / "image.png").write_bytes(encode(pixels(20, 30)))
    script = (
        "import sys, tensorflow as tf\n"
        "signature = tf.saved_model.load(sys.argv[1]).signatures['serving_default']\n"
        "outputs = signature(image_bytes=tf.constant([open(sys.argv[2], 'rb').read()]))\n"
        "open(sys.argv[3], 'wb').write(outputs['mask_bytes'].numpy()[0])\n"
        "assert not any(name.startswith('models') for name in sys.modules)\n"
    )
    command = [sys.executable, "-c", script, str(saved), str(tmp_path / "image.png"), str(tmp_path / "mask.png")]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path, timeout=120)
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "mask.png")), serve(loaded, encode(pixels(20, 30)))[0][0]
    )
