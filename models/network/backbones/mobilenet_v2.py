"""MobileNetV2 (Sandler et al., arXiv 1801.04381) as a dense feature extractor.

Layers bear the names of `keras.applications.MobileNetV2`, so that weights can be copied by name. The 1280-channel
convolution and the classifier are left out, as research/deeplab does.
"""

import keras
from keras import layers

from models.network.backbones.blocks import BatchNorm, atrous_schedule, mobile_conv, mobile_depthwise, round_channels

#: (expansion, channels, blocks, stride of the first block): table 2 of the paper.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
#: The decoder reads the expanded depthwise output of this block, the last at stride 4 (`layer_4` in research/deeplab).
LOW_LEVEL_BLOCK = 2
EPSILON = 1e-3


def scaled(channels: int, width: float, divisor: int = 8) -> int:
    """`channels * width`, rounded as `keras.applications` does: down to an integer, then to a multiple of `divisor`."""
    return round_channels(int(channels * width), divisor)


def _inverted_residual(
    x: keras.KerasTensor, prefix: str, expansion: int, channels: int, stride: int, rate: int, norm: BatchNorm
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """One block (section 3.3 of the paper): the expanded depthwise features, and the linear bottleneck."""
    inputs = x
    if expansion > 1:
        x = norm(f"{prefix}_expand_BN")(mobile_conv(x, expansion * inputs.shape[-1], f"{prefix}_expand"))
        x = layers.ReLU(6.0, name=f"{prefix}_expand_relu")(x)
    x = norm(f"{prefix}_depthwise_BN")(mobile_depthwise(x, f"{prefix}_depthwise", 3, stride, rate))
    x = depthwise = layers.ReLU(6.0, name=f"{prefix}_depthwise_relu")(x)
    x = norm(f"{prefix}_project_BN")(mobile_conv(x, channels, f"{prefix}_project"))
    if inputs.shape[-1] == channels and stride == 1:
        x = layers.Add(name=f"{prefix}_add")([inputs, x])
    return depthwise, x


def build(divisor: int, output_stride: int, width: float, norm: BatchNorm) -> keras.Model:
    """The network from normalised images to {4: expanded features of block 2, output_stride: the last bottleneck}.

    Args:
        divisor: what numbers of channels are rounded to a multiple of: 8, or 1 in research/deeplab, which does not
            round them.
        output_stride: 8, 16 or 32.
        width: multiplies the channels of every layer, 0.35 to 1.4; at 1.0 the features have 144 and 320 channels.
        norm: batch normalisation of every layer.
    """
    blocks = [
        (expansion, scaled(channels, width, divisor), stride if first else 1)
        for expansion, channels, count, stride in STAGES
        for first in [True] + [False] * (count - 1)
    ]
    schedule = atrous_schedule([stride for _, _, stride in blocks], output_stride, stem_stride=2)

    images = keras.Input((None, None, 3), name="normalized_images")
    x = norm("bn_Conv1")(mobile_conv(images, scaled(32, width, divisor), "Conv1", 3, 2))
    x = layers.ReLU(6.0, name="Conv1_relu")(x)
    features = {}
    for index, ((expansion, channels, _), (stride, rate)) in enumerate(zip(blocks, schedule, strict=True)):
        prefix = f"block_{index}" if index else "expanded_conv"
        depthwise, x = _inverted_residual(x, prefix, expansion, channels, stride, rate, norm)
        if index == LOW_LEVEL_BLOCK:
            features[4] = depthwise
    features[output_stride] = x
    return keras.Model(images, features, name="mobilenet_v2")
