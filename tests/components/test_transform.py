"""Transform's statistics are exact, and training sees the very pixels that serving computes."""

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from PIL import Image
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact

from components.config import ValidationConfig
from components.transform import CLASS_PIXELS, ImageTransform, read_statistics
from components.validation.schema import DataSchema
from data.features import IMAGE, MASK
from data.input import decode_example
from data.labels import LabelMap
from data.layouts.base import SPLITS
from data.preprocess import PreprocessConfig, decode_image, decode_mask, shrink_image, shrink_mask
from models.config import InferenceConfig
from models.export.inference import InferenceProtocol
from models.export.saved_model import IMAGE_BYTES, MASK_BYTES, SERVING_SIGNATURE, InferenceModule
from tests.components.conftest import changed, channel, columns, read_split, run_node, write_examples

WHOLE = PreprocessConfig()
SHRUNK = PreprocessConfig(max_side=48)


def as_png(encoded: bytes) -> bytes:
    return tf.io.encode_png(tf.io.decode_image(encoded, channels=3)).numpy()


@pytest.fixture(scope="module")
def mixed(examples: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Examples with JPEG and PNG images, one of them small."""
    splits = {split: read_split(examples, split)[:3] for split in SPLITS}
    first = splits["train"][0]
    splits["train"] += [changed(record, **{IMAGE: as_png(columns(record)[IMAGE])}) for record in splits["train"]]
    small = tf.random.stateless_uniform((20, 31, 3), (1, 2), 0, 256, tf.int32)
    splits["train"].append(
        changed(
            first,
            **{
                IMAGE: tf.io.encode_png(tf.cast(small, tf.uint8)).numpy(),
                MASK: tf.io.encode_png(tf.zeros((20, 31, 1), tf.uint8)).numpy(),
            },
        )
    )
    return write_examples(tmp_path_factory.mktemp("mixed"), splits)


@pytest.fixture(scope="module", params=[WHOLE, SHRUNK], ids=["whole", "shrunk"])
def config(request: pytest.FixtureRequest) -> PreprocessConfig:
    return request.param


@pytest.fixture(scope="module")
def transformed(
    config: PreprocessConfig, mixed: Artifact, labels: LabelMap, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Artifact]:
    """Transform's outputs for `mixed`."""
    folder = tmp_path_factory.mktemp("transform")
    schema = run_node(DataSchema(validation=ValidationConfig(), label_map=labels), folder)["schema"]
    return run_node(ImageTransform(channel(mixed), channel(schema), config, labels), folder)


def pair(serialized: bytes, config: PreprocessConfig) -> tuple[np.ndarray, np.ndarray]:
    """The pixels and class ids of an example as the network shall see them."""
    row = columns(serialized)
    image, mask = decode_image(row[IMAGE]), decode_mask(row[MASK])
    return shrink_image(image, config).numpy(), shrink_mask(mask, config).numpy()


def by_content(serialized: list[bytes], config: PreprocessConfig) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of a split in an order that Beam does not change."""
    return sorted((pair(record, config) for record in serialized), key=lambda p: (p[0].shape, p[0].tobytes()))


def test_train_and_val_are_transformed_and_test_is_not(transformed: dict[str, Artifact]):
    examples = transformed["transformed_examples"]

    assert artifact_utils.decode_split_names(examples.split_names) == ["train", "val"]
    assert len(read_split(examples, "train")) == 7
    assert len(read_split(examples, "val")) == 3


def test_the_statistics_are_those_of_the_training_pixels_alone(
    transformed: dict[str, Artifact], mixed: Artifact, labels: LabelMap, config: PreprocessConfig
):
    pairs = by_content(read_split(mixed, "train"), config)
    pixels = np.concatenate([image.reshape(-1, 3) for image, _ in pairs]).astype(np.float64)
    ids = np.concatenate([mask.ravel() for _, mask in pairs])

    for split in ("train", "val"):
        folder = Path(artifact_utils.get_split_uri([transformed["transformed_examples"]], split))
        for file in folder.iterdir():
            statistics = read_statistics(str(file), labels.num_classes)
            np.testing.assert_allclose(statistics.channel_mean, pixels.mean(axis=0), rtol=1e-7)
            np.testing.assert_allclose(statistics.channel_variance, pixels.var(axis=0), rtol=1e-7)
            assert statistics.class_pixels.tolist() == [(ids == i).sum() for i in range(labels.num_classes)]
            assert statistics.class_pixels.dtype == np.int64


def test_what_need_not_shrink_keeps_its_bytes_and_the_rest_becomes_png(
    transformed: dict[str, Artifact], mixed: Artifact, config: PreprocessConfig
):
    raw = {columns(record)[IMAGE] for record in read_split(mixed, "train")}
    rows = [training_columns(record) for record in read_split(transformed["transformed_examples"], "train")]

    kept = [row[IMAGE] for row in rows if row[IMAGE] in raw]
    made = [row[IMAGE] for row in rows if row[IMAGE] not in raw]
    sizes = [Image.open(io.BytesIO(content)).size for content in made]
    assert len(kept) == (7 if config == WHOLE else 1)
    assert all(content.startswith(b"\x89PNG") for content in made)
    assert all(max(size) == 48 for size in sizes)
    for row in rows:
        assert Image.open(io.BytesIO(row[IMAGE])).size == Image.open(io.BytesIO(row[MASK])).size


def training_columns(serialized: bytes) -> dict[str, bytes]:
    features = tf.train.Example.FromString(serialized).features.feature
    return {name: features[name].bytes_list.value[0] for name in (IMAGE, MASK)}


def test_training_decodes_the_pixels_that_preprocessing_gives(
    transformed: dict[str, Artifact], mixed: Artifact, config: PreprocessConfig
):
    for split in ("train", "val"):
        decoded = [decode_example(record) for record in read_split(transformed["transformed_examples"], split)]
        found = sorted(
            ((image.numpy(), mask.numpy()) for image, mask in decoded), key=lambda p: (p[0].shape, p[0].tobytes())
        )
        for (image, mask), (true_image, true_mask) in zip(
            found, by_content(read_split(mixed, split), config), strict=True
        ):
            np.testing.assert_array_equal(image, true_image)
            np.testing.assert_array_equal(mask, true_mask)


def apply(graph: tft.TFTransformOutput, serialized: bytes) -> dict[str, tf.Tensor]:
    """What the saved graph makes of one example."""
    return graph.transform_features_layer()(tf.io.parse_example([serialized], graph.raw_feature_spec()))


def digest_logits(images: tf.Tensor) -> tf.Tensor:
    """A network whose one class everywhere is a digest of the pixels it is given: (batch, 1, 1, 251) float32."""
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    factors = tf.reshape(tf.range(height * width * 3) * 7919 % 251 + 1, (height, width, 3))
    digests = tf.reduce_sum(tf.cast(images, tf.int32) * factors, axis=(1, 2, 3)) % 251
    return tf.one_hot(digests, 251)[:, None, None, :] * 100.0


def digest(image: np.ndarray) -> int:
    factors = np.arange(image.size).reshape(image.shape) * 7919 % 251 + 1
    return int((image.astype(np.int64) * factors).sum() % 251)


def test_an_image_takes_the_same_pixels_to_the_network_in_training_and_in_serving(
    transformed: dict[str, Artifact], mixed: Artifact, config: PreprocessConfig, tmp_path: Path
):
    protocol = InferenceProtocol(digest_logits, 251, InferenceConfig())
    module = InferenceModule([], protocol, config, [])
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.signatures())
    served = tf.saved_model.load(str(tmp_path / "model"))
    graph = tft.TFTransformOutput(transformed["transform_graph"].uri)
    materialised = {
        digest(decode_example(record)[0].numpy()) for record in read_split(transformed["transformed_examples"], "train")
    }

    seen = set()
    for record in read_split(mixed, "train"):
        answer = served.signatures[SERVING_SIGNATURE](**{IMAGE_BYTES: tf.constant([columns(record)[IMAGE]])})
        in_serving = np.unique(tf.io.decode_png(answer[MASK_BYTES][0]).numpy())
        in_graph = decode_image(apply(graph, record)[IMAGE][0]).numpy()
        assert in_serving.tolist() == [digest(in_graph)]
        seen |= set(in_serving.tolist())
    assert seen == materialised
    assert len(seen) > 2


def test_the_saved_graph_holds_the_statistics(transformed: dict[str, Artifact], mixed: Artifact, labels: LabelMap):
    graph = tft.TFTransformOutput(transformed["transform_graph"].uri)

    found = apply(graph, read_split(mixed, "test")[0])[CLASS_PIXELS][0]

    folder = Path(artifact_utils.get_split_uri([transformed["transformed_examples"]], "train"))
    statistics = read_statistics(str(next(folder.iterdir())), labels.num_classes)
    assert found.numpy().tolist() == statistics.class_pixels.tolist()
