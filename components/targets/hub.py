"""HubExporter: TensorFlow Hub modules, each loaded again and compared with the SavedModel.

Module and SavedModel predict the same test images, at the size that the network was trained on. A feature extractor is
evaluated with the network's own head on its features. The SavedModel predicts with its signature `predict_pixels`, so
what a module leaves out of the inference protocol (scales, windows, mirroring) counts as drop. A module that drops too
far is left out with its reason; it does not prevent the push of the model.
"""

import os
import tempfile
from collections.abc import Sequence

import tensorflow as tf
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components.artifacts import HubModels
from components.config import HubConfig
from components.function_component import function_component
from components.ingest.sample_images import test_examples
from components.storage.atomic import write_small
from components.storage.file_systems import file_system
from components.storage.trees import copy_tree
from components.targets.accuracy_check import Pair, compare_accuracy, saved_model_predictor, score
from components.targets.hub_record import HUB_RECORD_FILE, HubModel, HubRecord
from data.config import PreprocessConfig
from data.input import decode_example
from data.preprocess import shrink_image, shrink_mask
from models.config import HubModule
from models.export.hub import HubSegmenter, export_hub_module
from models.export.saved_model import load_description, load_label_map
from models.weights.initial_weights import load_network


def preprocessed_pairs(serialized: Sequence[bytes], preprocess: PreprocessConfig) -> list[Pair]:
    """Examples of ExampleGen, preprocessed as in training."""
    decoded = (decode_example(tf.constant(record)) for record in serialized)
    return [
        Pair(shrink_image(image, preprocess).numpy(), shrink_mask(mask, preprocess).numpy()) for image, mask in decoded
    ]


class Exporter:
    """Makes and evaluates the modules of one model.

    Args:
        saved_model: Folder of the SavedModel.
        serialized: Examples of the test split.
        config: Section `hub`.
    """

    def __init__(self, saved_model: str, serialized: Sequence[bytes], config: HubConfig) -> None:
        self._config = config
        self._labels = load_label_map(saved_model)
        self._preprocess = load_description(saved_model).preprocess
        self._network = load_network(saved_model)
        self._pairs = preprocessed_pairs(serialized, self._preprocess)
        self._expected = score(saved_model_predictor(saved_model), self._pairs, self._labels.num_classes)

    def record(self, models: list[HubModel]) -> HubRecord:
        """The record of all modules."""
        return HubRecord(images=len(self._pairs), saved_model_mean_iou=self._expected, models=models)

    def make(self, module: HubModule, folder: str) -> HubModel:
        """Makes one module, and copies it to a folder of its own below `folder` if it is accurate enough."""
        with tempfile.TemporaryDirectory() as made:
            export_hub_module(self._network, module, made, label_map=self._labels, preprocess=self._preprocess)
            segmenter = HubSegmenter(made, module, self._network)
            found = score(segmenter.predict, self._pairs, self._labels.num_classes)
            check = compare_accuracy(found, self._expected, self._config.max_drop, "hub.max_drop")
            if check.kept:
                copy_tree(made, os.path.join(folder, module))
            size = sum(size for _, size, _ in file_system(made).stats(made))
        file = module if check.kept else None
        return HubModel(
            module=module, file=file, reason=check.reason, mean_iou=check.mean_iou, drop=check.drop, size=size
        )


@function_component()
def HubExporter(
    model: InputArtifact[standard_artifacts.Model],
    examples: InputArtifact[standard_artifacts.Examples],
    hub: OutputArtifact[HubModels],
    config: Parameter[str],
    code_hash: Parameter[str],
) -> None:
    """Makes the modules of section `hub`, whose JSON is `config`. Like `LiteConverter` it waits for no blessing."""
    settings = HubConfig.model_validate_json(config)
    serialized = test_examples(examples, settings.images)
    exporter = Exporter(path_utils.serving_model_dir(model.uri), serialized, settings)
    record = exporter.record([exporter.make(module, hub.uri) for module in settings.modules])
    write_small(os.path.join(hub.uri, HUB_RECORD_FILE), record.model_dump_json(indent=2).encode())
