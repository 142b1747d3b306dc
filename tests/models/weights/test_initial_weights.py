"""Initial weights: all that the source promises or a refusal, and the published features where they are copied."""

import http.server
import shutil
import socket
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from data.config import PreprocessConfig
from data.errors import ConfigError, TrainingError
from data.labels import ClassLabel, LabelMap
from models.config import ModelConfig
from models.export.saved_model import export_saved_model
from models.network.deeplab import DeepLabV3Plus, build_model
from models.weights.initial_weights import load_initial_weights

# Keras' reader and writer of weights, with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

NAMES = ("sky", "road", "tree")
NOTHING_RAN = "; a SavedModel is a program: its weights alone were read, and nothing of it ran"
TINY = {"aspp_channels": 8, "decoder_channels": 8, "low_level_channels": 4}
SMALL = {**TINY, "width": 0.35}


def network(classes: int = 3, **changes) -> DeepLabV3Plus:
    return build_model(ModelConfig(**{**SMALL, "normalization": "backbone", **changes}), classes)


def lively(model: keras.Model, seed: int = 0) -> keras.Model:
    """Weights with which no layer is the identity, and signals neither vanish nor overflow."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        spread = np.sqrt(3.0 / np.prod(weight.shape[:-1])) if weight.name == "kernel" else 0.1
        centre = 0.5 if "layer_scale" in weight.path else float(weight.name in ("gamma", "moving_variance", "variance"))
        weight.assign(centre + random.uniform(-spread, spread, weight.shape))
    return model


def mobilenet(**changes) -> keras.Model:
    arguments = {"include_top": False, "weights": None, "alpha": 0.35, "input_shape": (64, 64, 3), **changes}
    return lively(keras.applications.MobileNetV2(**arguments))


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (*shape, 3)).astype(np.float32)


def features(model: DeepLabV3Plus, images: np.ndarray) -> np.ndarray:
    return model.backbone(model.normalize(images))["last"].numpy()


def labels(*names: str) -> LabelMap:
    return LabelMap(classes=tuple(ClassLabel(name=name) for name in names))


def weights(model: keras.Model) -> dict[str, np.ndarray]:
    return {weight.path: weight.numpy() for weight in model.weights}


def assert_equal(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert first.keys() == second.keys()
    for path, array in first.items():
        np.testing.assert_array_equal(array, second[path], err_msg=path)


def refused(model: DeepLabV3Plus, source: Path | str, error: type[Exception], match: str) -> None:
    """Loading fails with this text and leaves the network as it was."""
    before = weights(model)
    with pytest.raises(error, match=match) as caught:
        load_initial_weights(model, str(source), label_names=NAMES)
    assert str(source) in str(caught.value)
    assert_equal(weights(model), before)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[keras.Model, Path]:
    """A MobileNetV2 of keras.applications and the file of its weights."""
    reference = mobilenet()
    path = tmp_path_factory.mktemp("published") / "mobilenet.weights.h5"
    reference.save_weights(path)
    return reference, path


@pytest.fixture(scope="module")
def untouched() -> DeepLabV3Plus:
    """A network for tests in which nothing is loaded."""
    return network()


@pytest.fixture(scope="module")
def earlier(tmp_path_factory) -> tuple[DeepLabV3Plus, Path]:
    """A network of ours with the classes NAMES, and the folder of its export."""
    model = lively(network(normalization="dataset"), seed=2)
    path = tmp_path_factory.mktemp("earlier") / "1"
    export_saved_model(model, path, label_map=labels(*NAMES), preprocess=PreprocessConfig())
    return model, path


def test_random_weights_stay(untouched):
    before = weights(untouched)
    report = load_initial_weights(untouched, "random", label_names=NAMES)
    assert (report.loaded, report.total) == (0, len(untouched.weights))
    assert_equal(weights(untouched), before)


def last_features(reference: keras.Model, backbone: str) -> keras.KerasTensor:
    """What keras.applications puts out, less the layers after the last features of ours."""
    if backbone == "mobilenet_v2":
        return reference.get_layer("block_16_project_BN").output
    return reference.layers[-1].input if backbone == "convnext_tiny" else reference.output


@pytest.mark.parametrize(
    ("backbone", "application", "width", "preprocess"),
    [
        ("mobilenet_v2", keras.applications.MobileNetV2, 0.35, keras.applications.mobilenet_v2.preprocess_input),
        ("mobilenet_v3_small", keras.applications.MobileNetV3Small, 0.75, np.array),
        pytest.param(
            *("resnet50", keras.applications.ResNet50, 1.0, keras.applications.resnet.preprocess_input),
            marks=pytest.mark.long,
        ),
        pytest.param("convnext_tiny", keras.applications.ConvNeXtTiny, 1.0, np.array, marks=pytest.mark.long),
    ],
)
def test_features_at_stride_32_equal_those_of_the_published_network(backbone, application, width, preprocess, tmp_path):
    alpha = {} if width == 1.0 else {"alpha": width}
    reference = lively(application(include_top=False, weights=None, input_shape=(64, 64, 3), **alpha))
    reference.save_weights(tmp_path / "published.weights.h5")
    model = network(backbone=backbone, width=width, output_stride=32)
    report = load_initial_weights(model, str(tmp_path / "published.weights.h5"), label_names=NAMES)
    assert report.loaded == len(model.backbone.weights)

    images = pixels(1, 64, 64)
    expected = keras.Model(reference.input, last_features(reference, backbone))(preprocess(images.copy()))
    scale = float(np.abs(expected).max())
    assert scale > 1e-3
    np.testing.assert_allclose(features(model, images), expected, atol=1e-4 * scale)


def test_the_copied_weights_serve_at_every_output_stride(published):
    reference, path = published
    model = network(output_stride=8)
    load_initial_weights(model, str(path), label_names=NAMES)
    for layer in model.backbone.layers[1:]:
        for ours, theirs in zip(layer.get_weights(), reference.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.fixture
def keras_home(tmp_path, monkeypatch) -> Path:
    """An empty cache; Keras reads its place from the environment only when it is imported."""
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path / "keras"))
    (tmp_path / "keras" / "models").mkdir(parents=True)
    return tmp_path / "keras"


def test_imagenet_weights_come_from_the_cache_of_keras(published, keras_home):
    reference, _ = published
    reference.save(keras_home / "models" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5")
    model = network()
    report = load_initial_weights(model, "imagenet", label_names=NAMES)
    assert str(report) == f"initial weights: {len(model.backbone.weights)} of {len(model.weights)} from imagenet"
    np.testing.assert_array_equal(model.backbone.get_layer("Conv1").kernel, reference.get_layer("Conv1").kernel)


@pytest.fixture
def closed_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.usefixtures("keras_home")
def test_a_missing_network_is_named_and_what_to_do(untouched, closed_port, monkeypatch):
    monkeypatch.setattr("keras.src.applications.mobilenet_v2.BASE_WEIGHT_PATH", f"{closed_port}/")
    text = f"cannot be downloaded .*{closed_port}.*Without a network, give initial_weights a file of keras.applications"
    refused(untouched, "imagenet", TrainingError, text)
    refused(untouched, f"{closed_port}/module/1", TrainingError, "Without a network, give initial_weights the folder")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"normalization": "dataset"}, "need model.normalization 'backbone', not 'dataset'"),
        ({"width": 0.6}, "width 0.6; allowed widths: 0.35, 0.5, 0.75"),
        ({"backbone": "mobilenet_v3_small_seg"}, "no network whose weights fit backbone 'mobilenet_v3_small_seg'"),
    ],
)
def test_imagenet_weights_that_do_not_exist_are_refused(changes, match):
    refused(network(**changes), "imagenet", ConfigError, match)


def test_a_file_of_another_network_is_refused(untouched, published, tmp_path):
    _, path = published
    refused(
        network(width=0.5), path, ConfigError, "neither this network .* nor that of keras.applications .* width 0.5"
    )
    other = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]).save_weights(other)
    refused(untouched, other, ConfigError, "neither this network")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(untouched, share, published, tmp_path):
    content = published[1].read_bytes()
    damaged = tmp_path / "damaged.weights.h5"
    damaged.write_bytes(content[: int(share * len(content))])
    refused(untouched, damaged, TrainingError, "damaged")


def test_weights_that_are_not_finite_are_refused(untouched, tmp_path):
    reference = mobilenet()
    beta = reference.get_layer("bn_Conv1").beta
    beta.assign(np.where(np.arange(16) == 3, np.inf, beta))
    reference.save_weights(tmp_path / "nan.weights.h5")
    refused(untouched, tmp_path / "nan.weights.h5", TrainingError, "bn_Conv1/beta has values that are not finite")


def test_a_missing_source_is_refused_with_what_is_allowed(untouched, tmp_path):
    refused(untouched, tmp_path / "no.weights.h5", ConfigError, "no such file")
    refused(untouched, tmp_path / "nothing", ConfigError, "allowed: 'random', 'imagenet', a .weights.h5")
    refused(untouched, "nowhere://bucket/some.weights.h5", TrainingError, "cannot be read: .*nowhere")
    (tmp_path / "empty").mkdir()
    refused(untouched, tmp_path / "empty", ConfigError, "saved_model.pb")


def test_a_file_of_the_whole_network_gives_its_logits(earlier, tmp_path):
    trained, _ = earlier
    trained.save_weights(tmp_path / "trained.weights.h5")
    model = network(normalization="dataset")
    report = load_initial_weights(model, str(tmp_path / "trained.weights.h5"), label_names=NAMES)
    assert report.loaded == report.total == len(model.weights)
    assert report.kept_classes == NAMES
    assert_equal(weights(model), weights(trained))


def test_a_file_may_be_anywhere_that_tensorflow_reaches(published):
    reference, path = published
    tf.io.gfile.copy(str(path), "ram://weights/mobilenet.weights.h5", overwrite=True)
    model = network()
    load_initial_weights(model, "ram://weights/mobilenet.weights.h5", label_names=NAMES)
    np.testing.assert_array_equal(model.backbone.get_layer("Conv1").kernel, reference.get_layer("Conv1").kernel)


def test_a_file_with_another_class_count_gives_all_but_the_classifier(earlier, tmp_path):
    trained, _ = earlier
    trained.save_weights(tmp_path / "trained.weights.h5")
    model = network(2, normalization="dataset")
    before = weights(model)
    report = load_initial_weights(model, str(tmp_path / "trained.weights.h5"), label_names=("sky", "road"))
    assert report.loaded == report.total - 2
    assert (report.kept_classes, report.new_classes) == ((), ("sky", "road"))
    classifier = {path: array for path, array in weights(model).items() if "classifier" in path}
    assert_equal(classifier, {path: before[path] for path in classifier})
    images = pixels(1, 32, 32)
    np.testing.assert_array_equal(features(model, images), features(trained, images))


def test_an_export_gives_all_its_weights_at_another_output_stride_too(earlier):
    trained, path = earlier
    model = network(normalization="dataset", output_stride=8)
    report = load_initial_weights(model, str(path), label_names=NAMES)
    assert str(report) == (
        f"initial weights: {len(model.weights)} of {len(model.weights)} from {path}; "
        f"the classifier keeps 3 of 3 classes{NOTHING_RAN}"
    )
    assert_equal(weights(model), weights(trained))


def test_classes_of_the_same_name_keep_their_rows(earlier):
    trained, path = earlier
    names = ("tree", "car", "sky", "pole")
    model = network(4, normalization="dataset")
    fresh = model.classifier.get_weights()
    report = load_initial_weights(model, str(path), label_names=names)
    assert report.loaded == report.total
    assert (report.kept_classes, report.new_classes) == (("tree", "sky"), ("car", "pole"))
    assert str(report).endswith(
        f"; the classifier keeps 2 of 4 classes and starts from random weights for car, pole{NOTHING_RAN}"
    )
    for ours, old, new in zip(model.classifier.get_weights(), trained.classifier.get_weights(), fresh, strict=True):
        np.testing.assert_array_equal(ours[..., [0, 2]], old[..., [2, 0]])
        np.testing.assert_array_equal(ours[..., [1, 3]], new[..., [1, 3]])


def test_as_many_classes_of_other_names_are_not_the_same_classes(earlier):
    _, path = earlier
    model = network(normalization="dataset")
    fresh = model.classifier.get_weights()
    report = load_initial_weights(model, str(path), label_names=("cat", "dog", "cow"))
    assert report.loaded == report.total - 2
    for ours, new in zip(model.classifier.get_weights(), fresh, strict=True):
        np.testing.assert_array_equal(ours, new)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"width": 0.5}, "weights do not fit the network: block_1_project/kernel: shape"),
        ({"decoder_channels": 16}, "weights do not fit the network: .*decoder.*shape"),
        ({"normalization": "backbone"}, "another configuration: .* such as normalization/mean"),
        ({"separable": False}, "another configuration"),
    ],
)
def test_an_export_of_another_configuration_is_refused(changes, match, earlier):
    refused(network(**{"normalization": "dataset", **changes}), earlier[1], ConfigError, match)


def test_a_damaged_export_is_refused(earlier, tmp_path):
    path = tmp_path / "damaged"
    shutil.copytree(earlier[1], path)
    data = next(path.glob("variables/*.data*"))
    data.write_bytes(data.read_bytes()[:1000])
    refused(network(normalization="dataset"), path, TrainingError, "damaged")


@pytest.fixture(scope="module")
def module(published, tmp_path_factory) -> Path:
    """A SavedModel of the published network."""
    path = tmp_path_factory.mktemp("module") / "mobilenet"
    published[0].export(path, verbose=False)
    return path


def test_a_module_of_tensorflow_hub_gives_the_features(module, published):
    model = network(output_stride=32)
    report = load_initial_weights(model, str(module), label_names=NAMES)
    assert report.loaded == len(model.backbone.weights)
    np.testing.assert_array_equal(
        model.backbone.get_layer("block_16_project_BN").gamma, published[0].get_layer("block_16_project_BN").gamma
    )


class Program(tf.saved_model.experimental.TrackableResource):
    """Writes a file whenever TensorFlow loads the SavedModel that it is in."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = str(path)

    def _create_resource(self):
        return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=())

    def _initialize(self):
        tf.io.write_file(self._file, "ran")


def test_nothing_of_a_saved_model_runs(published, tmp_path):
    reference, _ = published
    listed = [tf.Variable(weight.numpy(), name=weight.path) for weight in reference.weights]
    module = tf.train.Checkpoint(variables=listed, program=Program(tmp_path / "trace"))
    tf.saved_model.save(module, tmp_path / "module")
    assert not (tmp_path / "trace").exists()

    report = load_initial_weights(network(), str(tmp_path / "module"), label_names=NAMES)

    assert str(report).endswith(NOTHING_RAN)
    assert not (tmp_path / "trace").exists()
    tf.saved_model.load(str(tmp_path / "module"))
    assert (tmp_path / "trace").read_text() == "ran"


def test_a_module_without_the_backbones_weights_is_refused(module):
    model = network(backbone="mobilenet_v3_small", width=0.35)
    refused(model, module, ConfigError, f"of {len(model.backbone.weights)} weights do not fit .* conv/kernel: nothing")


def slim_name(layer: str, weight: str) -> str:
    """By hand: what TF-Slim calls a weight that keras.applications calls `layer`/`weight`."""
    kernel = "depthwise_weights" if layer.endswith("depthwise") else "weights"
    name = kernel if weight == "kernel" else f"BatchNorm/{weight}"
    if "Conv" in layer:
        return f"MobilenetV2/{'Conv_1' if layer.startswith('Conv_1') else 'Conv'}/{name}"
    unit, part = layer.removesuffix("_BN").rsplit("_", 1)
    return f"MobilenetV2/{unit.replace('block_', 'expanded_conv_')}/{part}/{name}"


def write_tensorflow_2(variables: dict[str, np.ndarray], path: Path) -> None:
    listed = [tf.Variable(value, name=name) for name, value in variables.items()]
    tf.saved_model.save(tf.train.Checkpoint(variables=listed), path)


def write_tensorflow_1(variables: dict[str, np.ndarray], path: Path) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, value in variables.items():
            tf.compat.v1.get_variable(name, initializer=value)
        session.run(tf.compat.v1.global_variables_initializer())
        builder = tf.compat.v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, [])
        builder.save()


@pytest.mark.parametrize("write", [write_tensorflow_2, write_tensorflow_1])
def test_the_names_of_slim_are_understood(write, published, tmp_path):
    assert slim_name("block_3_depthwise_BN", "gamma") == "MobilenetV2/expanded_conv_3/depthwise/BatchNorm/gamma"
    assert slim_name("expanded_conv_project", "kernel") == "MobilenetV2/expanded_conv/project/weights"
    assert slim_name("bn_Conv1", "beta") == "MobilenetV2/Conv/BatchNorm/beta"
    reference, _ = published
    model = network()
    weights = [(layer, weight) for layer in reference.layers for weight in layer.weights]
    write({slim_name(layer.name, weight.name): weight.numpy() for layer, weight in weights}, tmp_path / "slim")
    load_initial_weights(model, str(tmp_path / "slim"), label_names=NAMES)
    for layer in model.backbone.layers[1:]:
        for ours, theirs in zip(layer.get_weights(), reference.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.fixture
def hub(module, tmp_path) -> Iterator[str]:
    """A server that gives the module as TensorFlow Hub does."""
    with tarfile.open(tmp_path / "module", "w:gz") as archive:
        archive.add(module, arcname=".")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/module"
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("keras_home")
def test_a_module_is_downloaded_from_its_url(hub, published):
    model = network()
    load_initial_weights(model, hub, label_names=NAMES)
    np.testing.assert_array_equal(model.backbone.get_layer("Conv1").kernel, published[0].get_layer("Conv1").kernel)
