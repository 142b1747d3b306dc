"""The feature extractors of the DeepLab networks. A new one is a file and an entry in `BACKBONES`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import keras

from models.network.backbones import convnext, mobilenet_v2, mobilenet_v3, resnet, xception
from models.network.backbones.blocks import BatchNorm, symmetric


@dataclass(frozen=True)
class Backbone:
    """A feature extractor, as the heads need it."""

    build: Callable[[int, float, BatchNorm], keras.Model]
    """(output stride, width, batch normalisation) -> network that returns {stride: feature map}."""
    preprocess: Callable[[keras.KerasTensor], keras.KerasTensor]
    """Float RGB in [0, 255] to what the published weights expect."""
    epsilon: float
    """Epsilon of the published batch normalisation."""
    middle: str
    """The layer whose output, at stride 8, the head "lraspp" reads; the same as in research/deeplab where that has the
    network."""


def _mobilenet_v2(divisor: int) -> Backbone:
    return Backbone(partial(mobilenet_v2.build, divisor), symmetric, mobilenet_v2.EPSILON, "block_5_depthwise_relu")


def _mobilenet_v3(blocks: tuple[mobilenet_v3.Block, ...], low_level_block: int, middle_block: int) -> Backbone:
    return Backbone(
        partial(mobilenet_v3.build, blocks, low_level_block),
        symmetric,
        mobilenet_v3.EPSILON,
        f"expanded_conv_{middle_block}_depthwise_act",
    )


def _resnet(depth: int, beta: bool) -> Backbone:
    return Backbone(
        partial(resnet.build, depth, beta),
        symmetric if beta else resnet.preprocess,
        resnet.BETA_EPSILON if beta else resnet.EPSILON,
        "conv3_block3_3_bn",
    )


def _shallow_resnet(depth: int) -> Backbone:
    return Backbone(partial(resnet.build_shallow, depth), resnet.preprocess, resnet.BETA_EPSILON, "conv3_block2_2_bn")


def _xception(depth: int, middle_block: int) -> Backbone:
    return Backbone(
        partial(xception.build, depth),
        symmetric,
        xception.EPSILON,
        f"entry_flow_block{middle_block}_unit_1_separable_conv2_pointwise_norm",
    )


BACKBONES: Mapping[str, Backbone] = {
    "mobilenet_v2": _mobilenet_v2(divisor=8),
    "mobilenet_v2_seg": _mobilenet_v2(divisor=1),
    "mobilenet_v3_small": _mobilenet_v3(mobilenet_v3.SMALL, 0, 2),
    "mobilenet_v3_large": _mobilenet_v3(mobilenet_v3.LARGE, 2, 5),
    "mobilenet_v3_small_seg": _mobilenet_v3(mobilenet_v3.reduced(mobilenet_v3.SMALL), 0, 2),
    "mobilenet_v3_large_seg": _mobilenet_v3(mobilenet_v3.reduced(mobilenet_v3.LARGE), 2, 5),
    "resnet18": _shallow_resnet(18),
    "resnet34": _shallow_resnet(34),
    "resnet50": _resnet(50, beta=False),
    "resnet101": _resnet(101, beta=False),
    "resnet50_beta": _resnet(50, beta=True),
    "resnet101_beta": _resnet(101, beta=True),
    "xception41": _xception(41, 3),
    "xception65": _xception(65, 3),
    "xception71": _xception(71, 5),
    "convnext_tiny": Backbone(
        convnext.build, convnext.preprocess, convnext.EPSILON, "convnext_tiny_stage_1_block_2_add"
    ),
}


def build_backbone(
    name: str, *, output_stride: int, width: float = 1.0, momentum: float = 0.99, epsilon: float | None = None
) -> keras.Model:
    """A feature extractor with random weights, for any input size.

    Args:
        name: a key of `BACKBONES`.
        output_stride: ratio of the input's resolution to that of the last features: 8, 16 or 32.
        width: channel multiplier, within the backbone's `models.config.WIDTHS`.
        momentum: momentum of the moving averages of batch normalisation.
        epsilon: epsilon of batch normalisation; None takes that of the published network.

    Returns:
        A model from normalised float images (batch, height, width, 3) to a dict of the low-level and the last
        features: {4: (batch, ceil(height / 4), ceil(width / 4), c), output_stride: ...}.
    """
    backbone = BACKBONES[name]
    norm = BatchNorm(momentum, backbone.epsilon if epsilon is None else epsilon)
    return backbone.build(output_stride, width, norm)
