"""HubExporter: modules of TensorFlow Hub, each judged by what it answers once it is loaded again.

Module and SavedModel see the same images of the test split, at the size that the network was trained to see. A feature
extractor is judged with the network's own head on its features. The SavedModel answers by its signature
`predict_pixels`, so what a module leaves out of the inference protocol (scales, windows, mirroring) counts as drop. A
module that drops too far is left out with its reason; it does not keep the model from being pushed.
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
from components.publishing.directory import copy_tree
from components.storage.atomic import create
from components.storage.file_systems import file_system
from components.targets.accuracy_check import Pair, judge, saved_model_predictor, score
from components.targets.hub_record import RECORD_FILE, HubModel, HubRecord
from data.config import PreprocessConfig
from data.input import decode_example
from data.preprocess import shrink_image, shrink_mask
from models.config import HubModule
from models.export.hub import HubSegmenter, export_hub_module
from models.export.saved_model import load_description, load_label_map
from models.weights.initial_weights import load_network


def seen_pairs(serialized: Sequence[bytes], preprocess: PreprocessConfig) -> list[Pair]:
    """Examples as ExampleGen writes them, as the network was trained to see them."""
    decoded = (decode_example(tf.constant(record)) for record in serialized)
    return [
        Pair(shrink_image(image, preprocess).numpy(), shrink_mask(mask, preprocess).numpy()) for image, mask in decoded
    ]


class Exporter:
    """Makes and judges the modules of one model.

    Args:
        saved_model: its folder.
        serialized: examples of the test split.
        config: section `hub`.
    """

    def __init__(self, saved_model: str, serialized: Sequence[bytes], config: HubConfig) -> None:
        self._config = config
        self._labels = load_label_map(saved_model)
        self._preprocess = load_description(saved_model).preprocess
        self._network = load_network(saved_model)
        self._pairs = seen_pairs(serialized, self._preprocess)
        self._expected = score(saved_model_predictor(saved_model), self._pairs, self._labels.num_classes)

    def record(self, models: list[HubModel]) -> HubRecord:
        """What came of all modules."""
        return HubRecord(images=len(self._pairs), saved_model_mean_iou=self._expected, models=models)

    def make(self, module: HubModule, folder: str) -> HubModel:
        """One module, in a folder of its own below `folder` if it is good enough."""
        with tempfile.TemporaryDirectory() as made:
            export_hub_module(self._network, module, made, label_map=self._labels, preprocess=self._preprocess)
            segmenter = HubSegmenter(made, module, self._network)
            found = score(segmenter.predict, self._pairs, self._labels.num_classes)
            verdict = judge(found, self._expected, self._config.max_drop, "hub.max_drop")
            if verdict.kept:
                copy_tree(made, os.path.join(folder, module))
            size = sum(size for _, size, _ in file_system(made).stats(made))
        file = module if verdict.kept else None
        return HubModel(
            module=module, file=file, reason=verdict.reason, mean_iou=verdict.mean_iou, drop=verdict.drop, size=size
        )


@function_component()
def HubExporter(
    model: InputArtifact[standard_artifacts.Model],
    examples: InputArtifact[standard_artifacts.Examples],
    hub: OutputArtifact[HubModels],
    config: Parameter[str],
    code_hash: Parameter[str],
) -> None:
    """Makes the modules of section `hub`, whose JSON is `config`; like `LiteConverter` it waits for no blessing."""
    settings = HubConfig.model_validate_json(config)
    serialized = test_examples(examples, settings.images)
    exporter = Exporter(path_utils.serving_model_dir(model.uri), serialized, settings)
    record = exporter.record([exporter.make(module, hub.uri) for module in settings.modules])
    with create(os.path.join(hub.uri, RECORD_FILE)) as file:
        file.write(record.model_dump_json(indent=2).encode())
