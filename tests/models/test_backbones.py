"""The backbones: equal to the published networks, and dilated where a stride is taken away."""

from typing import get_args

import keras
import numpy as np
import pytest
from keras import layers

from models.backbones import BACKBONES, build_backbone
from models.backbones.blocks import atrous_schedule
from models.config import WIDTHS, ModelConfig

PUBLISHED = {"mobilenet_v2": keras.applications.MobileNetV2, "resnet50": keras.applications.ResNet50}


def published(name: str, **kwargs) -> keras.Model:
    return PUBLISHED[name](include_top=False, weights=None, input_shape=(None, None, 3), **kwargs)


def strides_and_rates(model: keras.Model, kind: type[layers.Layer], suffix: str) -> list[tuple[int, int]]:
    found = [layer for layer in model.layers if isinstance(layer, kind) and layer.name.endswith(suffix)]
    return [(layer.strides[0], layer.dilation_rate[0]) for layer in found]


def test_a_unit_beyond_the_target_loses_its_stride_and_the_following_ones_are_dilated():
    strides = [1, 2, 1, 2, 1, 2, 1]
    assert atrous_schedule(strides, 16, stem_stride=4) == [(1, 1), (2, 1), (1, 1), (2, 1), (1, 1), (1, 1), (1, 2)]
    assert atrous_schedule(strides, 8, stem_stride=4) == [(1, 1), (2, 1), (1, 1), (1, 1), (1, 2), (1, 2), (1, 4)]
    assert [stride for stride, _ in atrous_schedule(strides, 32, stem_stride=4)] == strides


@pytest.mark.parametrize(
    ("output_stride", "strided", "rates"),
    [
        (32, {1, 3, 6, 13}, [1] * 17),
        (16, {1, 3, 6}, [1] * 14 + [2] * 3),
        (8, {1, 3}, [1] * 7 + [2] * 7 + [4] * 3),
    ],
)
def test_mobilenet_dilates_the_units_of_the_reference_code(output_stride, strided, rates):
    model = build_backbone("mobilenet_v2", output_stride=output_stride, width=0.35)
    expected = [(2 if unit in strided else 1, rate) for unit, rate in enumerate(rates)]
    assert strides_and_rates(model, layers.DepthwiseConv2D, "_depthwise") == expected


@pytest.mark.parametrize(
    ("output_stride", "strided", "rates"),
    [
        (32, {3, 7, 13}, [1] * 16),
        (16, {3, 7}, [1] * 14 + [2] * 2),
        (8, {3}, [1] * 8 + [2] * 6 + [4] * 2),
    ],
)
def test_resnet_strides_in_the_first_convolution_and_dilates_the_second(output_stride, strided, rates):
    model = build_backbone("resnet50", output_stride=output_stride)
    units = [(2 if unit in strided else 1, 1) for unit in range(16)]
    assert strides_and_rates(model, layers.Conv2D, "_1_conv") == units
    assert strides_and_rates(model, layers.Conv2D, "_2_conv") == [(1, rate) for rate in rates]


@pytest.mark.parametrize(
    ("name", "low_level_channels", "channels"), [("mobilenet_v2", 144, 320), ("resnet50", 256, 2048)]
)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_features_have_the_published_channels_and_round_sizes_up(name, low_level_channels, channels, output_stride):
    model = build_backbone(name, output_stride=output_stride)
    features = model(np.zeros((1, 33, 50, 3), np.float32))
    assert set(features) == {4, output_stride}
    assert features[4].shape == (1, 9, 13, low_level_channels)
    assert features[output_stride].shape == (1, -(-33 // output_stride), -(-50 // output_stride), channels)


@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 1.0, 1.3, 1.4])
def test_mobilenet_has_the_published_layers_less_the_last_convolution(width):
    model = build_backbone("mobilenet_v2", output_stride=16, width=width)
    reference = published("mobilenet_v2", alpha=width)
    last = reference.get_layer("Conv_1").count_params() + reference.get_layer("Conv_1_bn").count_params()
    assert model.count_params() == reference.count_params() - last
    for layer in model.layers[1:]:
        shapes = [weight.shape for weight in layer.weights]
        assert shapes == [weight.shape for weight in reference.get_layer(layer.name).weights]


def test_resnet_has_the_published_parameters():
    assert build_backbone("resnet50", output_stride=8).count_params() == published("resnet50").count_params()


def randomize(model: keras.Model) -> None:
    """Weights with which no layer is the identity, and signals neither vanish nor overflow."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        spread = np.sqrt(3.0 / np.prod(weight.shape[:3])) if weight.name == "kernel" else 0.1
        centre = 1.0 if weight.name in ("gamma", "moving_variance") else 0.0
        weight.assign(centre + random.uniform(-spread, spread, weight.shape))


@pytest.mark.parametrize(("name", "last"), [("mobilenet_v2", "block_16_project_BN"), ("resnet50", "conv5_block3_out")])
@pytest.mark.parametrize("size", [(64, 64), (33, 47)])
def test_features_equal_the_published_networks_when_weights_are_copied_by_name(name, last, size):
    reference = PUBLISHED[name](include_top=False, weights=None, input_shape=(*size, 3))
    randomize(reference)
    model = build_backbone(name, output_stride=32)
    for layer in model.layers[1:]:
        layer.set_weights(reference.get_layer(layer.name).get_weights())
    images = np.random.default_rng(1).uniform(-1, 1, (2, *size, 3)).astype(np.float32)
    expected = keras.Model(reference.input, reference.get_layer(last).output)(images)
    scale = float(np.abs(expected).max())
    assert scale > 1e-3
    np.testing.assert_allclose(model(images)[32], expected, atol=1e-4 * scale)


def test_the_configuration_knows_the_backbones_that_there_are() -> None:
    assert set(WIDTHS) == set(BACKBONES) == set(get_args(ModelConfig.model_fields["backbone"].annotation))
