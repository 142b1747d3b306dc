"""TensorFlow Hub: the network, or its backbone alone, as a reusable SavedModel for other TensorFlow programs.

The interface that `hub.load` returns and `hub.KerasLayer` wraps (tensorflow.org/hub/reusable_saved_models), with images
as in Hub's common signatures:

==================================  ====================================================================================
`__call__(images, training=False)`    images: float32 (batch, height, width, 3) RGB in [0, 1], of any size
`variables`, `trainable_variables`    float32, and the states of random generators
`regularization_losses`               none
==================================  ====================================================================================

==================================  ====================================================================================
module                              what it returns
==================================  ====================================================================================
`segmenter`                           logits, float32 (batch, height, width, classes)
`feature_extractor`                   what the head reads, float32 (batch, rows, columns, channels): {"last": at the
                                    output stride}, and "finer", at stride 4 or 8, where the head has a decoder
==================================  ====================================================================================

It predicts an image whole and once, at the output stride of `InferenceConfig`: windows, scales and mirroring are left
out, and so is the shrinking of `PreprocessConfig`. `weights` and the files in `assets` are those of
`models.export.saved_model`, from which `models.weights.initial_weights` reads; a feature extractor has no label map.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from data.config import PreprocessConfig
from data.labels import LabelMap
from data.section import Section
from models.config import HubModule, InferenceConfig
from models.export.saved_model import LABEL_MAP_FILE, MODEL_FILE, ExportedModel, asset_files
from models.network.deeplab import DeepLabV3Plus
from models.network.heads import upsample

_IMAGES = tf.TensorSpec((None, None, None, 3), tf.float32, name="images")


class ReusableModel(tf.train.Checkpoint):
    """The object that is saved.

    Args:
        answer: function from images in [0, 255] and `training` to what the module returns.
        layers: layers that the function uses.
        files: paths of the files for the folder `assets`.
    """

    def __init__(self, answer: Callable[..., Any], layers: Sequence[keras.layers.Layer], files: Sequence[Path]) -> None:
        super().__init__()
        weights = [weight for layer in layers for weight in layer.weights]
        # The states of random generators are variables, but not weights.
        variables = {id(variable): variable for layer in layers for variable in (*layer.weights, *layer.variables)}
        self.weights = [weight.value for weight in weights]
        self.variables = [variable.value for variable in variables.values()]
        self.trainable_variables = [weight.value for weight in weights if weight.trainable]
        self.regularization_losses: list[Any] = []
        self.files = [tf.saved_model.Asset(str(file)) for file in files]
        self._answer = answer
        for training in (False, True):
            self.__call__.get_concrete_function(_IMAGES, training=training)

    @tf.function
    def __call__(self, images: tf.Tensor, training: bool = False) -> Any:
        return self._answer(255.0 * images, training=training)


def export_hub_module(
    network: DeepLabV3Plus,
    module: HubModule,
    path: str | os.PathLike[str],
    *,
    label_map: LabelMap,
    preprocess: PreprocessConfig,
) -> None:
    """Writes a module of TensorFlow Hub.

    Args:
        network: trained network, float32.
        module: kind of module.
        path: folder to write, anywhere that `tf.io.gfile` reaches.
        label_map: the classes.
        preprocess: preprocessing of the images in training.
    """
    segments = module == "segmenter"
    layers = [network] if segments else network.feature_layers
    description = ExportedModel(
        model=network.config,
        preprocess=preprocess,
        inference=InferenceConfig(),
        weights=tuple(weight.path for layer in layers for weight in layer.weights),
    )
    assets: dict[str, Section] = {MODEL_FILE: description, **({LABEL_MAP_FILE: label_map} if segments else {})}
    # A bound method: the network itself would be tracked and saved once more.
    answer = network.__call__ if segments else network.features
    with asset_files(assets) as files:
        model = ReusableModel(answer, layers, files)
        tf.saved_model.save(model, os.fspath(path))


class HubSegmenter:
    """A module that `export_hub_module` wrote, loaded again.

    Args:
        path: folder of the module.
        module: kind of module.
        network: network whose head classifies the features of a feature extractor.
    """

    def __init__(self, path: str | os.PathLike[str], module: HubModule, network: DeepLabV3Plus) -> None:
        self._module = tf.saved_model.load(os.fspath(path))
        self._segments = module == "segmenter"
        self._network = network

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Segments an image.

        Args:
            pixels: (height, width, 3) uint8 RGB.

        Returns:
            Class ids, (height, width) uint8.
        """
        images = tf.image.convert_image_dtype(pixels[None], tf.float32)
        answer = self._module(images)
        if not self._segments:
            align_corners = self._network.config.resize == "align_corners"
            answer = upsample(self._network.classify(answer), images, align_corners)
        class_ids: np.ndarray = tf.argmax(answer[0], axis=-1).numpy().astype(np.uint8)
        return class_ids
