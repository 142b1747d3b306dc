"""Parts that several backbones share."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
from keras import initializers, layers

from models.network.kernels import BatchNormalization, Conv2D, DepthwiseConv2D


@dataclass(frozen=True)
class BatchNorm:
    """The batch normalisation of one part of a network."""

    momentum: float = 0.99
    """Momentum of the moving averages, in [0, 1)."""
    epsilon: float = 1e-3
    """Added to the variance."""

    def __call__(self, name: str | None = None) -> layers.Layer:
        """A new layer over the last axis."""
        return BatchNormalization(momentum=self.momentum, epsilon=self.epsilon, name=name)


def symmetric(images: keras.KerasTensor) -> keras.KerasTensor:
    """Float RGB in [0, 255] to [-1, 1], as most published weights expect, all of research/deeplab's among them."""
    return images / 127.5 - 1.0


def truncated_normal(stddev: float) -> initializers.Initializer:
    """A new initialiser. Each weight needs its own, since an instance that is used twice gives equal values."""
    return initializers.TruncatedNormal(stddev=stddev)


def round_channels(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor` that is not more than 10 % less (slim's `make_divisible`)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def mobile_conv(x: keras.KerasTensor, channels: int, name: str, kernel: int = 1, stride: int = 1) -> keras.KerasTensor:
    """Convolution without bias, initialised as the MobileNets of research/deeplab are."""
    return Conv2D(
        channels,
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer=truncated_normal(0.09),
        name=name,
    )(x)


def mobile_depthwise(
    x: keras.KerasTensor, name: str, kernel: int = 3, stride: int = 1, rate: int = 1
) -> keras.KerasTensor:
    """Depthwise convolution without bias, initialised as the MobileNets of research/deeplab are."""
    return DepthwiseConv2D(
        kernel,
        strides=stride,
        dilation_rate=rate,
        padding="same",
        use_bias=False,
        depthwise_initializer=truncated_normal(0.09),
        name=name,
    )(x)


def atrous_schedule(strides: Sequence[int], output_stride: int, stem_stride: int) -> list[tuple[int, int]]:
    """(stride, dilation rate) of each block, so that the features end at `output_stride`.

    Once the target is reached a block's stride becomes 1 and the following blocks multiply their rate
    (DeepLabV3, section 3.1; `stack_blocks_dense` of research/deeplab). No weight changes its shape, so the same
    weights serve at every output stride.

    Args:
        strides: nominal stride of each block.
        output_stride: ratio of the input's resolution to that of the last block.
        stem_stride: ratio of the input's resolution to that of the first block's input.
    """
    schedule = []
    reached, rate = stem_stride, 1
    for stride in strides:
        if reached < output_stride:
            schedule.append((stride, rate))
            reached *= stride
        else:
            schedule.append((1, rate))
            rate *= stride
    return schedule
