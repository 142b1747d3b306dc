"""The modified aligned Xception: the blocks of research/deeplab, and one grid at every output stride."""

import keras
import numpy as np
import pytest
from keras import layers

from models.network.backbones import BACKBONES, xception
from models.network.backbones.blocks import BatchNorm


@pytest.fixture(scope="module")
def networks() -> dict[int, keras.Model]:
    """Xception-41 at each output stride, all with the same lively weights."""
    built = {stride: xception.build(41, stride, 1.0, BatchNorm(momentum=0.0)) for stride in (32, 16, 8)}
    keras.utils.set_random_seed(0)
    # With momentum 0 the moving statistics are at once those of a batch, and no signal fades on its way.
    built[32](images(2, 64, 64), training=True)
    for stride in (16, 8):
        built[stride].set_weights(built[32].get_weights())
    return built


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (*shape, 3)).astype(np.float32)


def strides_and_rates(model: keras.Model, prefix: str) -> list[tuple[int, int]]:
    found = [x for x in model.layers if isinstance(x, layers.DepthwiseConv2D) and x.name.startswith(prefix)]
    return [(layer.strides[0], layer.dilation_rate[0]) for layer in found]


@pytest.mark.parametrize(("depth", "entry", "middle"), [(41, 3, 8), (65, 3, 16), (71, 5, 16)])
def test_the_depths_differ_in_their_entry_and_middle_units(depth, entry, middle):
    names = [block.name for block in xception.blocks(depth)]
    assert sum(name.startswith("entry_flow") for name in names) == entry
    assert sum(name.startswith("middle_flow") for name in names) == middle
    # Two convolutions at the root, and three in each block.
    assert 2 + 3 * len(names) == depth


def test_xception_71_strides_in_every_second_entry_unit_and_reads_the_third():
    entry = [block for block in xception.blocks(71) if block.name.startswith("entry_flow")]
    assert [block.stride for block in entry] == [2, 1, 2, 1, 2]
    assert [block.channels[0] for block in entry] == [128, 256, 256, 728, 728]
    assert [block.low_level for block in entry] == [False, False, True, False, False]


def test_a_unit_strides_at_its_third_convolution(networks):
    assert strides_and_rates(networks[32], "entry_flow_block2") == [(1, 1), (1, 1), (2, 1)]
    assert strides_and_rates(networks[32], "exit_flow_block1") == [(1, 1), (1, 1), (2, 1)]
    assert strides_and_rates(networks[32], "exit_flow_block2") == [(1, 1)] * 3


@pytest.mark.parametrize(
    ("output_stride", "entry", "middle", "first_exit", "last_exit"),
    [(16, (2, 1), (1, 1), (1, 1), (1, 2)), (8, (1, 1), (1, 2), (1, 2), (1, 4))],
)
def test_the_units_beyond_the_output_stride_are_dilated(networks, output_stride, entry, middle, first_exit, last_exit):
    model = networks[output_stride]
    assert strides_and_rates(model, "entry_flow_block3")[-1] == entry
    assert strides_and_rates(model, "middle_flow") == [middle] * 24
    assert strides_and_rates(model, "exit_flow_block1") == [first_exit] * 3
    assert strides_and_rates(model, "exit_flow_block2") == [last_exit] * 3


@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 65), (33, 50)])
def test_finer_features_agree_with_coarser_ones_where_both_have_a_pixel(networks, height, width):
    x = images(1, height, width)
    features = {stride: model(x)[stride].numpy() for stride, model in networks.items()}
    for stride in (16, 8):
        assert features[stride].shape[1:3] == (-(-height // stride), -(-width // stride))
        step = 32 // stride
        scale = np.abs(features[32]).max()
        assert scale > 0.1
        np.testing.assert_allclose(features[stride][:, ::step, ::step], features[32], atol=1e-4 * scale)


def test_features_have_the_published_channels_and_low_level_ones_are_not_rectified(networks):
    features = networks[16](images(1, 33, 50))
    assert set(features) == {4, 16}
    assert features[4].shape == (1, 9, 13, 256)
    assert features[16].shape == (1, 3, 4, 2048)
    assert np.min(features[4]) < 0.0
    assert np.min(features[16]) == 0.0


def test_the_deepest_has_its_units():
    model = xception.build(71, 32, 1.0, BatchNorm())
    depthwise = [layer for layer in model.layers if isinstance(layer, layers.DepthwiseConv2D)]
    assert len(depthwise) == 3 * len(xception.blocks(71))
    assert sum(layer.strides[0] == 2 for layer in depthwise) == 4
    assert [layer.name for layer in model.layers if layer.name.endswith("_shortcut")] == [
        f"{block.name}_shortcut" for block in xception.blocks(71) if block.shortcut == "conv"
    ]
    assert model(images(1, 33, 33))[4].shape == (1, 9, 9, 256)


def test_batch_normalisation_follows_both_halves(networks):
    names = {layer.name for layer in networks[16].layers}
    assert {f"exit_flow_block2_unit_1_separable_conv3_{half}_norm" for half in ("depthwise", "pointwise")} <= names
    assert "middle_flow_block1_unit_8_separable_conv1_relu" in names
    assert "exit_flow_block2_unit_1_separable_conv1_relu" not in names
    assert "exit_flow_block2_unit_1_separable_conv1_depthwise_relu" in names


def test_the_parameters_are_those_of_the_units(networks):
    """By hand: kernels, and four numbers of normalisation for each channel that a convolution puts out."""

    def separable(before: int, after: int) -> int:
        return 9 * before + before * after + 4 * (before + after)

    def conv(size: int, before: int, after: int) -> int:
        return size * size * before * after + 4 * after

    entry = conv(3, 3, 32) + conv(3, 32, 64)
    for before, after in ((64, 128), (128, 256), (256, 728)):
        entry += separable(before, after) + 2 * separable(after, after) + conv(1, before, after)
    middle = 8 * 3 * separable(728, 728)
    last = separable(728, 728) + separable(728, 1024) + separable(1024, 1024) + conv(1, 728, 1024)
    last += separable(1024, 1536) + separable(1536, 1536) + separable(1536, 2048)
    assert networks[16].count_params() == entry + middle + last


def test_pixels_are_mapped_to_one_around_zero():
    pixels = np.float32([0.0, 127.5, 255.0])
    np.testing.assert_allclose(BACKBONES["xception65"].preprocess(pixels), [-1.0, 0.0, 1.0])
