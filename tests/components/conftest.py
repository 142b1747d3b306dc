"""What the tests of the components share: a tiny dataset, its examples, and a tiny model, each made once."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tfx  # noqa: F401  # before anything else of its family
from tfx.dsl.components.base import base_beam_executor
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.artifact import Artifact
from tfx.types.channel import Channel
from tfx.utils import path_utils

from components.artifacts import HIGHEST_PUSHED, INFRA_BLESSED, REASON, SERVED_VERSION
from components.config import PushConfig
from components.drivers import StateDriver
from components.ingest.example_gen import ImageExampleGen
from components.publishing.directory import served
from components.publishing.pusher import ModelPusher
from components.storage.file_systems import file_system
from components.storage.trees import copy_tree
from data.config import PreprocessConfig
from data.dataset import DataConfig, open_dataset, resolve_label_map
from data.labels import LabelMap
from data.synthetic import write_dataset
from models.config import ModelConfig
from models.export.saved_model import export_saved_model
from models.network.deeplab import DeepLabV3Plus, build_model

TINY = ModelConfig(width=0.35, aspp_channels=8, decoder_channels=8, low_level_channels=4, batch_norm_momentum=0.0)

#: Saves a model of the tiny kind as a Model artifact; see `make_model`.
MakeModel = Callable[..., Artifact]


def artifact(kind: type[Artifact], folder: Path) -> Artifact:
    """An output artifact that lies in a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    made = kind()
    made.uri = str(folder)
    return made


def channel(made: Artifact) -> Channel:
    """What a component is given in a pipeline, with the artifact in it."""
    return Channel(type=type(made)).set_artifacts([made])


def run_node(
    node: BaseComponent, folder: Path, beam_arguments: Sequence[str] = ("--runner=FnApiRunner",)
) -> dict[str, Artifact]:
    """Runs driver and executor of a component whose inputs come from `channel`; its outputs lie below `folder`."""
    outputs = {key: [artifact(kind.type, folder / key)] for key, kind in node.outputs.items()}
    inputs = {key: list(kind.get()) for key, kind in node.inputs.items()}
    properties = dict(node.exec_properties)
    if issubclass(node.DRIVER_CLASS, StateDriver):
        properties |= node.DRIVER_CLASS(None).state(properties)
    executor = node.EXECUTOR_SPEC.executor_class
    if issubclass(executor, base_beam_executor.BaseBeamExecutor):
        context = executor.Context(beam_pipeline_args=list(beam_arguments), tmp_dir=str(folder / "tmp"), unique_id="1")
    else:
        context = executor.Context(tmp_dir=str(folder / "tmp"), unique_id="1")
    executor(context).Do(inputs, outputs, properties)
    return {key: value for key, (value,) in outputs.items()}


def run_pusher(
    model: Artifact,
    examples: Artifact,
    labels: LabelMap,
    folder: Path,
    *,
    blessed: bool = True,
    infra_reason: str = "",
    config: PushConfig = PushConfig(model_name="tiny", warmup_requests=0),  # noqa: B008
    highest: int = 0,
    compared_with: int | None = None,
    **targets: Artifact,
) -> Artifact:
    """Runs ModelPusher on a model, with what was made of it for other targets; its PushedModel.

    `highest` is the highest version that was pushed before, and `compared_with` the one that was served then (None: the
    one that is served now), as ServedModel records them.
    """
    copy = artifact(standard_artifacts.Model, folder / "served")
    copy.set_int_custom_property(HIGHEST_PUSHED, highest)
    if compared_with is None:
        now = served(str(folder / "serving/tiny"))
        compared_with = now.version if now else 0
    copy.set_int_custom_property(SERVED_VERSION, compared_with)
    blessing = artifact(standard_artifacts.ModelBlessing, folder / "blessing")
    blessing.set_int_custom_property("blessed", int(blessed))
    infra = artifact(standard_artifacts.InfraBlessing, folder / "infra")
    infra.set_int_custom_property(INFRA_BLESSED, int(not infra_reason))
    infra.set_string_custom_property(REASON, infra_reason)
    node = ModelPusher(
        model=channel(model),
        examples=channel(examples),
        blessing=channel(blessing),
        infra_blessing=channel(infra),
        served_model=channel(copy),
        **{name: channel(made) for name, made in targets.items()},
        serving_dir=str(folder / "serving/tiny"),
        config=config,
        label_map=labels,
    )
    return run_node(node, folder / "pushed")["pushed_model"]


def push(model: Artifact, examples: Artifact, labels: LabelMap, folder: Path, **targets: Artifact) -> Path:
    """Pushes a model with what was made of it for other targets; the version's folder."""
    run_pusher(model, examples, labels, folder, **targets)
    version = served(str(folder / "serving/tiny"))
    assert version is not None
    return Path(version.path)


def generate(config: DataConfig, folder: Path) -> tuple[Artifact, Artifact]:
    """Runs ExampleGen; its examples and its quarantine."""
    outputs = run_node(ImageExampleGen(config), folder)
    return outputs["examples"], outputs["quarantine"]


def resolved(path: Path | str, **settings: Any) -> DataConfig:
    """A configuration whose layout and label map are filled in from the dataset."""
    config = DataConfig(path=str(path), **settings)
    layout = open_dataset(config, file_system(config.path))
    return config.model_copy(update={"layout": layout.name, "label_map": resolve_label_map(config, layout)})


def read_split(examples: Artifact, split: str) -> list[bytes]:
    """The serialized examples of a split."""
    files = sorted(Path(artifact_utils.get_split_uri([examples], split)).iterdir())
    return list(tf.data.TFRecordDataset([str(f) for f in files], compression_type="GZIP").as_numpy_iterator())


def write_examples(folder: Path, splits: dict[str, list[bytes]]) -> Artifact:
    """An Examples artifact with the given records."""
    made = artifact(standard_artifacts.Examples, folder)
    made.split_names = artifact_utils.encode_split_names(list(splits))
    for split, records in splits.items():
        path = Path(artifact_utils.get_split_uri([made], split), "examples-00000-of-00001.gz")
        path.parent.mkdir()
        with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
            for record in records:
                writer.write(record)
    return made


def changed(serialized: bytes, **values: bytes) -> bytes:
    """An example with other values in some of its byte columns."""
    example = tf.train.Example.FromString(serialized)
    for name, value in values.items():
        example.features.feature[name].bytes_list.value[:] = [value]
    return example.SerializeToString()


def columns(serialized: bytes) -> dict[str, Any]:
    """The columns of one example, each of which has one value."""
    features = tf.train.Example.FromString(serialized).features.feature
    lists = {name: getattr(feature, feature.WhichOneof("kind")).value for name, feature in features.items()}
    assert all(len(values) == 1 for values in lists.values())
    return {name: values[0] for name, values in lists.items()}


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 train, 3 val and 4 test images of the sample dataset."""
    return write_dataset(tmp_path_factory.mktemp("data") / "sample", num_train=8, num_val=3, num_test=4)


@pytest.fixture(scope="session")
def labels(dataset: Path) -> LabelMap:
    """The label map of `dataset`."""
    label_map = resolved(dataset).label_map
    assert label_map is not None
    return label_map


@pytest.fixture(scope="session")
def examples(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The examples of `dataset`."""
    return generate(resolved(dataset), tmp_path_factory.mktemp("examples"))[0]


def random_model(num_classes: int, seed: int) -> DeepLabV3Plus:
    """A network whose random classes vary over an image."""
    keras.utils.set_random_seed(seed)
    model = build_model(TINY, num_classes, mean=[120, 110, 100], variance=[3000, 2900, 3100])
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 8, 8, 3), np.uint8)
    # With momentum 0 the moving statistics are at once those of a batch, and no signal fades on its way.
    model(blocks.repeat(8, axis=1).repeat(8, axis=2), training=True)
    model.classifier.kernel.assign(model.classifier.kernel * 100.0)
    return model


@pytest.fixture(scope="session")
def make_model(labels: LabelMap, tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """Gives Model artifacts with random weights; `seed` chooses them, `constant` lets one class win everywhere."""

    def make(seed: int = 0, constant: int | None = None, preprocess: PreprocessConfig | None = None) -> Artifact:
        made = artifact(standard_artifacts.Model, tmp_path_factory.mktemp("model"))
        model = random_model(labels.num_classes, seed)
        if constant is not None:
            model.classifier.bias.assign(1e6 * np.eye(labels.num_classes)[constant])
        path = path_utils.serving_model_dir(made.uri)
        export_saved_model(model, path, label_map=labels, preprocess=preprocess or PreprocessConfig())
        return made

    return make


@pytest.fixture(scope="session")
def model(make_model: MakeModel) -> Artifact:
    """A model with random weights. Tests read it only."""
    return make_model()


def saved_model(of: Artifact) -> str:
    """The SavedModel of a Model artifact."""
    return str(path_utils.serving_model_dir(of.uri))


def copy_model(of: Artifact, folder: Path) -> Artifact:
    """A Model artifact with the same content, which a test may damage."""
    made = artifact(standard_artifacts.Model, folder)
    copy_tree(of.uri, made.uri)
    return made
