"""DeepLabV3 (Chen et al., arXiv 1706.05587), DeepLabV3+ (arXiv 1802.02611) and lighter variants as one network."""

from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import layers, ops

from models.config import ModelConfig
from models.network.backbones import BACKBONES, build_backbone
from models.network.backbones.blocks import truncated_normal
from models.network.heads import ASPP, HEAD_EPSILON, LRASPP, Decoder, aspp_rates, upsample
from models.network.kernels import Conv2D


@keras.saving.register_keras_serializable("deeplab")
class ChannelNormalization(layers.Layer):
    """`(images - mean) / sqrt(variance)` by channel, float32.

    Mean and variance are untrainable weights, so that every checkpoint holds them. Until they are set they map [0, 255]
    to [-1, 1].
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

    def get_config(self) -> dict[str, Any]:
        """The config without the dtype, which is fixed."""
        return {name: value for name, value in super().get_config().items() if name != "dtype"}


def feature_extractor(config: ModelConfig) -> keras.Model:
    """The backbone, from normalised images to the features that the head reads.

    The features are a dict: "last", those at the output stride, and, where the head reads a second resolution, "finer",
    those at stride 4 ("v3plus") or 8 ("lraspp").
    """
    network = build_backbone(
        config.backbone,
        output_stride=config.output_stride,
        width=config.width,
        momentum=config.batch_norm_momentum,
        epsilon=config.batch_norm_epsilon,
    )
    features = {"last": network.output[config.output_stride]}
    if config.head == "v3plus":
        features["finer"] = network.output[4]
    elif config.head == "lraspp":
        features["finer"] = network.get_layer(BACKBONES[config.backbone].middle).output
    return keras.Model(network.input, features, name=network.name)


@keras.saving.register_keras_serializable("deeplab")
class DeepLabV3Plus(keras.Model):
    """Images of any size to class logits of that size.

    The compute dtype is that of the global Keras policy when the model is made; weights and logits are float32.

    A subclass may add layers and weights; `get_config` must then have the arguments that its constructor adds.

    Args:
        input_shape: (height, width, 3), where the first two may be None. The network takes images of any size in either
            case; this is the size that Keras builds it with.
        num_classes: number of classes, the ignore label not counted.
        name: name of the model.
        options: fields of `models.config.ModelConfig`.

    Raises:
        ValueError: the shape is not that of RGB images, there is no class, or an option does not exist or has no such
            value.
    """

    def __init__(
        self,
        input_shape: Sequence[int | None] = (None, None, 3),
        num_classes: int = 21,
        *,
        name: str = "deeplab",
        **options: Any,
    ) -> None:
        # Pixels keep their 32 bits until they are normalised: bfloat16 has 8 of precision.
        super().__init__(autocast=False, name=name)
        if len(input_shape) != 3 or input_shape[-1] != 3 or any(side is not None and side < 1 for side in input_shape):
            raise ValueError(f"input_shape {tuple(input_shape)} is not (height, width, 3)")
        if num_classes < 1:
            raise ValueError(f"num_classes {num_classes} is less than 1")
        self.config = config = ModelConfig(**options)
        self.image_shape = tuple(input_shape)
        self.num_classes = num_classes
        self.normalization = ChannelNormalization(name="normalization") if config.normalization == "dataset" else None
        self.backbone = feature_extractor(config)
        self.aspp, self.decoder = self._head()
        self.classifier = Conv2D(num_classes, 1, kernel_initializer=truncated_normal(0.01), name="classifier")
        self._build_parts()
        # A subclass may add more layers, which Keras refuses once a model is built.
        if type(self) is DeepLabV3Plus:
            self.build((None, *input_shape))

    def _head(self) -> tuple[ASPP | None, Decoder | LRASPP | None]:
        """ASPP, and the part that combines features with those of finer resolution; None for what the head lacks."""
        config = self.config
        norm: dict[str, float] = {
            "momentum": config.batch_norm_momentum,
            "epsilon": config.batch_norm_epsilon or HEAD_EPSILON,
        }
        align_corners = config.resize == "align_corners"
        if config.head == "lraspp":
            return None, LRASPP(config.aspp_channels, align_corners=align_corners, name="lraspp", **norm)
        aspp = ASPP(
            config.aspp_channels,
            [] if config.head == "lite" else aspp_rates(config.output_stride),
            separable=config.separable,
            dropout=config.dropout,
            name="aspp",
            **norm,
        )
        if config.head != "v3plus":
            return aspp, None
        decoder = Decoder(
            config.decoder_channels,
            config.low_level_channels,
            separable=config.separable,
            align_corners=align_corners,
            name="decoder",
            **norm,
        )
        return aspp, decoder

    def _build_parts(self) -> None:
        """Makes every weight; no shape depends on the images' size."""
        if self.normalization:
            self.normalization.build((None, *self.image_shape))
        features = self.backbone.output
        shape = features["last"].shape
        if self.aspp:
            self.aspp.build(shape)
            shape = self.aspp.compute_output_shape(shape)
        if self.decoder:
            self.decoder.build(features["finer"].shape, shape)
            shape = self.decoder.compute_output_shape(features["finer"].shape, shape)
        self.classifier.build(shape)

    def normalize(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """uint8 or float RGB in [0, 255] to the float32 input of the backbone."""
        images = ops.cast(images, "float32")
        return self.normalization(images) if self.normalization else BACKBONES[self.config.backbone].preprocess(images)

    @property
    def feature_layers(self) -> list[layers.Layer]:
        """The layers that compute `features`."""
        return [*([self.normalization] if self.normalization else []), self.backbone]

    def features(self, images: keras.KerasTensor, training: bool = False) -> dict[str, keras.KerasTensor]:
        """The features that the head reads, as `feature_extractor` returns them, of images as in `coarse_logits`."""
        return self.backbone(self.normalize(images), training=training)

    def coarse_logits(self, images: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """Logits before the last upsampling.

        Args:
            images: (batch, height, width, 3) RGB in [0, 255], uint8 or float32; any height and width.
            training: whether batch normalisation uses the batch's statistics, and dropout drops.

        Returns:
            (batch, ceil(height / s), ceil(width / s), classes) float32, where s is 4 with the head "v3plus", 8 with
            "lraspp", and the output stride with the others.
        """
        return self.classify(self.features(images, training=training), training=training)

    def classify(self, features: dict[str, keras.KerasTensor], training: bool = False) -> keras.KerasTensor:
        """The `coarse_logits` of images from their `features`."""
        x = features["last"]
        if self.aspp:
            x = self.aspp(x, training=training)
        if self.decoder:
            x = self.decoder(features["finer"], x, training=training)
        return ops.cast(self.classifier(x), "float32")

    def call(self, images: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """The `coarse_logits`, upsampled to (batch, height, width, classes) float32."""
        logits = self.coarse_logits(images, training=training)
        return upsample(logits, images, self.config.resize == "align_corners")

    def with_output_stride(self, output_stride: int) -> Self:
        """A new model with copies of the weights, on features of another resolution (DeepLabV3, section 3.1).

        Args:
            output_stride: 8, 16 or 32. Strides of the backbone become dilation rates or the reverse, and the rates of
                ASPP follow; no weight changes its shape. The paper trains at 16 and evaluates at 8.
        """
        model = type(self).from_config({**self.get_config(), "output_stride": output_stride})
        if not model.built:  # A subclass, whose own layers Keras builds at the first call.
            model.build_from_config(self.get_build_config())
        model.set_weights(self.get_weights())
        return model

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "input_shape": self.image_shape,
            "num_classes": self.num_classes,
            **self.config.model_dump(mode="json"),
        }


def build_model(
    config: ModelConfig,
    num_classes: int = 21,
    *,
    mean: Sequence[float] | None = None,
    variance: Sequence[float] | None = None,
) -> DeepLabV3Plus:
    """The network with random weights.

    Args:
        config: the network.
        num_classes: number of classes, the ignore label not counted.
        mean, variance: mean and variance of the training pixels by channel, RGB in [0, 255]; used when
            `config.normalization` is "dataset".

    Raises:
        ValueError: only one of mean and variance is given.
    """
    if (mean is None) != (variance is None):
        raise ValueError(f"mean and variance go together, not mean={mean} with variance={variance}")
    model = DeepLabV3Plus(num_classes=num_classes, **config.model_dump())
    if model.normalization and mean is not None:
        model.normalization.mean.assign(mean)
        model.normalization.variance.assign(variance)
    return model
