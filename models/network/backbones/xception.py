"""The modified aligned Xception of DeepLabV3+ (arXiv 1802.02611, section 3.2 and figure 4) as a feature extractor.

It follows research/deeplab (core/xception.py): depthwise separable convolutions with a stride take the place of maximum
pooling, batch normalisation follows each depthwise and each pointwise convolution, and strided convolutions pad by the
kernel alone, the same on all sides, so that the features of every output stride lie on one grid. Layers bear that
code's scopes, with underscores; `keras.applications.Xception` is another network, and its weights do not fit.
"""

from dataclasses import dataclass

import keras
from keras import layers

from models.network.backbones.blocks import BatchNorm, atrous_schedule, truncated_normal
from models.network.kernels import Conv2D, DepthwiseConv2D

EPSILON = 1e-3


@dataclass(frozen=True)
class Block:
    """Three depthwise separable 3x3 convolutions, the last of which has the stride, and a shortcut around them."""

    name: str
    channels: tuple[int, int, int]
    shortcut: str
    """"conv": 1x1 convolution and normalisation; "sum": the input itself; "none"."""
    stride: int = 1
    low_level: bool = False
    """Whether the decoder reads the output of the second separable convolution, before its ReLU."""


def entry_flow(depth: int) -> list[Block]:
    """The blocks of the entry flow: three of stride 2, and in Xception-71 two more of stride 1."""
    plan = [(128, 2), (256, 2), (728, 2)]
    if depth == 71:
        plan = [(128, 2), (256, 1), (256, 2), (728, 1), (728, 2)]
    low_level = max(index for index, (channels, _) in enumerate(plan) if channels == 256)
    return [
        Block(f"entry_flow_block{index + 1}_unit_1", (channels,) * 3, "conv", stride, index == low_level)
        for index, (channels, stride) in enumerate(plan)
    ]


def blocks(depth: int) -> list[Block]:
    """Every block after the two convolutions of the root, for depth 41, 65 or 71."""
    middle = 8 if depth == 41 else 16
    return [
        *entry_flow(depth),
        *(Block(f"middle_flow_block1_unit_{index + 1}", (728, 728, 728), "sum") for index in range(middle)),
        Block("exit_flow_block1_unit_1", (728, 1024, 1024), "conv", stride=2),
        Block("exit_flow_block2_unit_1", (1536, 1536, 2048), "none"),
    ]


def _conv(
    x: keras.KerasTensor, channels: int, kernel: int, name: str, norm: BatchNorm, stride: int = 1
) -> keras.KerasTensor:
    """Convolution and normalisation."""
    if stride > 1 and kernel > 1:
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    x = Conv2D(
        channels,
        kernel,
        strides=stride,
        padding="valid" if stride > 1 else "same",
        use_bias=False,
        kernel_initializer=truncated_normal(0.09),
        name=name,
    )(x)
    return norm(f"{name}_norm")(x)


def _depthwise(x: keras.KerasTensor, name: str, norm: BatchNorm, stride: int, rate: int) -> keras.KerasTensor:
    """Depthwise 3x3 convolution and normalisation."""
    if stride > 1:
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    x = DepthwiseConv2D(
        3,
        strides=stride,
        dilation_rate=rate,
        padding="valid" if stride > 1 else "same",
        use_bias=False,
        depthwise_initializer=truncated_normal(0.09),
        name=name,
    )(x)
    return norm(f"{name}_norm")(x)


def _separable(
    x: keras.KerasTensor, channels: int, name: str, norm: BatchNorm, *, stride: int, rate: int, relu_after: bool
) -> keras.KerasTensor:
    """Depthwise separable convolution with a ReLU before it, or with one after each of its halves."""
    if not relu_after:
        x = layers.ReLU(name=f"{name}_relu")(x)
    x = _depthwise(x, f"{name}_depthwise", norm, stride, rate)
    if relu_after:
        x = layers.ReLU(name=f"{name}_depthwise_relu")(x)
    x = _conv(x, channels, 1, f"{name}_pointwise", norm)
    return layers.ReLU(name=f"{name}_pointwise_relu")(x) if relu_after else x


def _block(
    x: keras.KerasTensor, block: Block, stride: int, rate: int, norm: BatchNorm
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The output of the block's second separable convolution, and that of the block."""
    inputs = x
    outputs = []
    for index, channels in enumerate(block.channels, start=1):
        x = _separable(
            x,
            channels,
            f"{block.name}_separable_conv{index}",
            norm,
            stride=stride if index == 3 else 1,
            rate=rate,
            # The last block has no shortcut, and there the ReLU comes after.
            relu_after=block.shortcut == "none",
        )
        outputs.append(x)
    if block.shortcut == "conv":
        inputs = _conv(inputs, block.channels[-1], 1, f"{block.name}_shortcut", norm, stride)
    if block.shortcut != "none":
        x = layers.Add(name=f"{block.name}_add")([x, inputs])
    return outputs[1], x


def build(depth: int, output_stride: int, width: float, norm: BatchNorm) -> keras.Model:
    """The network from normalised images to {4: 256 low-level channels, output_stride: 2048 channels}.

    Args:
        depth: 41, 65 or 71 layers.
        output_stride: 8, 16 or 32.
        width: 1.0; the published network has no other.
        norm: batch normalisation of every layer.
    """
    del width
    plan = blocks(depth)
    schedule = atrous_schedule([block.stride for block in plan], output_stride, stem_stride=2)

    images = keras.Input((None, None, 3), name="normalized_images")
    x = layers.ReLU(name="entry_flow_conv1_1_relu")(_conv(images, 32, 3, "entry_flow_conv1_1", norm, stride=2))
    x = layers.ReLU(name="entry_flow_conv1_2_relu")(_conv(x, 64, 3, "entry_flow_conv1_2", norm))
    features = {}
    for block, (stride, rate) in zip(plan, schedule, strict=True):
        second, x = _block(x, block, stride, rate, norm)
        if block.low_level:
            features[4] = second
    features[output_stride] = x
    return keras.Model(images, features, name=f"xception{depth}")
