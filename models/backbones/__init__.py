"""The feature extractors that DeepLabV3+ can stand on. A new one is a file and an entry in `BACKBONES`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras

from models.backbones import mobilenet_v2, resnet
from models.backbones.blocks import BatchNorm


@dataclass(frozen=True)
class Backbone:
    """What DeepLabV3+ needs to know of a feature extractor."""

    build: Callable[[int, float, BatchNorm], keras.Model]
    """(output stride, width, batch normalisation) -> network that returns {stride: feature map}."""
    preprocess: Callable[[keras.KerasTensor], keras.KerasTensor]
    """Float RGB in [0, 255] to what the published weights expect."""
    epsilon: float
    """Epsilon of the published batch normalisation."""


BACKBONES: Mapping[str, Backbone] = {
    "mobilenet_v2": Backbone(mobilenet_v2.build, mobilenet_v2.preprocess, mobilenet_v2.EPSILON),
    "resnet50": Backbone(resnet.build, resnet.preprocess, resnet.EPSILON),
}


def build_backbone(
    name: str, *, output_stride: int, width: float = 1.0, momentum: float = 0.99, epsilon: float | None = None
) -> keras.Model:
    """A feature extractor with random weights, for any input size.

    Args:
        name: a key of `BACKBONES`.
        output_stride: ratio of the input's resolution to that of the last features: 8, 16 or 32.
        width: channel multiplier, within the backbone's `models.config.WIDTHS`.
        momentum: of the moving averages of batch normalisation.
        epsilon: of batch normalisation; None takes that of the published network.

    Returns:
        A model from normalised float images (batch, height, width, 3) to a dict of the low-level and the last
        features: {4: (batch, ceil(height / 4), ceil(width / 4), c), output_stride: ...}.
    """
    backbone = BACKBONES[name]
    norm = BatchNorm(momentum, backbone.epsilon if epsilon is None else epsilon)
    return backbone.build(output_stride, width, norm)
