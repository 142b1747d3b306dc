"""DeepLabV3+ (Chen et al., arXiv 1802.02611): backbone, atrous spatial pyramid pooling, decoder."""

from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import layers, ops

from models.backbones import BACKBONES, build_backbone
from models.backbones.blocks import BatchNorm, truncated_normal
from models.config import ModelConfig
from models.kernels import Conv2D, DepthwiseConv2D, resize_bilinear

#: Of the batch normalisation in ASPP and decoder, as in research/deeplab.
HEAD_EPSILON = 1e-5
#: Rates of the 3x3 branches of ASPP at output stride 16 (DeepLabV3, section 3.3); doubled at 8, halved at 32.
ASPP_RATES = (6, 12, 18)


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


@keras.saving.register_keras_serializable("deeplab")
class ChannelNormalization(layers.Layer):
    """`(images - mean) / sqrt(variance)` by channel, float32.

    Mean and variance are weights that no gradient changes, so they travel with every checkpoint. Until they are set
    they map [0, 255] to [-1, 1].
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)

    def build(self, input_shape: Sequence[int | None]) -> None:
        middle = keras.initializers.Constant(127.5)
        square = keras.initializers.Constant(127.5**2)
        self.mean = self.add_weight(shape=(input_shape[-1],), initializer=middle, trainable=False, name="mean")
        self.variance = self.add_weight(shape=(input_shape[-1],), initializer=square, trainable=False, name="variance")

    def call(self, images: keras.KerasTensor) -> keras.KerasTensor:
        return (images - self.mean) / ops.sqrt(self.variance)


@keras.saving.register_keras_serializable("deeplab")
class ASPP(layers.Layer):
    """Atrous spatial pyramid pooling (DeepLabV3, section 3.3).

    (batch, height, width, c) features of any size to (batch, height, width, channels).

    Args:
        channels: of each branch and of their fusion.
        rates: dilation rates of the 3x3 branches.
        separable: whether those are depthwise separable.
        dropout: fraction dropped after the fusion.
        momentum, epsilon: of batch normalisation.
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
        super().__init__(**kwargs)
        self._arguments: dict[str, Any] = {
            "channels": channels,
            "rates": tuple(rates),
            "separable": separable,
            "dropout": dropout,
            "momentum": momentum,
            "epsilon": epsilon,
        }
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
        image = ops.mean(ops.cast(features, "float32"), axis=(1, 2), keepdims=True)  # (batch, 1, 1, c)
        image = self.pooling(ops.cast(image, self.compute_dtype), training=training)
        pyramid.append(ops.broadcast_to(image, ops.shape(pyramid[0])))
        fused = self.fusion(ops.concatenate(pyramid, axis=-1), training=training)
        return self.dropout(fused, training=training)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._arguments}


@keras.saving.register_keras_serializable("deeplab")
class Decoder(layers.Layer):
    """The decoder (section 3.1; two 3x3 convolutions, table 2), up to the features that the classifier reads.

    (low-level features at stride 4, ASPP features) to (batch, ceil(height / 4), ceil(width / 4), channels).

    Args:
        channels: of the two 3x3 units.
        low_level_channels: to which the low-level features are reduced.
        separable: whether the 3x3 units are depthwise separable.
        momentum, epsilon: of batch normalisation.
    """

    def __init__(
        self,
        channels: int = 256,
        low_level_channels: int = 48,
        *,
        separable: bool = True,
        momentum: float = 0.99,
        epsilon: float = HEAD_EPSILON,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._arguments: dict[str, Any] = {
            "channels": channels,
            "low_level_channels": low_level_channels,
            "separable": separable,
            "momentum": momentum,
            "epsilon": epsilon,
        }
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
        _, height, width, _ = ops.shape(low_level)
        x = ops.concatenate([low_level, resize_bilinear(features, (height, width))], axis=-1)
        for unit in self.refinement:
            x = unit(x, training=training)
        return x

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._arguments}


@keras.saving.register_keras_serializable("deeplab")
class DeepLabV3Plus(keras.Model):
    """Images of any size to class logits of that size.

    The compute dtype is that of the global Keras policy when the model is made; weights and logits are float32.

    Args:
        config: the network.
        num_classes: number of classes, the ignore label not counted.
    """

    def __init__(self, config: ModelConfig, num_classes: int, **kwargs: Any) -> None:
        # Pixels keep their 32 bits until they are normalised: bfloat16 has 8 of precision.
        super().__init__(autocast=False, **kwargs)
        self.config = config
        self.num_classes = num_classes
        batch_norm: dict[str, float] = {
            "momentum": config.batch_norm_momentum,
            "epsilon": config.batch_norm_epsilon or HEAD_EPSILON,
        }
        self.normalization = ChannelNormalization(name="normalization") if config.normalization == "dataset" else None
        self.backbone = build_backbone(
            config.backbone,
            output_stride=config.output_stride,
            width=config.width,
            momentum=config.batch_norm_momentum,
            epsilon=config.batch_norm_epsilon,
        )
        self.aspp = ASPP(
            config.aspp_channels,
            [rate * 16 // config.output_stride for rate in ASPP_RATES],
            separable=config.separable,
            dropout=config.dropout,
            name="aspp",
            **batch_norm,
        )
        self.decoder = Decoder(
            config.decoder_channels,
            config.low_level_channels,
            separable=config.separable,
            name="decoder",
            **batch_norm,
        )
        self.classifier = Conv2D(num_classes, 1, kernel_initializer=truncated_normal(0.01), name="classifier")

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Makes every weight; none depends on the images' size."""
        shapes = {stride: features.shape for stride, features in self.backbone.output.items()}
        if self.normalization:
            self.normalization.build(input_shape)
        self.aspp.build(shapes[self.config.output_stride])
        self.decoder.build(shapes[4], (None, None, None, self.config.aspp_channels))
        self.classifier.build((None, None, None, self.config.decoder_channels))

    def normalize(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """uint8 or float RGB in [0, 255] to the float32 input of the backbone."""
        images = ops.cast(images, "float32")
        return self.normalization(images) if self.normalization else BACKBONES[self.config.backbone].preprocess(images)

    def coarse_logits(self, images: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """Logits before the last upsampling.

        Args:
            images: (batch, height, width, 3) RGB in [0, 255], uint8 or float32; any height and width.
            training: whether batch normalisation uses the batch's statistics, and dropout drops.

        Returns:
            (batch, ceil(height / 4), ceil(width / 4), classes) float32.
        """
        features = self.backbone(self.normalize(images), training=training)
        context = self.aspp(features[self.config.output_stride], training=training)
        refined = self.decoder(features[4], context, training=training)
        return ops.cast(self.classifier(refined), "float32")

    def call(self, images: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """As `coarse_logits`, upsampled: (batch, height, width, classes) float32."""
        _, height, width, _ = ops.shape(images)
        return resize_bilinear(self.coarse_logits(images, training=training), (height, width))

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "config": self.config.model_dump(mode="json"), "num_classes": self.num_classes}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """The model that `get_config` describes, with new weights."""
        return cls(**{**config, "config": ModelConfig(**config["config"])})


def build_model(
    config: ModelConfig,
    num_classes: int,
    *,
    mean: Sequence[float] | None = None,
    variance: Sequence[float] | None = None,
) -> DeepLabV3Plus:
    """A built DeepLabV3+ with random weights.

    Args:
        config: the network.
        num_classes: number of classes, the ignore label not counted.
        mean, variance: of the training pixels by channel, RGB in [0, 255]; used when
            `config.normalization` is "dataset".

    Raises:
        ValueError: only one of mean and variance is given.
    """
    if (mean is None) != (variance is None):
        raise ValueError(f"mean and variance go together, not mean={mean} with variance={variance}")
    model = DeepLabV3Plus(config, num_classes, name="deeplab_v3_plus")
    model.build((None, None, None, 3))
    if model.normalization and mean is not None:
        model.normalization.mean.assign(mean)
        model.normalization.variance.assign(variance)
    return model
