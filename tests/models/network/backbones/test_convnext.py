"""ConvNeXt: equal to the published network, and to itself at every output stride."""

import keras
import numpy as np
import pytest
from keras import layers

from models.network.backbones import convnext
from models.network.backbones.blocks import BatchNorm


@pytest.fixture(scope="module")
def networks() -> dict[int, keras.Model]:
    """The network at each output stride, all with the same lively weights."""
    built = {stride: convnext.build(stride, 1.0, BatchNorm()) for stride in (32, 16, 8)}
    random = np.random.default_rng(0)
    weights = []
    for weight in built[32].weights:
        spread = np.sqrt(3.0 / np.prod(weight.shape[:-1])) if weight.name == "kernel" else 0.1
        centre = 0.3 if "layer_scale" in weight.path else float(weight.name == "gamma")
        weights.append(centre + random.uniform(-spread, spread, weight.shape).astype(np.float32))
    for model in built.values():
        model.set_weights(weights)
    return built


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (*shape, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("output_stride", "last_patches", "rates"),
    [(32, [(2, 1), (2, 1)], (1, 1)), (16, [(2, 1), (1, 1)], (1, 2)), (8, [(1, 1), (1, 2)], (2, 4))],
)
def test_stages_beyond_the_output_stride_are_dilated(networks, output_stride, last_patches, rates):
    model = networks[output_stride]
    patches = [model.get_layer(f"convnext_tiny_downsampling_conv_{index}") for index in (1, 2)]
    assert [(layer.strides[0], layer.dilation_rate[0]) for layer in patches] == last_patches
    depthwise = [layer for layer in model.layers if isinstance(layer, layers.DepthwiseConv2D)]
    expected = [1] * 6 + [rates[0]] * 9 + [rates[1]] * 3
    assert [layer.dilation_rate[0] for layer in depthwise] == expected


@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 65), (33, 50)])
def test_finer_features_agree_with_coarser_ones_where_both_have_a_pixel(networks, height, width):
    x = images(1, height, width)
    features = {stride: model(x)[stride].numpy() for stride, model in networks.items()}
    for stride in (16, 8):
        assert features[stride].shape == (1, -(-height // stride), -(-width // stride), 768)
        step = 32 // stride
        scale = np.abs(features[32]).max()
        assert scale > 0.1
        np.testing.assert_allclose(features[stride][:, ::step, ::step], features[32], atol=1e-4 * scale)


def test_low_level_features_are_those_of_the_first_stage(networks):
    features = networks[16](images(1, 33, 50))
    assert set(features) == {4, 16}
    assert features[4].shape == (1, 9, 13, 96)


def test_it_has_the_published_parameters_less_the_last_normalisation(networks):
    published = keras.applications.ConvNeXtTiny(include_top=False, weights=None, input_shape=(32, 32, 3))
    assert networks[8].count_params() == published.count_params() - 2 * 768


def test_pixels_are_normalised_as_published():
    published = keras.applications.ConvNeXtTiny(include_top=False, weights=None, input_shape=(32, 32, 3))
    normalization = published.get_layer("convnext_tiny_prestem_normalization")
    pixels = np.float32([[[[0, 0, 0], [255, 127, 3]]]])
    np.testing.assert_allclose(convnext.preprocess(pixels), normalization(pixels), rtol=1e-5)


def test_the_scale_of_a_unit_survives_serialisation():
    layer = convnext.LayerScale(0.5, name="scale")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(copy) is type(layer)
    assert copy.get_config() == layer.get_config()
    np.testing.assert_array_equal(copy(np.float32([[2.0, 4.0]])), [[1.0, 2.0]])
