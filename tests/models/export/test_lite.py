"""LiteRT models say what the network says, take bytes as they are, and carry their labels."""

import io
import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from flatbuffers.table import Table
from tensorflow.lite.tools import flatbuffer_utils

from data.config import PreprocessConfig
from data.labels import ClassLabel, LabelMap
from models.config import InferenceConfig, LiteVariant, ModelConfig
from models.export.lite import (
    INPUT_FILE,
    LABELS_FILE,
    InputDescription,
    LiteSegmenter,
    convert,
    describe_input,
    metadata_table,
    with_files,
    with_metadata,
)
from models.export.saved_model import CLASS_IDS, PIXELS, PIXELS_SIGNATURE, export_saved_model
from models.network.deeplab import DeepLabV3Plus, build_model
from models.weights.initial_weights import load_network

#: Keras' convert_to_numpy, with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

LABELS = LabelMap(classes=tuple(ClassLabel(name=name) for name in ("sky", "road", "tree")))
NETWORK = ModelConfig(width=0.35, aspp_channels=8, decoder_channels=8, low_level_channels=4, batch_norm_momentum=0.0)
SIZE = (48, 64)
#: Variant -> share of the pixels that are as the network says, at least. Random weights leave small margins.
VARIANTS: list[tuple[LiteVariant, float]] = [("float16", 0.97), ("dynamic", 0.9), ("int8", 0.8)]
MEAN, VARIANCE = [120.0, 110.0, 100.0], [3000.0, 2900.0, 3100.0]


def blocks(seed: int) -> np.ndarray:
    """Random blocks of 8 x 8, (*SIZE, 3) uint8."""
    colors = np.random.default_rng(seed).integers(0, 256, (SIZE[0] // 8, SIZE[1] // 8, 3), np.uint8)
    return colors.repeat(8, axis=0).repeat(8, axis=1)


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose random classes vary over an image, exported for an output stride of 8."""
    keras.utils.set_random_seed(0)
    model = build_model(NETWORK, 3, mean=MEAN, variance=VARIANCE)
    model(np.stack([blocks(seed) for seed in range(4)]), training=True)
    model.classifier.kernel.assign(model.classifier.kernel * 100.0)
    path = tmp_path_factory.mktemp("model") / "saved"
    inference = InferenceConfig(output_stride=8)
    export_saved_model(model, path, label_map=LABELS, preprocess=PreprocessConfig(), inference=inference)
    return path


@pytest.fixture(scope="module")
def network(saved_model: Path) -> DeepLabV3Plus:
    return load_network(saved_model)


def test_the_network_is_the_one_that_the_saved_model_predicts_with(saved_model: Path, network: DeepLabV3Plus):
    signature = tf.saved_model.load(str(saved_model)).signatures[PIXELS_SIGNATURE]
    image = blocks(7)

    served = signature(**{PIXELS: tf.constant(image[None])})[CLASS_IDS][0].numpy()

    assert network.config.output_stride == 8
    assert len(np.unique(served)) > 1
    np.testing.assert_array_equal(np.argmax(network(image[None])[0], axis=-1), served)


@pytest.fixture(scope="module")
def models(network: DeepLabV3Plus) -> dict[LiteVariant, bytes]:
    """The network in each variant, of which float32 is tested by the page in the browser."""
    calibration = [blocks(seed) for seed in range(8)]
    return {variant: convert(network, SIZE, variant, calibration) for variant, _ in VARIANTS}


@pytest.mark.parametrize(("variant", "agreement"), VARIANTS)
def test_every_variant_says_what_the_network_says(
    network: DeepLabV3Plus, models: dict[LiteVariant, bytes], variant: LiteVariant, agreement: float
):
    segmenter = LiteSegmenter(models[variant])

    assert segmenter.input_scale in {(0.0, 0), (1.0, 0)}
    equal = []
    for seed in range(20, 24):
        expected = np.argmax(network(blocks(seed)[None])[0], axis=-1)
        found = segmenter.predict(blocks(seed))
        assert (found.shape, found.dtype) == (SIZE, np.uint8)
        equal.append(np.mean(found == expected))
    assert np.mean(equal) >= agreement


def test_int8_needs_images(network: DeepLabV3Plus):
    with pytest.raises(ValueError, match="at least one image"):
        convert(network, SIZE, "int8", [])


def test_an_image_of_another_size_is_refused(models: dict[LiteVariant, bytes]):
    segmenter = LiteSegmenter(models["float16"])

    with pytest.raises(ValueError, match="Got 32 but expected 48"):
        segmenter.predict(np.zeros((32, 32, 3), np.uint8))


def test_a_metadata_table_travels_in_the_model(models: dict[LiteVariant, bytes]):
    bare = models["int8"]
    table = metadata_table((PIXELS, CLASS_IDS), LABELS_FILE)

    model = with_metadata(bare, table)

    parts = flatbuffer_utils.read_model_from_bytearray(model)
    places = {entry.name: entry.buffer for entry in parts.metadata}
    assert parts.buffers[places[b"TFLITE_METADATA"]].data.tobytes() == table
    # By the schema: the root's field 3 are the graphs, a graph's fields 2 and 3 its inputs and outputs, their field 0
    # the name; an output's field 6 are its files.
    graph = entry_of(root_table(table), 3)
    assert (text(entry_of(graph, 2), 0), text(entry_of(graph, 3), 0)) == (PIXELS, CLASS_IDS)
    assert text(entry_of(entry_of(graph, 3), 6), 0) == LABELS_FILE
    np.testing.assert_array_equal(LiteSegmenter(model).predict(blocks(1)), LiteSegmenter(bare).predict(blocks(1)))


def root_table(buffer: bytes) -> Table:
    assert buffer[4:8] == b"M001"
    return Table(buffer, int.from_bytes(buffer[:4], "little"))


def entry_of(table: Table, field: int) -> Table:
    """The only table in a list that a field refers to."""
    offset = table.Offset(4 + 2 * field)
    assert table.VectorLen(offset) == 1
    return Table(table.Bytes, table.Indirect(table.Vector(offset)))


def text(table: Table, field: int) -> str:
    return table.String(table.Pos + table.Offset(4 + 2 * field)).decode()


def test_files_travel_in_the_model_and_leave_it_as_it_was(network: DeepLabV3Plus, models: dict[LiteVariant, bytes]):
    bare = models["dynamic"]
    description = describe_input(network, SIZE)
    files = {LABELS_FILE: "sky\nroad\n", INPUT_FILE: description.model_dump_json()}

    model = with_files(bare, files)

    assert model.startswith(bare)
    assert model == with_files(bare, files)
    with zipfile.ZipFile(io.BytesIO(model)) as archive:
        assert {name: archive.read(name).decode() for name in archive.namelist()} == files
    np.testing.assert_array_equal(LiteSegmenter(model).predict(blocks(1)), LiteSegmenter(bare).predict(blocks(1)))
    assert description == InputDescription(height=48, width=64, mean=tuple(MEAN), variance=tuple(VARIANCE))
    assert json.loads(files[INPUT_FILE])["value_range"] == [0, 255]
