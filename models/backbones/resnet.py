"""ResNet v1 (He et al., arXiv 1512.03385) as a dense feature extractor.

Layers bear the names of `keras.applications.ResNet50`, so that weights can be copied by name: the stride of a stage
stands in the first 1x1 convolution of its first unit, and every convolution has a bias.
"""

import keras
from keras import layers, ops

from models.backbones.blocks import BatchNorm, atrous_schedule
from models.kernels import Conv2D

#: (channels of the 3x3 convolutions, units, stride of the first unit): table 1 of the paper, 50 layers.
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
#: The decoder reads the third convolution of this unit (stage, unit), before the sum, as research/deeplab does.
LOW_LEVEL_UNIT = (2, 2)
EPSILON = 1.001e-5
#: Channel means of ImageNet in BGR order, which the published weights expect to be subtracted.
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)


def preprocess(images: keras.KerasTensor) -> keras.KerasTensor:
    """Float RGB in [0, 255] to BGR less the mean of ImageNet, as the published weights expect."""
    return ops.flip(images, axis=-1) - ops.convert_to_tensor(IMAGENET_MEAN_BGR, dtype="float32")


def _conv(
    x: keras.KerasTensor, channels: int, kernel: int, name: str, stride: int = 1, rate: int = 1
) -> keras.KerasTensor:
    return Conv2D(
        channels,
        kernel,
        strides=stride,
        dilation_rate=rate,
        padding="same",
        kernel_initializer="he_normal",
        name=name,
    )(x)


def _stem(x: keras.KerasTensor, norm: BatchNorm) -> keras.KerasTensor:
    """7x7 convolution and 3x3 maximum, each of stride 2, with symmetric padding."""
    x = layers.ZeroPadding2D(3, name="conv1_pad")(x)
    x = Conv2D(64, 7, strides=2, kernel_initializer="he_normal", name="conv1_conv")(x)
    x = layers.ReLU(name="conv1_relu")(norm("conv1_bn")(x))
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    return layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)


def _bottleneck(
    x: keras.KerasTensor, prefix: str, channels: int, stride: int, rate: int, project: bool, norm: BatchNorm
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """One unit: the normalised third convolution (4 * channels), and the rectified sum with the shortcut."""
    shortcut = x
    if project:
        shortcut = norm(f"{prefix}_0_bn")(_conv(x, 4 * channels, 1, f"{prefix}_0_conv", stride))
    x = norm(f"{prefix}_1_bn")(_conv(x, channels, 1, f"{prefix}_1_conv", stride))
    x = layers.ReLU(name=f"{prefix}_1_relu")(x)
    x = norm(f"{prefix}_2_bn")(_conv(x, channels, 3, f"{prefix}_2_conv", rate=rate))
    x = layers.ReLU(name=f"{prefix}_2_relu")(x)
    residual = norm(f"{prefix}_3_bn")(_conv(x, 4 * channels, 1, f"{prefix}_3_conv"))
    x = layers.Add(name=f"{prefix}_add")([shortcut, residual])
    return residual, layers.ReLU(name=f"{prefix}_out")(x)


def build(output_stride: int, width: float, norm: BatchNorm) -> keras.Model:
    """ResNet-50 from normalised images to {4: 256 channels of stage 2, output_stride: 2048 channels of stage 5}.

    Args:
        output_stride: 8, 16 or 32.
        width: 1.0; the published network has no other.
        norm: batch normalisation of every layer.
    """
    del width
    units = [
        (stage, unit, channels, stride if unit == 1 else 1)
        for stage, (channels, count, stride) in enumerate(STAGES, start=2)
        for unit in range(1, count + 1)
    ]
    schedule = atrous_schedule([stride for *_, stride in units], output_stride, stem_stride=4)

    images = keras.Input((None, None, 3), name="normalized_images")
    x = _stem(images, norm)
    features = {}
    for (stage, unit, channels, _), (stride, rate) in zip(units, schedule, strict=True):
        residual, x = _bottleneck(x, f"conv{stage}_block{unit}", channels, stride, rate, unit == 1, norm)
        if (stage, unit) == LOW_LEVEL_UNIT:
            features[4] = residual
    features[output_stride] = x
    return keras.Model(images, features, name="resnet50")
