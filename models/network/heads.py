"""The heads of DeepLab: ASPP and decoder, and the lighter head of MobileNetV3.

All layers here turn features into features; the 1x1 convolution to the classes follows in `models.network.deeplab`.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from models.network.backbones.blocks import BatchNorm, truncated_normal
from models.network.kernels import Conv2D, DepthwiseConv2D, resize_bilinear

#: Epsilon of the batch normalisation in every head, as in research/deeplab.
HEAD_EPSILON = 1e-5
#: Rates of the 3x3 branches of ASPP at output stride 16 (DeepLabV3, section 3.3); doubled at 8, halved at 32.
ASPP_RATES = (6, 12, 18)


def aspp_rates(output_stride: int) -> list[int]:
    """`ASPP_RATES` for features at an output stride: they span the same distance in the image at every stride."""
    return [rate * 16 // output_stride for rate in ASPP_RATES]


def conv_unit(channels: int, kernel: int, norm: BatchNorm, name: str, rate: int = 1) -> keras.Sequential:
    """Convolution, batch normalisation, ReLU."""
    conv = Conv2D(channels, kernel, padding="same", dilation_rate=rate, use_bias=False, name="conv")
    return keras.Sequential([conv, norm("norm"), layers.ReLU(name="relu")], name=name)


def separable_unit(channels: int, norm: BatchNorm, name: str, rate: int = 1) -> keras.Sequential:
    """Depthwise 3x3 and pointwise convolution, each with batch normalisation and ReLU (section 3.1, figure 3)."""
    depthwise = DepthwiseConv2D(
        3,
        padding="same",
        dilation_rate=rate,
        use_bias=False,
        depthwise_initializer=truncated_normal(0.33),
        name="depthwise",
    )
    pointwise = Conv2D(channels, 1, use_bias=False, kernel_initializer=truncated_normal(0.06), name="pointwise")
    return keras.Sequential(
        [
            *(depthwise, norm("depthwise_norm"), layers.ReLU(name="depthwise_relu")),
            *(pointwise, norm("pointwise_norm"), layers.ReLU(name="pointwise_relu")),
        ],
        name=name,
    )


def conv3x3_unit(channels: int, norm: BatchNorm, name: str, *, separable: bool, rate: int = 1) -> keras.Sequential:
    """A 3x3 unit of ASPP or decoder, separable or not."""
    return separable_unit(channels, norm, name, rate) if separable else conv_unit(channels, 3, norm, name, rate)


def image_mean(features: keras.KerasTensor) -> keras.KerasTensor:
    """Mean over height and width: (batch, 1, 1, c) float32, since bfloat16 would lose digits of a long sum."""
    return ops.mean(ops.cast(features, "float32"), axis=(1, 2), keepdims=True)


def upsample(features: keras.KerasTensor, like: keras.KerasTensor, align_corners: bool) -> keras.KerasTensor:
    """Bilinear interpolation to the height and width of `like`."""
    _, height, width, _ = ops.shape(like)
    return resize_bilinear(features, (height, width), align_corners)


class HeadPart(layers.Layer):
    """A layer that remembers the arguments it was made with, so that Keras can make it again.

    The layers inside compute in the global Keras policy of the moment, as those of the whole network.

    Args:
        arguments: arguments of the constructor, by name.
        options: arguments of every Keras layer.
    """

    def __init__(self, arguments: dict[str, Any], options: dict[str, Any]) -> None:
        super().__init__(**options)
        self._arguments = arguments

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._arguments}


@keras.saving.register_keras_serializable("deeplab")
class ASPP(HeadPart):
    """Atrous spatial pyramid pooling (DeepLabV3, section 3.3).

    (batch, height, width, c) features of any size to (batch, height, width, channels).

    Args:
        channels: channels of each branch and of their fusion.
        rates: dilation rates of the 3x3 branches; with none there remain the 1x1 branch and the image pooling, which is
            what research/deeplab publishes for MobileNetV2.
        separable: whether the 3x3 branches are depthwise separable.
        dropout: fraction dropped after the fusion.
        momentum, epsilon: momentum and epsilon of batch normalisation.
    """

    def __init__(
        self,
        channels: int = 256,
        rates: Sequence[int] = ASPP_RATES,
        *,
        separable: bool = True,
        dropout: float = 0.1,
        momentum: float = 0.99,
        epsilon: float = HEAD_EPSILON,
        **kwargs: Any,
    ) -> None:
        arguments = {
            "channels": channels,
            "rates": tuple(rates),
            "separable": separable,
            "dropout": dropout,
            "momentum": momentum,
            "epsilon": epsilon,
        }
        super().__init__(arguments, kwargs)
        norm = BatchNorm(momentum, epsilon)
        self.branches = [conv_unit(channels, 1, norm, "pointwise_branch")] + [
            conv3x3_unit(channels, norm, f"atrous_branch_{index}", separable=separable, rate=rate)
            for index, rate in enumerate(rates)
        ]
        self.pooling = conv_unit(channels, 1, norm, "image_pooling")
        self.fusion = conv_unit(channels, 1, norm, "fusion")
        self.dropout = layers.Dropout(dropout)

    def build(self, input_shape: Sequence[int | None]) -> None:
        shape = (None, None, None, input_shape[-1])
        for unit in (*self.branches, self.pooling):
            unit.build(shape)
        self.fusion.build((None, None, None, self._arguments["channels"] * (len(self.branches) + 1)))

    def call(self, features: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        pyramid = [branch(features, training=training) for branch in self.branches]
        image = self.pooling(ops.cast(image_mean(features), self.compute_dtype), training=training)
        pyramid.append(ops.broadcast_to(image, ops.shape(pyramid[0])))
        fused = self.fusion(ops.concatenate(pyramid, axis=-1), training=training)
        return self.dropout(fused, training=training)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self._arguments["channels"])


@keras.saving.register_keras_serializable("deeplab")
class Decoder(HeadPart):
    """The decoder (section 3.1; two 3x3 convolutions, table 2), up to the features that the classifier reads.

    (low-level features at stride 4, ASPP features) to (batch, ceil(height / 4), ceil(width / 4), channels).

    Args:
        channels: channels of the two 3x3 units.
        low_level_channels: channels to which the low-level features are reduced.
        separable: whether the 3x3 units are depthwise separable.
        align_corners: sampling points of the upsampling, see `models.network.kernels.resize_bilinear`.
        momentum, epsilon: momentum and epsilon of batch normalisation.
    """

    def __init__(
        self,
        channels: int = 256,
        low_level_channels: int = 48,
        *,
        separable: bool = True,
        align_corners: bool = False,
        momentum: float = 0.99,
        epsilon: float = HEAD_EPSILON,
        **kwargs: Any,
    ) -> None:
        arguments = {
            "channels": channels,
            "low_level_channels": low_level_channels,
            "separable": separable,
            "align_corners": align_corners,
            "momentum": momentum,
            "epsilon": epsilon,
        }
        super().__init__(arguments, kwargs)
        norm = BatchNorm(momentum, epsilon)
        self.reduction = conv_unit(low_level_channels, 1, norm, "low_level")
        self.refinement = [
            conv3x3_unit(channels, norm, f"refinement_{index}", separable=separable) for index in range(2)
        ]

    def build(self, low_level_shape: Sequence[int | None], features_shape: Sequence[int | None]) -> None:
        self.reduction.build((None, None, None, low_level_shape[-1]))
        channels = self._arguments["low_level_channels"] + features_shape[-1]
        for unit in self.refinement:
            unit.build((None, None, None, channels))
            channels = self._arguments["channels"]

    def call(
        self, low_level: keras.KerasTensor, features: keras.KerasTensor, training: bool = False
    ) -> keras.KerasTensor:
        low_level = self.reduction(low_level, training=training)
        features = upsample(features, low_level, self._arguments["align_corners"])
        x = ops.concatenate([low_level, features], axis=-1)
        for unit in self.refinement:
            x = unit(x, training=training)
        return x

    def compute_output_shape(
        self, low_level_shape: Sequence[int | None], features_shape: Sequence[int | None]
    ) -> tuple[int | None, ...]:
        return (*low_level_shape[:-1], self._arguments["channels"])


@keras.saving.register_keras_serializable("deeplab")
class LRASPP(HeadPart):
    """Lite reduced ASPP (MobileNetV3, section 6.4 and figure 10), up to the features that the classifier reads.

    (features at stride 8, last features) to (batch, ceil(height / 8), ceil(width / 8), c8 + channels). The paper adds
    the logits of both parts; one classifier on their concatenation is the same sum.

    Deviation: the gate sees the mean of the whole image. research/deeplab pools windows of its training crop, 769
    pixels, which is the whole image in training, and interpolates between them on a larger one.

    Args:
        channels: channels to which the last features are reduced.
        align_corners: sampling points of the upsampling, see `models.network.kernels.resize_bilinear`.
        momentum, epsilon: momentum and epsilon of batch normalisation.
    """

    def __init__(
        self,
        channels: int = 128,
        *,
        align_corners: bool = False,
        momentum: float = 0.99,
        epsilon: float = HEAD_EPSILON,
        **kwargs: Any,
    ) -> None:
        arguments = {
            "channels": channels,
            "align_corners": align_corners,
            "momentum": momentum,
            "epsilon": epsilon,
        }
        super().__init__(arguments, kwargs)
        self.reduction = conv_unit(channels, 1, BatchNorm(momentum, epsilon), "reduction")
        self.gate = Conv2D(channels, 1, activation="hard_sigmoid", name="gate")

    def build(self, middle_shape: Sequence[int | None], features_shape: Sequence[int | None]) -> None:
        shape = (None, None, None, features_shape[-1])
        self.reduction.build(shape)
        self.gate.build(shape)

    def call(self, middle: keras.KerasTensor, features: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        reduced = self.reduction(features, training=training) * self.gate(image_mean(features))
        return ops.concatenate([middle, upsample(reduced, middle, self._arguments["align_corners"])], axis=-1)

    def compute_output_shape(
        self, middle_shape: Sequence[int | None], features_shape: Sequence[int | None]
    ) -> tuple[int | None, ...]:
        return (*middle_shape[:-1], middle_shape[-1] + self._arguments["channels"])
