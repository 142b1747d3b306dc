"""The networks that `speed.py` compares, each with its own way to take a step of training."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from unittest.mock import patch

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from models.config import ModelConfig, TrainingConfig
from models.network.deeplab import build_model
from models.training.step import TrainStep

CLASSES = 21
#: Where the networks take this project's kernels from; a name that is no longer there is an error.
KERNELS = (
    ("models.network.backbones.blocks", "BatchNormalization"),
    ("models.network.backbones.blocks", "Conv2D"),
    ("models.network.backbones.blocks", "DepthwiseConv2D"),
    ("models.network.backbones.resnet", "Conv2D"),
    ("models.network.heads", "Conv2D"),
    ("models.network.heads", "DepthwiseConv2D"),
    ("models.network.deeplab", "Conv2D"),
)


@dataclass(frozen=True)
class Contender:
    """A network that is ready to be timed."""

    model: keras.Model
    """(batch, height, width, 3) pixels in [0, 255] to (batch, height, width, CLASSES) logits."""
    train: Callable[[tf.Tensor, tf.Tensor], object]
    """One update from (batch, height, width, 3) float32 images and (batch, height, width) uint8 masks."""


def this_project(backbone: str, batch: int) -> Contender:
    """The network and the step that the Trainer runs."""
    model = build_model(ModelConfig.model_validate({"backbone": backbone}), CLASSES)
    train_step = TrainStep(model, TrainingConfig(global_batch_size=batch), np.ones(CLASSES, np.float32))
    return Contender(model, lambda images, masks: train_step.run(images, masks)[0].numpy())


def plain_keras(backbone: str, batch: int) -> Contender:
    """The same network of Keras' own layers, trained by `train_on_batch` with Keras' own loss."""
    del batch
    with ExitStack() as stack:
        for module, name in KERNELS:
            stack.enter_context(patch(f"{module}.{name}", getattr(layers, name)))
        return _compiled(build_model(ModelConfig.model_validate({"backbone": backbone}), CLASSES))


def keras_hub(backbone: str, batch: int) -> Contender:
    """KerasHub's DeepLabV3+, trained by `train_on_batch`; it has ResNet-50 alone of the two, and only output stride 32.

    Its ASPP has plain convolutions, where that of the others is separable; its decoder is a single 1x1 convolution.
    """
    del batch, backbone
    from keras_hub.models import DeepLabV3Backbone, DeepLabV3ImageSegmenter, ResNetBackbone

    encoder = ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[3, 4, 6, 3],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="bottleneck_block",
    )
    network = DeepLabV3Backbone(
        image_encoder=encoder,
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P5",
        upsampling_size=8,
        dilation_rates=[6, 12, 18],
    )
    segmenter = DeepLabV3ImageSegmenter(backbone=network, num_classes=CLASSES, activation=None)
    # Its own `compile` adds a metric that does not take masks.
    return _compiled(keras.Model(segmenter.inputs, segmenter.outputs[0]))


def _compiled(model: keras.Model) -> Contender:
    model.compile(optimizer="adamw", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return Contender(model, model.train_on_batch)


#: The contender whose share of the peak is stated.
OURS = "this project"

CONTENDERS: Mapping[str, Callable[[str, int], Contender]] = {
    OURS: this_project,
    "plain Keras": plain_keras,
    "KerasHub": keras_hub,
}
