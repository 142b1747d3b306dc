"""ConvNeXt-Tiny (Liu et al., arXiv 2201.03545) as a dense feature extractor: the modern network of the family.

Why this one and not EfficientNetV2, which is about as young and as large:

- Its normalisation is by pixel. Batch normalisation needs a dozen images in a step, or replicas that synchronise;
  layer normalisation is the same for one image and for many, in training and in prediction.
- It has no squeeze-and-excitation, so that the features at a place depend on its surroundings and not on the size of
  the crop or window that it is seen in.
- Its strides stand in layers of their own that do not overlap. Without them, dilated, the features at every 2nd or 4th
  pixel equal those at the next larger output stride, which is what atrous convolution promises.
- Its authors publish results in segmentation (UperNet on ADE20K, section 4), those of EfficientNetV2 do not.

Layers bear the names of `keras.applications.ConvNeXtTiny`. Two deviations from it, neither of which changes a number
where its weights are copied and sides are multiples of 32: the 7x7 convolutions are depthwise ones, since TensorFlow
has no gradient of grouped ones on a CPU (`models.weights.initial_weights` reshapes their kernels); and images of
other sizes are padded below and to the right, where it cuts them off. The features come from before its last
normalisation.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from models.network.backbones.blocks import BatchNorm, atrous_schedule, truncated_normal
from models.network.kernels import Conv2D, DepthwiseConv2D

#: (channels, blocks, stride of the patches before them): section 2 of the paper, ConvNeXt-T.
STAGES = ((96, 3, 4), (192, 3, 2), (384, 9, 2), (768, 3, 2))
#: Epsilon of the layer normalisations.
EPSILON = 1e-6
#: Mean and standard deviation of ImageNet's pixels in [0, 255], RGB.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STDDEV = (58.395, 57.12, 57.375)


def preprocess(images: keras.KerasTensor) -> keras.KerasTensor:
    """Float RGB in [0, 255] to mean 0 and variance 1 on ImageNet, as the published weights expect."""
    mean, stddev = (keras.ops.convert_to_tensor(values, "float32") for values in (IMAGENET_MEAN, IMAGENET_STDDEV))
    return (images - mean) / stddev


@keras.saving.register_keras_serializable("deeplab")
class LayerScale(layers.Layer):
    """`inputs * gamma` by channel, gamma learned (Touvron et al., arXiv 2103.17239).

    Args:
        initial: what gamma starts from; small, so that each block starts near the identity.
    """

    def __init__(self, initial: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial = initial

    def build(self, input_shape: Sequence[int | None]) -> None:
        initializer = keras.initializers.Constant(self.initial)
        self.gamma = self.add_weight(shape=(input_shape[-1],), initializer=initializer, name="gamma")

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return inputs * self.gamma

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "initial": self.initial}


def _norm(name: str) -> layers.Layer:
    return layers.LayerNormalization(epsilon=EPSILON, name=name)


def _patches(x: keras.KerasTensor, channels: int, size: int, stride: int, rate: int, name: str) -> keras.KerasTensor:
    """Convolution whose kernel is as large as its nominal stride; (height, width) shrink by the stride, rounded up.

    Padding is added below and to the right only, so that the grid begins at the first pixel at every stride and rate.
    """
    margin = (size - 1) * rate
    x = layers.ZeroPadding2D(((0, margin), (0, margin)), name=f"{name}_pad")(x)
    return Conv2D(
        channels, size, strides=stride, dilation_rate=rate, kernel_initializer=truncated_normal(0.02), name=name
    )(x)


def _block(x: keras.KerasTensor, prefix: str, rate: int) -> keras.KerasTensor:
    """Depthwise 7x7, layer normalisation, inverted bottleneck with GELU, and the sum with the input (figure 4)."""
    inputs, channels = x, x.shape[-1]
    x = DepthwiseConv2D(
        7,
        padding="same",
        dilation_rate=rate,
        depthwise_initializer=truncated_normal(0.02),
        name=f"{prefix}_depthwise_conv",
    )(x)
    x = _norm(f"{prefix}_layernorm")(x)
    x = layers.Dense(4 * channels, kernel_initializer=truncated_normal(0.02), name=f"{prefix}_pointwise_conv_1")(x)
    x = layers.Activation("gelu", name=f"{prefix}_gelu")(x)
    x = layers.Dense(channels, kernel_initializer=truncated_normal(0.02), name=f"{prefix}_pointwise_conv_2")(x)
    x = LayerScale(name=f"{prefix}_layer_scale")(x)
    return layers.Add(name=f"{prefix}_add")([inputs, x])


def build(output_stride: int, width: float, norm: BatchNorm) -> keras.Model:
    """The network from normalised images to {4: 96 channels of stage 0, output_stride: 768 channels of stage 3}.

    Args:
        output_stride: 8, 16 or 32.
        width: 1.0; the published network has no other.
        norm: not used, since there is no batch normalisation.
    """
    del width, norm
    schedule = atrous_schedule([stride for *_, stride in STAGES], output_stride, stem_stride=1)

    images = keras.Input((None, None, 3), name="normalized_images")
    x = images
    features = {}
    for stage, ((channels, count, size), (stride, rate)) in enumerate(zip(STAGES, schedule, strict=True)):
        if stage == 0:
            x = _patches(x, channels, size, stride, rate, "convnext_tiny_stem_conv")
            x = _norm("convnext_tiny_stem_layernorm")(x)
        else:
            x = _norm(f"convnext_tiny_downsampling_layernorm_{stage - 1}")(x)
            x = _patches(x, channels, size, stride, rate, f"convnext_tiny_downsampling_conv_{stage - 1}")
        rate_below = rate * size // stride
        for block in range(count):
            x = _block(x, f"convnext_tiny_stage_{stage}_block_{block}", rate_below)
        if stage == 0:
            features[4] = x
    features[output_stride] = x
    return keras.Model(images, features, name="convnext_tiny")
