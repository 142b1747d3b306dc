"""MobileNetV3 (Howard et al., arXiv 1905.02244) as a dense feature extractor.

Layers bear the names of `keras.applications.MobileNetV3Large` and `-Small`, so that weights can be copied by name. The
last 1x1 convolution before the pooling is kept and the classifier is left out, as research/deeplab does.
"""

from dataclasses import dataclass, replace

import keras
from keras import layers

from models.network.backbones.blocks import BatchNorm, atrous_schedule, mobile_conv, mobile_depthwise, round_channels
from models.network.kernels import Conv2D

EPSILON = 1e-3


@dataclass(frozen=True)
class Block:
    """One row of tables 1 and 2 of the paper."""

    expansion: float
    """Ratio of the depthwise channels to those of the input."""
    channels: int
    """Channels of the output."""
    kernel: int
    """Side of the depthwise kernel."""
    stride: int
    """Stride of the depthwise convolution."""
    excite: bool
    """Whether channels are reweighted (squeeze and excitation)."""
    activation: str
    """"relu" or "hard_swish"."""


def _blocks(*rows: tuple[float, int, int, int, bool, str]) -> tuple[Block, ...]:
    return tuple(Block(*row) for row in rows)


#: Table 1 of the paper.
LARGE = _blocks(
    (1, 16, 3, 1, False, "relu"),
    (4, 24, 3, 2, False, "relu"),
    (3, 24, 3, 1, False, "relu"),
    (3, 40, 5, 2, True, "relu"),
    (3, 40, 5, 1, True, "relu"),
    (3, 40, 5, 1, True, "relu"),
    (6, 80, 3, 2, False, "hard_swish"),
    (2.5, 80, 3, 1, False, "hard_swish"),
    (2.3, 80, 3, 1, False, "hard_swish"),
    (2.3, 80, 3, 1, False, "hard_swish"),
    (6, 112, 3, 1, True, "hard_swish"),
    (6, 112, 3, 1, True, "hard_swish"),
    (6, 160, 5, 2, True, "hard_swish"),
    (6, 160, 5, 1, True, "hard_swish"),
    (6, 160, 5, 1, True, "hard_swish"),
)
#: Table 2 of the paper.
SMALL = _blocks(
    (1, 16, 3, 2, True, "relu"),
    (72 / 16, 24, 3, 2, False, "relu"),
    (88 / 24, 24, 3, 1, False, "relu"),
    (4, 40, 5, 2, True, "hard_swish"),
    (6, 40, 5, 1, True, "hard_swish"),
    (6, 40, 5, 1, True, "hard_swish"),
    (3, 48, 5, 1, True, "hard_swish"),
    (3, 48, 5, 1, True, "hard_swish"),
    (6, 96, 5, 2, True, "hard_swish"),
    (6, 96, 5, 1, True, "hard_swish"),
    (6, 96, 5, 1, True, "hard_swish"),
)


def reduced(blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    """The blocks, of which the last three have half the channels: "RF2" in table 7 of the paper.

    The same as `mobilenet_v3_*_seg` of research/deeplab, which also halves the expansion of the first of the three.
    """
    *before, first, second, third = (replace(block, channels=block.channels // 2) for block in blocks)
    return (*blocks[: len(before)], replace(first, expansion=first.expansion / 2), second, third)


def _excite(x: keras.KerasTensor, prefix: str) -> keras.KerasTensor:
    """Squeeze and excitation: each channel times a factor in [0, 1] that depends on the means of all channels."""
    channels = x.shape[-1]
    # In bfloat16 the mean over a large image would lose its last digits.
    factors = layers.GlobalAveragePooling2D(keepdims=True, dtype="float32", name=f"{prefix}_avg_pool")(x)
    factors = Conv2D(round_channels(channels / 4), 1, activation="relu", name=f"{prefix}_conv")(factors)
    factors = Conv2D(channels, 1, activation="hard_sigmoid", name=f"{prefix}_conv_1")(factors)
    return layers.Multiply(name=f"{prefix}_mul")([x, factors])


def _inverted_residual(
    x: keras.KerasTensor, prefix: str, block: Block, stride: int, rate: int, norm: BatchNorm
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """One block (section 5.3 of the paper): the expanded depthwise features, and the linear bottleneck."""
    inputs = x
    if block.expansion != 1:
        x = mobile_conv(x, round_channels(inputs.shape[-1] * block.expansion), f"{prefix}_expand")
        x = layers.Activation(block.activation, name=f"{prefix}_expand_act")(norm(f"{prefix}_expand_bn")(x))
    x = norm(f"{prefix}_depthwise_bn")(mobile_depthwise(x, f"{prefix}_depthwise", block.kernel, stride, rate))
    x = depthwise = layers.Activation(block.activation, name=f"{prefix}_depthwise_act")(x)
    if block.excite:
        x = _excite(x, f"{prefix}_squeeze_excite")
    x = norm(f"{prefix}_project_bn")(mobile_conv(x, block.channels, f"{prefix}_project"))
    if inputs.shape[-1] == block.channels and stride == 1:
        x = layers.Add(name=f"{prefix}_add")([inputs, x])
    return depthwise, x


def build(
    blocks: tuple[Block, ...], low_level_block: int, output_stride: int, width: float, norm: BatchNorm
) -> keras.Model:
    """The network from normalised images to {4: expanded features of a block, output_stride: the last convolution}.

    Args:
        blocks: LARGE or SMALL, or either of them `reduced`.
        low_level_block: index of the block whose expanded features at stride 4 the decoder reads.
        output_stride: 8, 16 or 32.
        width: multiplies the channels of every layer but the first, 0.35 to 1.4.
        norm: batch normalisation of every layer.
    """
    blocks = tuple(replace(block, channels=round_channels(block.channels * width)) for block in blocks)
    schedule = atrous_schedule([block.stride for block in blocks], output_stride, stem_stride=2)

    images = keras.Input((None, None, 3), name="normalized_images")
    x = norm("conv_bn")(mobile_conv(images, 16, "conv", kernel=3, stride=2))
    x = layers.Activation("hard_swish", name="conv_act")(x)
    features = {}
    for index, (block, (stride, rate)) in enumerate(zip(blocks, schedule, strict=True)):
        prefix = f"expanded_conv_{index}" if index else "expanded_conv"
        depthwise, x = _inverted_residual(x, prefix, block, stride, rate, norm)
        if index == low_level_block:
            features[4] = depthwise
    x = norm("conv_1_bn")(mobile_conv(x, round_channels(6 * x.shape[-1]), "conv_1"))
    features[output_stride] = layers.Activation("hard_swish", name="conv_1_act")(x)
    return keras.Model(images, features, name="mobilenet_v3")
