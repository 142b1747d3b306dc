"""LiteConverter: LiteRT models for phones and browsers, in each number format that keeps the accuracy.

Variant and SavedModel predict the same test images, resized to the one size that a LiteRT model takes, and are compared
with the labels resized alike. The SavedModel predicts with its signature `predict_pixels`, so what a variant leaves out
of the inference protocol (scales, windows, mirroring) counts as drop, too. A variant that drops too far, or that the
converter cannot make, is left out with its reason; it does not prevent the push of the model.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components.artifacts import LiteModels
from components.config import LiteConfig
from components.function_component import function_component
from components.ingest.sample_images import first_examples, test_examples
from components.storage.atomic import write_small
from components.targets.accuracy_check import Pair, Predict, compare_accuracy, saved_model_predictor, score
from components.targets.lite_record import LITE_RECORD_FILE, LiteClass, LiteModel, LiteRecord
from data.input import decode_example
from data.layouts.base import TRAIN
from data.masks import palette
from data.preprocess import resize_image, resize_mask
from models.config import LiteVariant
from models.export.lite import (
    INPUT_FILE,
    LABELS_FILE,
    LiteSegmenter,
    convert,
    describe_input,
    metadata_table,
    with_files,
    with_metadata,
)
from models.export.saved_model import CLASS_IDS, PIXELS, load_label_map
from models.network.deeplab import DeepLabV3Plus
from models.weights.initial_weights import load_network

#: The metadata are the same in every variant.
METADATA = metadata_table((PIXELS, CLASS_IDS), LABELS_FILE)

#: The page that runs the models in a browser; it lies beside them.
PAGE = Path(__file__).parent / "browser"


def fixed_pairs(serialized: Sequence[bytes], size: tuple[int, int]) -> list[Pair]:
    """Examples of ExampleGen, resized to (height, width)."""
    decoded = (decode_example(tf.constant(record)) for record in serialized)
    return [Pair(resize_image(image, size).numpy(), resize_mask(mask, size).numpy()) for image, mask in decoded]


def latency(predict: Predict, pairs: Sequence[Pair]) -> float:
    """Median time for one image in milliseconds; the model must have been warmed up."""
    seconds = []
    for pair in pairs:
        started = time.perf_counter()
        predict(pair.image)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds)) * 1000


class Converter:
    """Makes and evaluates the variants of one model.

    Args:
        saved_model: Folder of the SavedModel.
        calibration: (height, width, 3) uint8 images of the training split.
        pairs: Images and labels of the test split.
        config: Section `lite`.
    """

    def __init__(
        self, saved_model: str, calibration: Sequence[np.ndarray], pairs: Sequence[Pair], config: LiteConfig
    ) -> None:
        self._config = config
        self._pairs = pairs
        self._calibration = calibration
        self._labels = load_label_map(saved_model)
        self._network: DeepLabV3Plus = load_network(saved_model)
        self._expected = score(saved_model_predictor(saved_model), pairs, self._labels.num_classes)

    def record(self, models: Sequence[LiteModel]) -> LiteRecord:
        """The record of all variants."""
        return empty_record(self._labels.names, self._config).model_copy(
            update={"images": len(self._pairs), "saved_model_mean_iou": self._expected, "models": list(models)}
        )

    def make(self, variant: LiteVariant) -> tuple[LiteModel, bytes]:
        """One variant and the content of its file, which is empty if the variant could not be made."""
        size = (self._config.height, self._config.width)
        try:
            converted = with_metadata(convert(self._network, size, variant, self._calibration), METADATA)
            segmenter = LiteSegmenter(converted, self._config.threads)
            found = score(segmenter.predict, self._pairs, self._labels.num_classes)
        except (ConverterError, RuntimeError, ValueError) as error:
            first_line = (str(error).splitlines() or [type(error).__name__])[0]
            return LiteModel(variant=variant, file=None, reason=f"cannot be made: {first_line}"), b""
        files = {
            LABELS_FILE: "".join(f"{name}\n" for name in self._labels.names),
            INPUT_FILE: describe_input(self._network, size).model_dump_json(indent=2),
        }
        content = with_files(converted, files)
        check = compare_accuracy(found, self._expected, self._config.max_drop, "lite.max_drop")
        model = LiteModel(
            variant=variant,
            file=f"{variant}.tflite" if check.kept else None,
            reason=check.reason,
            mean_iou=check.mean_iou,
            drop=check.drop,
            milliseconds=round(latency(segmenter.predict, self._pairs), 2),
            size=len(content),
        )
        return model, content


def empty_record(names: Sequence[str], config: LiteConfig) -> LiteRecord:
    """A record without any variant."""
    classes = [LiteClass(name=name, color=color) for name, color in zip(names, palette(len(names)), strict=True)]
    return LiteRecord(height=config.height, width=config.width, classes=classes, threads=config.threads)


@function_component(files=PAGE)
def LiteConverter(
    model: InputArtifact[standard_artifacts.Model],
    examples: InputArtifact[standard_artifacts.Examples],
    lite: OutputArtifact[LiteModels],
    config: Parameter[str],
    code_hash: Parameter[str],
) -> None:
    """Makes the variants of section `lite`, whose JSON is `config`, and the browser page.

    It does not wait for the blessing: otherwise a second evaluation of the same model, against another served model,
    would make all of this again.
    """
    settings = LiteConfig.model_validate_json(config)
    size = (settings.height, settings.width)
    training = fixed_pairs(first_examples(examples, TRAIN, settings.calibration_images), size)
    pairs = fixed_pairs(test_examples(examples, settings.images), size)
    converter = Converter(path_utils.serving_model_dir(model.uri), [pair.image for pair in training], pairs, settings)
    made = [converter.make(variant) for variant in settings.variants]
    record = converter.record([variant for variant, _ in made])
    files = {variant.file: content for variant, content in made if variant.file}
    files |= {path.name: path.read_bytes() for path in PAGE.iterdir()}
    files[LITE_RECORD_FILE] = record.model_dump_json(indent=2).encode()
    for name, content in files.items():
        write_small(os.path.join(lite.uri, name), content)
