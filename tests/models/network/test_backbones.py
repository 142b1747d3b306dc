"""The backbones: equal to the published networks, and dilated where a stride is taken away."""

from functools import partial
from typing import get_args

import keras
import numpy as np
import pytest
from keras import layers

from models.config import WIDTHS, BackboneName
from models.network.backbones import BACKBONES, build_backbone, mobilenet_v2
from models.network.backbones.blocks import atrous_schedule, round_channels

pytestmark = pytest.mark.usefixtures("blank_weights")

PUBLISHED = {
    "mobilenet_v2": keras.applications.MobileNetV2,
    "mobilenet_v3_small": partial(keras.applications.MobileNetV3Small, include_preprocessing=False),
    "mobilenet_v3_large": partial(keras.applications.MobileNetV3Large, include_preprocessing=False),
    "resnet50": keras.applications.ResNet50,
    "resnet101": keras.applications.ResNet101,
}


def published(name: str, size: tuple[int | None, int | None] = (None, None), **kwargs) -> keras.Model:
    return PUBLISHED[name](include_top=False, weights=None, input_shape=(*size, 3), **kwargs)


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
def test_mobilenet_v2_dilates_the_units_of_the_reference_code(output_stride, strided, rates):
    model = build_backbone("mobilenet_v2", output_stride=output_stride, width=0.35)
    expected = [(2 if block in strided else 1, rate) for block, rate in enumerate(rates)]
    assert strides_and_rates(model, layers.DepthwiseConv2D, "_depthwise") == expected


@pytest.mark.parametrize(
    ("size", "output_stride", "strided", "rates"),
    [
        ("large", 32, {1, 3, 6, 12}, [1] * 15),
        ("large", 16, {1, 3, 6}, [1] * 13 + [2] * 2),
        ("large", 8, {1, 3}, [1] * 7 + [2] * 6 + [4] * 2),
        ("small", 32, {0, 1, 3, 8}, [1] * 11),
        ("small", 16, {0, 1, 3}, [1] * 9 + [2] * 2),
        ("small", 8, {0, 1}, [1] * 4 + [2] * 5 + [4] * 2),
    ],
)
def test_mobilenet_v3_dilates_the_units_after_a_lost_stride(size, output_stride, strided, rates):
    model = build_backbone(f"mobilenet_v3_{size}", output_stride=output_stride, width=0.35)
    expected = [(2 if block in strided else 1, rate) for block, rate in enumerate(rates)]
    assert strides_and_rates(model, layers.DepthwiseConv2D, "_depthwise") == expected


@pytest.mark.parametrize(
    ("output_stride", "strided", "rates"),
    [
        (32, {3, 7, 13}, [1] * 16),
        (16, {3, 7}, [1] * 13 + [2] * 3),
        (8, {3}, [1] * 7 + [2] * 6 + [4] * 3),
    ],
)
def test_resnet_strides_in_the_first_convolution_and_dilates_the_second(output_stride, strided, rates):
    model = build_backbone("resnet50", output_stride=output_stride)
    blocks = [(2 if block in strided else 1, 1) for block in range(16)]
    assert strides_and_rates(model, layers.Conv2D, "_1_conv")[-16:] == blocks
    assert strides_and_rates(model, layers.Conv2D, "_2_conv") == [(1, rate) for rate in rates]


@pytest.mark.parametrize(
    ("output_stride", "strided", "rates"),
    [
        (32, {2, 6, 12}, [1] * 13 + [1, 2, 4]),
        (16, {2, 6}, [1] * 13 + [2, 4, 8]),
        (8, {2}, [1] * 7 + [2] * 6 + [4, 8, 16]),
    ],
)
def test_resnet_beta_strides_in_the_last_unit_and_ends_with_a_multi_grid(output_stride, strided, rates):
    model = build_backbone("resnet50_beta", output_stride=output_stride)
    blocks = [(2 if block in strided else 1, rate) for block, rate in enumerate(rates)]
    assert strides_and_rates(model, layers.Conv2D, "_2_conv")[-16:] == blocks
    assert [model.get_layer(f"conv1_{index}_conv").kernel.shape for index in (1, 2, 3)] == [
        (3, 3, 3, 64),
        (3, 3, 64, 64),
        (3, 3, 64, 128),
    ]


@pytest.mark.parametrize(
    ("name", "low_level_channels", "middle_channels", "channels"),
    [
        ("mobilenet_v2", 144, 192, 320),
        ("mobilenet_v3_small", 16, 88, 576),
        ("mobilenet_v3_large", 72, 120, 960),
        ("resnet18", 64, 128, 512),
        ("resnet50", 256, 512, 2048),
        ("resnet50_beta", 256, 512, 2048),
        ("xception71", 256, 728, 2048),
        ("convnext_tiny", 96, 192, 768),
    ],
)
def test_features_have_the_published_channels_and_round_sizes_up(name, low_level_channels, middle_channels, channels):
    network = build_backbone(name, output_stride=16)
    middle = network.get_layer(BACKBONES[name].middle).output
    features = keras.Model(network.input, {**network.output, 8: middle})(np.zeros((1, 33, 50, 3), np.float32))
    assert {stride: feature.shape for stride, feature in features.items()} == {
        4: (1, 9, 13, low_level_channels),
        8: (1, 5, 7, middle_channels),
        16: (1, 3, 4, channels),
    }


@pytest.mark.parametrize(
    ("name", "width"),
    [
        *(("mobilenet_v2", width) for width in (0.35, 0.5, 1.4)),
        *((f"mobilenet_v3_{size}", width) for size in ("small", "large") for width in (0.35, 1.4)),
        ("resnet101", 1.0),
    ],
)
def test_every_layer_has_the_name_and_shape_of_the_published_one(name, width):
    model = build_backbone(name, output_stride=16, width=width)
    reference = published(name, **({"alpha": width} if name in WIDTHS else {}))
    cut = 0
    if name == "mobilenet_v2":
        cut = reference.get_layer("Conv_1").count_params() + reference.get_layer("Conv_1_bn").count_params()
    assert model.count_params() == reference.count_params() - cut
    for layer in model.layers:
        if layer.weights:
            shapes = [weight.shape for weight in layer.weights]
            assert shapes == [weight.shape for weight in reference.get_layer(layer.name).weights], layer.name


@pytest.mark.parametrize(("depth", "millions"), [(18, 11.69), (34, 21.80)])
def test_the_shallow_resnets_have_the_published_number_of_parameters(depth, millions):
    trained = sum(
        np.prod(weight.shape) for weight in build_backbone(f"resnet{depth}", output_stride=32).trainable_weights
    )
    classifier = 512 * 1000 + 1000
    assert round((trained + classifier) / 1e6, 2) == millions


def test_a_narrow_resnet_has_fewer_channels_in_every_stage():
    model = build_backbone("resnet18", output_stride=16, width=0.5)
    assert [model.get_layer(f"conv{stage}_block2_2_conv").filters for stage in (2, 3, 4, 5)] == [32, 64, 128, 256]
    assert model.get_layer("conv1_conv").filters == 32


@pytest.mark.parametrize(
    ("channels", "rounded"),
    [(3, 8), (8.8, 8), (8.9, 16), (12, 16), (44.8, 48), (18.0, 24), (17.7, 16), (88 / 24 * 24, 88)],
)
def test_channels_are_multiples_of_8_and_not_more_than_a_tenth_less(channels, rounded):
    assert round_channels(channels) == rounded


def test_the_networks_of_research_deeplab_have_its_channels():
    half = build_backbone("mobilenet_v2_seg", output_stride=16, width=0.5)
    assert [half.get_layer(f"block_{index}_project").filters for index in (1, 6, 10, 16)] == [12, 32, 48, 160]
    assert mobilenet_v2.scaled(24, 0.5) == 16
    large = build_backbone("mobilenet_v3_large_seg", output_stride=16)
    small = build_backbone("mobilenet_v3_small_seg", output_stride=16)
    assert [large.get_layer(f"expanded_conv_{index}_expand").filters for index in (11, 12, 13, 14)] == [
        672,
        336,
        480,
        480,
    ]
    assert [small.get_layer(f"expanded_conv_{index}_expand").filters for index in (7, 8, 9, 10)] == [144, 144, 288, 288]
    assert [large.get_layer(f"expanded_conv_{index}_project").filters for index in (11, 12, 14)] == [112, 80, 80]


def randomize(model: keras.Model) -> None:
    """Weights with which no layer is the identity, and signals neither vanish nor overflow."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        spread = np.sqrt(3.0 / np.prod(weight.shape[:3])) if weight.name == "kernel" else 0.1
        centre = 1.0 if weight.name in ("gamma", "moving_variance") else 0.0
        weight.assign(centre + random.uniform(-spread, spread, weight.shape))


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("mobilenet_v2", "block_16_project_BN"),
        ("mobilenet_v3_small", None),
        ("mobilenet_v3_large", None),
        ("resnet50", "conv5_block3_out"),
    ],
)
@pytest.mark.parametrize("size", [(64, 64), (33, 47)])
def test_features_equal_the_published_networks_when_weights_are_copied_by_name(name, last, size):
    reference = published(name, size)
    randomize(reference)
    model = build_backbone(name, output_stride=32)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(reference.get_layer(layer.name).get_weights())
    images = np.random.default_rng(1).uniform(-1, 1, (2, *size, 3)).astype(np.float32)
    output = reference.get_layer(last).output if last else reference.output
    expected = keras.Model(reference.input, output)(images)
    scale = float(np.abs(expected).max())
    assert scale > 1e-3
    np.testing.assert_allclose(model(images)[32], expected, atol=1e-4 * scale)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "resnet50", "resnet50_beta"])
def test_a_smaller_output_stride_adds_places_between_the_same_features(name):
    # Sides of a multiple of 32 plus 1 put the features of all strides on one grid. Squeeze and excitation, which
    # MobileNetV3 has, depends on all places, and so on their number.
    images = np.random.default_rng(1).uniform(-1, 1, (1, 65, 97, 3)).astype(np.float32)
    models = {stride: build_backbone(name, output_stride=stride) for stride in (32, 16, 8)}
    randomize(models[32])
    coarse = models[32](images)
    scale = float(np.abs(coarse[32]).max())
    assert scale > 1e-3
    for stride in (16, 8):
        models[stride].set_weights(models[32].get_weights())
        fine, step = models[stride](images), 32 // stride
        np.testing.assert_array_equal(fine[4], coarse[4])
        np.testing.assert_allclose(fine[stride][:, ::step, ::step], coarse[32], atol=1e-4 * scale)


def test_the_configuration_knows_the_backbones_that_there_are() -> None:
    assert set(WIDTHS) <= set(BACKBONES) == set(get_args(BackboneName))
