"""ResNet v1 (He et al., arXiv 1512.03385) as a dense feature extractor, in three forms.

- As published: layers bear the names of `keras.applications.ResNet50` and `ResNet101`, so that weights can be copied by
  name. The stride of a stage stands in the first 1x1 convolution of its first block, so the 3x3 convolution after it is
  the first to be dilated where that stride is lost; every convolution has a bias.
- "beta", as in research/deeplab (core/resnet_v1_beta.py): three 3x3 convolutions at the root, the stride of a stage in
  the 3x3 convolution of its last block, and multi-grid rates in the last stage (DeepLabV3, section 3.2.1). Its
  convolutions have no bias, and shortcuts with a stride only drop pixels.
- The shallow networks of 18 and 34 layers, whose blocks have two 3x3 convolutions without bias. Nearly all of their
  operations are wide convolutions, which makes them the quickest to train on a CPU (docs/performance.md).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import keras
from keras import layers, ops

from models.network.backbones.blocks import BatchNorm, atrous_schedule, round_channels
from models.network.kernels import Conv2D

#: Units of each stage by depth: table 1 of the paper.
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
#: Channels of the 3x3 convolutions of each stage; bottleneck blocks put out four times as many.
CHANNELS = (64, 128, 256, 512)
#: The decoder reads the third convolution of this block (stage, block), before the sum, as research/deeplab does.
LOW_LEVEL_BLOCK = (2, 2)
#: Rates of the blocks in the last stage of the beta form, relative to that of the stage.
MULTI_GRID = (1, 2, 4)
EPSILON = 1.001e-5
BETA_EPSILON = 1e-5
#: Channel means of ImageNet in BGR order, which the published weights expect to be subtracted.
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)


@dataclass(frozen=True)
class Block:
    """One residual block."""

    stage: int
    """2 to 5, as in table 1 of the paper."""
    number: int
    """Number within the stage, from 1."""
    channels: int
    """Channels of the 3x3 convolution."""
    stride: int
    """Nominal stride, which the block has at output stride 32."""
    grid: int
    """Factor of the dilation rate (multi-grid)."""


def preprocess(images: keras.KerasTensor) -> keras.KerasTensor:
    """Float RGB in [0, 255] to BGR less the mean of ImageNet, as the published weights expect."""
    return ops.flip(images, axis=-1) - ops.convert_to_tensor(IMAGENET_MEAN_BGR, dtype="float32")


def blocks(depth: int) -> Iterator[Block]:
    """The blocks as published: each stage but the first begins with a stride."""
    for stage, (count, channels) in enumerate(zip(BLOCKS[depth], CHANNELS, strict=True), start=2):
        for number in range(1, count + 1):
            yield Block(stage, number, channels, 2 if number == 1 and stage > 2 else 1, 1)


def beta_blocks(depth: int) -> Iterator[Block]:
    """The blocks of the beta form: each stage but the last ends with a stride."""
    for stage, (count, channels) in enumerate(zip(BLOCKS[depth], CHANNELS, strict=True), start=2):
        for number in range(1, count + 1):
            grid = MULTI_GRID[number - 1] if stage == 5 else 1
            yield Block(stage, number, channels, 2 if number == count and stage < 5 else 1, grid)


def _conv(
    x: keras.KerasTensor, channels: int, kernel: int, name: str, stride: int = 1, rate: int = 1, bias: bool = True
) -> keras.KerasTensor:
    """Convolution; with a stride and a kernel wider than that, padded by the kernel alone, the same on all sides."""
    padded = stride > 1 and kernel > 1
    if padded:
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name.removesuffix('_conv')}_pad")(x)
    return Conv2D(
        channels,
        kernel,
        strides=stride,
        dilation_rate=rate,
        padding="valid" if padded else "same",
        use_bias=bias,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def _root(x: keras.KerasTensor, norm: BatchNorm, channels: int = 64, bias: bool = True) -> keras.KerasTensor:
    """7x7 convolution and 3x3 maximum, each of stride 2, with symmetric padding."""
    x = norm("conv1_bn")(_conv(x, channels, 7, "conv1_conv", stride=2, bias=bias))
    x = layers.ReLU(name="conv1_relu")(x)
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    return layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)


def _beta_root(x: keras.KerasTensor, norm: BatchNorm) -> keras.KerasTensor:
    """Three 3x3 convolutions, the first of stride 2, and 3x3 maximum of stride 2."""
    for number, (channels, stride) in enumerate(((64, 2), (64, 1), (128, 1)), start=1):
        x = norm(f"conv1_{number}_bn")(_conv(x, channels, 3, f"conv1_{number}_conv", stride, bias=False))
        x = layers.ReLU(name=f"conv1_{number}_relu")(x)
    return layers.MaxPooling2D(3, strides=2, padding="same", name="pool1_pool")(x)


def _bottleneck(
    x: keras.KerasTensor, block: Block, stride: int, rate: int, norm: BatchNorm, beta: bool
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """One block: the normalised third convolution (4 * channels), and the rectified sum with the shortcut."""
    prefix, channels, bias = f"conv{block.stage}_block{block.number}", block.channels, not beta
    first_stride, second_stride = (1, stride) if beta else (stride, 1)
    # A stride that is lost before the 3x3 convolution dilates that one already, not only the following blocks.
    rate *= block.grid if beta else block.stride // stride
    shortcut = x
    if block.number == 1:
        shortcut = norm(f"{prefix}_0_bn")(_conv(x, 4 * channels, 1, f"{prefix}_0_conv", stride, bias=bias))
    elif stride > 1:
        shortcut = layers.MaxPooling2D(1, strides=stride, padding="same", name=f"{prefix}_0_pool")(x)
    x = norm(f"{prefix}_1_bn")(_conv(x, channels, 1, f"{prefix}_1_conv", first_stride, bias=bias))
    x = layers.ReLU(name=f"{prefix}_1_relu")(x)
    x = norm(f"{prefix}_2_bn")(_conv(x, channels, 3, f"{prefix}_2_conv", second_stride, rate, bias))
    x = layers.ReLU(name=f"{prefix}_2_relu")(x)
    residual = norm(f"{prefix}_3_bn")(_conv(x, 4 * channels, 1, f"{prefix}_3_conv", bias=bias))
    x = layers.Add(name=f"{prefix}_add")([shortcut, residual])
    return residual, layers.ReLU(name=f"{prefix}_out")(x)


def _basic(x: keras.KerasTensor, block: Block, stride: int, rate: int, norm: BatchNorm) -> keras.KerasTensor:
    """One block of the shallow networks: the rectified sum of two 3x3 convolutions and the shortcut."""
    prefix = f"conv{block.stage}_block{block.number}"
    shortcut = x
    if block.stride > 1:
        shortcut = norm(f"{prefix}_0_bn")(_conv(x, block.channels, 1, f"{prefix}_0_conv", stride, bias=False))
    x = norm(f"{prefix}_1_bn")(_conv(x, block.channels, 3, f"{prefix}_1_conv", stride, rate, bias=False))
    x = layers.ReLU(name=f"{prefix}_1_relu")(x)
    rate *= block.stride // stride  # a stride that is lost dilates what follows it, within the block too
    x = norm(f"{prefix}_2_bn")(_conv(x, block.channels, 3, f"{prefix}_2_conv", 1, rate, bias=False))
    x = layers.Add(name=f"{prefix}_add")([shortcut, x])
    return layers.ReLU(name=f"{prefix}_out")(x)


def build_shallow(depth: int, output_stride: int, width: float, norm: BatchNorm) -> keras.Model:
    """The network of 18 or 34 layers, to {4: features of stage 2, output_stride: features of stage 5}.

    Args:
        depth: 18 or 34 layers.
        output_stride: 8, 16 or 32.
        width: multiplies the channels: 64 in stage 2, 512 in stage 5.
        norm: batch normalisation of every layer.
    """
    plan = [replace(block, channels=round_channels(block.channels * width)) for block in blocks(depth)]
    schedule = atrous_schedule([block.stride for block in plan], output_stride, stem_stride=4)

    images = keras.Input((None, None, 3), name="normalized_images")
    x = _root(images, norm, plan[0].channels, bias=False)
    features = {}
    for block, (stride, rate) in zip(plan, schedule, strict=True):
        x = _basic(x, block, stride, rate, norm)
        if block.stage == LOW_LEVEL_BLOCK[0]:
            features[4] = x
    features[output_stride] = x
    return keras.Model(images, features, name=f"resnet{depth}")


def build(depth: int, beta: bool, output_stride: int, width: float, norm: BatchNorm) -> keras.Model:
    """The network from normalised images to {4: 256 channels of stage 2, output_stride: 2048 channels of stage 5}.

    Args:
        depth: 50 or 101 layers.
        beta: whether it has the form of research/deeplab.
        output_stride: 8, 16 or 32.
        width: 1.0; the published network has no other.
        norm: batch normalisation of every layer.
    """
    del width
    plan = list(beta_blocks(depth) if beta else blocks(depth))
    schedule = atrous_schedule([block.stride for block in plan], output_stride, stem_stride=4)

    images = keras.Input((None, None, 3), name="normalized_images")
    x = _beta_root(images, norm) if beta else _root(images, norm)
    features = {}
    for block, (stride, rate) in zip(plan, schedule, strict=True):
        residual, x = _bottleneck(x, block, stride, rate, norm, beta)
        if (block.stage, block.number) == LOW_LEVEL_BLOCK:
            features[4] = residual
    features[output_stride] = x
    return keras.Model(images, features, name=f"resnet{depth}")
