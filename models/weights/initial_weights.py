"""The weights that training starts from: random ones, published ones, or those of an earlier network of this project.

=========================  =========================================  ==========================================
`initial_weights`          what it names                              what is loaded
=========================  =========================================  ==========================================
`random`                   nothing                                    nothing
`imagenet`                 keras.applications, downloaded by Keras    every weight of the backbone
`FILE.weights.h5`, `.h5`   a file of this network                     every weight; other class count: no classifier
                           a file of keras.applications               every weight of the backbone
a folder or URL            a SavedModel that this project exported,   every weight; of the classifier, the classes
                           a segmenter for TensorFlow Hub too         whose names both have
                           a feature extractor that it exported       every weight of the backbone, and the
                                                                      statistics by which pixels are normalised
                           another SavedModel or TensorFlow Hub       every weight of the backbone
=========================  =========================================  ==========================================

A source that lacks a weight, or has it in another shape, is refused as a whole, and the network stays as it was.
"""

import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import h5py  # type: ignore[import-untyped]
import keras
import numpy as np
import tensorflow as tf

from data.errors import ConfigError, ProjectError, TrainingError
from models.config import WIDTHS, ModelConfig
from models.export.saved_model import MODEL_FILE, float32_policy, load_description, load_label_map
from models.network.deeplab import DeepLabV3Plus, build_model
from models.weights.saved_weights import Weights, download_module, exported_weights, listed_variables

_MOBILENET_V3_WIDTHS = (0.75, 1.0)


@dataclass(frozen=True)
class PretrainedSource:
    """A network of keras.applications whose layers have the same names as those of a backbone."""

    build: Callable[..., keras.Model]
    widths: tuple[float, ...] = (1.0,)
    """Width multipliers for which there are ImageNet weights."""


PRETRAINED: Mapping[str, PretrainedSource] = {
    "mobilenet_v2": PretrainedSource(keras.applications.MobileNetV2, (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)),
    "mobilenet_v3_small": PretrainedSource(keras.applications.MobileNetV3Small, _MOBILENET_V3_WIDTHS),
    "mobilenet_v3_large": PretrainedSource(keras.applications.MobileNetV3Large, _MOBILENET_V3_WIDTHS),
    "resnet50": PretrainedSource(keras.applications.ResNet50),
    "resnet101": PretrainedSource(keras.applications.ResNet101),
    "convnext_tiny": PretrainedSource(keras.applications.ConvNeXtTiny),
}

#: Paths in the MobileNetV2 of TF-Slim, whose weights TensorFlow Hub publishes.
_SLIM_MOBILENET_V2 = re.compile(
    r"MobilenetV2/(?:Conv|expanded_conv(?P<block>_\d+)?/(?P<part>expand|depthwise|project))"
    r"/(?P<norm>BatchNorm/)?(?P<weight>\w+)$"
)


@dataclass(frozen=True)
class InitialWeights:
    """The result of loading. As a text it is one line for people."""

    source: str
    loaded: int
    """Number of the network's weights with values from the source; the classifier's count if it keeps any class."""
    total: int
    """Number of the network's weights."""
    kept_classes: tuple[str, ...] = ()
    """Classes whose rows of the classifier were taken from an earlier network of this project."""
    new_classes: tuple[str, ...] = ()
    """Classes that an earlier network of this project did not have, whose rows of the classifier stay random."""
    saved_model: bool = False
    """Whether the source is a SavedModel, of this project or any other."""

    def __str__(self) -> str:
        text = f"initial weights: {self.loaded} of {self.total} from {self.source}"
        classes = len(self.kept_classes) + len(self.new_classes)
        if classes:
            text += f"; the classifier keeps {len(self.kept_classes)} of {classes} classes"
        if self.new_classes:
            text += f" and starts from random weights for {', '.join(self.new_classes)}"
        if self.saved_model:
            text += "; a SavedModel is a program: its weights alone were read, and nothing of it ran"
        return text


def load_initial_weights(model: DeepLabV3Plus, source: str, *, label_names: Sequence[str]) -> InitialWeights:
    """Sets the weights that training starts from.

    Published weights need the normalisation of their own training, `normalization: backbone`. An earlier network of
    this project brings along the statistics by which it normalised pixels.

    Args:
        model: built network; changed in place.
        source: `TrainingConfig.initial_weights`. Paths may be anywhere that `tf.io.gfile` reaches.
        label_names: class names of the network, in the order of the class ids.

    Raises:
        ConfigError: the source does not exist, or does not fit the network.
        TrainingError: the source is damaged or cannot be downloaded.
    """
    if source == "random":
        return InitialWeights(source, 0, len(model.weights))
    try:
        if source == "imagenet":
            return _load_backbone(model, source, partial(_download_published, model.config))
        if source.endswith(".h5"):
            return _load_file(model, source, label_names)
        return _load_saved_model(model, source, label_names)
    except ProjectError as error:
        raise type(error)(f"initial_weights {source!r}: {error}") from error.__cause__
    except tf.errors.OpError as error:
        raise TrainingError(f"initial_weights {source!r} cannot be read: {error.message}") from error


def load_network(path: str | os.PathLike[str]) -> DeepLabV3Plus:
    """The network inside a SavedModel that this project exported, float32, at the output stride of its predictions.

    Raises:
        WorkspaceError: the folder does not hold such a model.
    """
    description, labels = load_description(path), load_label_map(path)
    stride = description.inference.output_stride or description.model.output_stride
    with float32_policy():
        network = build_model(description.model.model_copy(update={"output_stride": stride}), labels.num_classes)
    load_initial_weights(network, os.fspath(path), label_names=labels.names)
    return network


def _published(config: ModelConfig) -> PretrainedSource:
    if config.backbone not in PRETRAINED:
        raise ConfigError(
            f"keras.applications has no network whose weights fit backbone {config.backbone!r}; it has one for "
            f"{', '.join(PRETRAINED)}; allowed besides: 'random', and a .weights.h5 file or SavedModel of this network"
        )
    return PRETRAINED[config.backbone]


def _build_published(config: ModelConfig, weights: str | None) -> keras.Model:
    """The network of keras.applications; `weights` is "imagenet" or None."""
    width = {"alpha": config.width} if config.backbone in WIDTHS else {}
    return _published(config).build(include_top=False, weights=weights, input_shape=(224, 224, 3), **width)


def _download_published(config: ModelConfig) -> Weights:
    published = _published(config)
    if config.width not in published.widths:
        allowed = ", ".join(map(str, published.widths))
        raise ConfigError(f"{config.backbone} has no such weights at width {config.width}; allowed widths: {allowed}")
    try:
        return _weights_of(_build_published(config, "imagenet"))
    except Exception as error:
        raise TrainingError(
            f"the weights of {config.backbone} cannot be downloaded ({error}). Without a network, give initial_weights "
            f"a file of keras.applications.{published.build.__name__}(include_top=False), .weights.h5 or .h5"
        ) from error


def _weights_of(network: keras.Model) -> Weights:
    return {weight.path: keras.ops.convert_to_numpy(weight) for weight in network.weights}


@contextmanager
def _local(path: str) -> Iterator[str]:
    """A context with the path of the file itself or, if it is remote, of a temporary local copy."""
    if not tf.io.gfile.exists(path):
        raise ConfigError("there is no such file")
    if os.path.exists(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, os.path.basename(path))
        tf.io.gfile.copy(path, copy)
        yield copy


def _read(network: keras.Model, path: str) -> Weights:
    """The weights of a network, from a file of exactly this network.

    Raises:
        ValueError: the file belongs to another network.
    """
    # Keras skips some of what a file lacks and says so in a warning, at times without need.
    network.set_weights([np.full(weight.shape, np.nan, weight.dtype) for weight in network.weights])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Skipping nested container", UserWarning)
        network.load_weights(path)
    weights = _weights_of(network)
    if missing := [name for name, array in weights.items() if np.all(np.isnan(array))]:
        raise ValueError(f"it lacks {len(missing)} of {len(weights)} weights, such as {missing[0]}")
    return weights


def _load_file(model: DeepLabV3Plus, source: str, label_names: Sequence[str]) -> InitialWeights:
    with _local(source) as path:
        try:
            with h5py.File(path) as file:
                classes = file["classifier/vars/0"].shape[-1] if "backbone" in file else None
            if classes is None:
                network = partial(_build_published, model.config, None)
                return _load_backbone(model, source, lambda: _read(network(), path))
            weights = _read(type(model).from_config({**model.get_config(), "num_classes": classes}), path)
        except (OSError, RuntimeError) as error:
            raise TrainingError(f"the file is damaged or not in HDF5 format ({error})") from error
        except (ValueError, KeyError) as error:
            raise ConfigError(
                f"the file holds neither this network (of the same configuration) nor that of keras.applications for "
                f"backbone {model.config.backbone!r} and width {model.config.width}, made with include_top=False: "
                f"{str(error).splitlines()[0]}"
            ) from error
    # The file does not name its classes: where their number is the same, they are taken for the same classes.
    known = label_names if classes == model.num_classes else ()
    return _load_network(model, source, label_names, weights, known)


def _load_saved_model(model: DeepLabV3Plus, source: str, label_names: Sequence[str]) -> InitialWeights:
    folder = source if tf.io.gfile.isdir(source) else download_module(source)
    if not tf.saved_model.contains_saved_model(folder):
        raise ConfigError(f"folder {folder} does not hold a SavedModel; allowed: a folder with a saved_model.pb")
    ours = tf.io.gfile.exists(os.path.join(folder, "assets", MODEL_FILE))
    try:
        weights = exported_weights(folder) if ours else dict(listed_variables(folder, "variables"))
    except Exception as error:
        raise TrainingError(f"the SavedModel is damaged ({error})") from error
    if not ours:
        loaded = _load_backbone(model, source, lambda: weights)
    elif model.classifier.kernel.path not in weights:
        extractor = [weight for layer in model.feature_layers for weight in layer.weights]
        _assign(extractor, _placed(weights, extractor))
        loaded = InitialWeights(source, len(extractor), len(model.weights))
    else:
        loaded = _load_network(model, source, label_names, weights, load_label_map(folder).names)
    return replace(loaded, saved_model=True)


def _by_layer(weights: Weights) -> dict[str, dict[str, np.ndarray]]:
    """Layer name -> weight name -> value."""
    layers: dict[str, dict[str, np.ndarray]] = {}
    for path, array in weights.items():
        _, layer, name = f"//{_keras_path(path)}".rsplit("/", 2)
        layers.setdefault(layer, {})[name] = array
    return layers


def _keras_path(path: str) -> str:
    """The path in keras.applications of a weight of TF-Slim's MobileNetV2; any other path stays as it is."""
    match = _SLIM_MOBILENET_V2.search(path)
    if not match:
        return path
    block, part, norm, weight = match.groups()
    if part is None:
        return f"{'bn_Conv1' if norm else 'Conv1'}/{weight}"
    return f"{f'block{block}' if block else 'expanded_conv'}_{part}{'_BN' if norm else ''}/{weight}"


def _load_backbone(model: DeepLabV3Plus, source: str, read: Callable[[], Weights]) -> InitialWeights:
    """Copies the weights of a published network, which `read` returns, by layer name and weight name."""
    if model.config.normalization != "backbone":
        raise ConfigError(
            f"published weights need model.normalization 'backbone', not {model.config.normalization!r}: they were "
            "trained on pixels that were normalised in that way"
        )
    theirs = _by_layer(read())
    ours: dict[str, list[keras.Variable]] = {}
    for weight in model.backbone.weights:
        ours.setdefault(weight.path.split("/")[-2], []).append(weight)
    values = {}
    for layer, variables in ours.items():
        values.update({weight.path: _value(weight, theirs.get(layer, {}), len(variables)) for weight in variables})
    _assign(model.backbone.weights, values)
    return InitialWeights(source, len(values), len(model.weights))


def _value(weight: keras.Variable, arrays: Mapping[str, np.ndarray], count: int) -> np.ndarray | None:
    """The array for one of a layer's `count` weights; a layer's only weight is taken whatever its name."""
    array = next(iter(arrays.values())) if count == len(arrays) == 1 else arrays.get(weight.name)
    shape = tuple(weight.shape)
    if array is not None and shape[3:] == (1,) and array.shape[2:] == (1, shape[2]):
        # ConvNeXt's depthwise convolutions are grouped ones in keras.applications.
        return np.swapaxes(array, 2, 3)
    return array


def _placed(weights: Weights, variables: Sequence[keras.Variable]) -> dict[str, np.ndarray | None]:
    """The value for each weight of a network of this project, by its path.

    Raises:
        ConfigError: some values do not belong to any weight.
    """
    if extra := sorted(weights.keys() - {weight.path for weight in variables}):
        raise ConfigError(
            f"it belongs to a network with another configuration: {len(extra)} of its weights have no place in this "
            f"one, such as {extra[0]}"
        )
    return {weight.path: weights.get(weight.path) for weight in variables}


def _load_network(
    model: DeepLabV3Plus, source: str, label_names: Sequence[str], weights: Weights, known_names: Sequence[str]
) -> InitialWeights:
    """Copies the weights of a whole network, but of its classifier only the rows of the classes that both have."""
    values = _placed(weights, model.weights)
    kept = tuple(name for name in label_names if name in known_names)
    rows = [(label_names.index(name), known_names.index(name)) for name in kept]
    for weight in model.classifier.weights:
        values[weight.path] = _with_rows(weight, values[weight.path], rows)
    _assign(model.weights, values)
    loaded = len(values) - (0 if kept else len(model.classifier.weights))
    new = tuple(name for name in label_names if name not in kept)
    return InitialWeights(source, loaded, len(values), kept, new)


def _with_rows(weight: keras.Variable, array: np.ndarray | None, rows: Sequence[tuple[int, int]]) -> np.ndarray | None:
    """The classifier's weight with the rows (ours, theirs) of `array`; `array` itself if its other sides differ."""
    value = np.array(keras.ops.convert_to_numpy(weight))
    if array is None or array.shape[:-1] != value.shape[:-1]:
        return array
    for ours, theirs in rows:
        value[..., ours] = array[..., theirs]
    return value


def _assign(weights: Sequence[keras.Variable], values: Mapping[str, np.ndarray | None]) -> None:
    """Sets all weights by their paths, or none.

    Raises:
        ConfigError: a value is missing or has another shape.
        TrainingError: a value is not finite.
    """
    wrong = []
    for weight in weights:
        value = values[weight.path]
        if value is None or value.shape != tuple(weight.shape):
            found = "nothing" if value is None else f"shape {value.shape}"
            wrong.append(f"{weight.path}: {found} instead of shape {tuple(weight.shape)}")
        elif not np.all(np.isfinite(value)):
            raise TrainingError(f"weight {weight.path} has values that are not finite")
    if wrong:
        raise ConfigError(f"{len(wrong)} of {len(weights)} weights do not fit the network: {'; '.join(wrong[:3])}")
    for weight in weights:
        weight.assign(values[weight.path])
