"""The network: any size, any output stride on the same weights, everything trained, everything saved."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from models.config import ModelConfig
from models.network import kernels
from models.network.backbones import BACKBONES
from models.network.deeplab import ChannelNormalization, DeepLabV3Plus, build_model
from models.network.heads import ASPP, LRASPP, Decoder

TINY = {"width": 0.35, "aspp_channels": 8, "decoder_channels": 8, "low_level_channels": 4}


def tiny(**changes) -> DeepLabV3Plus:
    return build_model(ModelConfig(**{**TINY, **changes}), num_classes=3)


def lively(**changes) -> DeepLabV3Plus:
    """With momentum 0 the moving statistics are at once those of a batch, and no signal fades on its way."""
    keras.utils.set_random_seed(0)
    model = tiny(batch_norm_momentum=0.0, **changes)
    model(pixels(4, 64, 64), training=True)
    model.classifier.kernel.assign(model.classifier.kernel * 100.0)
    return model


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


def layer_kinds(model: DeepLabV3Plus) -> set[type]:
    return {type(layer) for part in (model.aspp, model.decoder) for layer in part._flatten_layers()}


@pytest.mark.parametrize(
    ("changes", "coarse_stride"),
    [
        ({"output_stride": 8}, 4),
        ({"output_stride": 32, "resize": "align_corners"}, 4),
        ({"head": "lite", "output_stride": 8}, 8),
        ({"head": "lraspp", "backbone": "mobilenet_v3_small", "output_stride": 8}, 8),
        ({"head": "lraspp", "backbone": "mobilenet_v3_large_seg", "output_stride": 32}, 8),
    ],
)
def test_one_graph_serves_every_size(changes, coarse_stride):
    model = tiny(**changes)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
    def graph(images):
        return model.coarse_logits(images), model(images)

    for height, width in [(1, 1), (2, 65), (33, 47), (64, 64)]:
        coarse, logits = graph(pixels(2, height, width))
        assert coarse.shape == (2, -(-height // coarse_stride), -(-width // coarse_stride), 3)
        assert logits.shape == (2, height, width, 3)
        assert logits.dtype == tf.float32


def test_the_graph_gives_what_eager_execution_gives():
    model = lively()
    graph = tf.function(model, input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
    images = pixels(1, 33, 47)
    eager = model(images)
    spread = np.ptp(eager)
    assert spread > 0.1
    # The graph may add up in another order, so the float32 error goes with the size of the logits, not of each one.
    np.testing.assert_allclose(graph(images), eager, atol=1e-4 * spread)


@pytest.mark.parametrize(
    ("output_stride", "rates", "separable"),
    [(8, [12, 24, 36], True), (16, [6, 12, 18], False), (32, [3, 6, 9], True)],
)
def test_the_rates_of_aspp_follow_the_output_stride(output_stride, rates, separable):
    model = tiny(output_stride=output_stride, separable=separable)
    assert [branch.layers[0].dilation_rate[0] for branch in model.aspp.branches[1:]] == rates


def test_separable_means_depthwise_convolutions_in_aspp_and_decoder():
    assert kernels.DepthwiseConv2D in layer_kinds(tiny(separable=True))
    assert kernels.DepthwiseConv2D not in layer_kinds(tiny(separable=False))


def test_the_same_weights_serve_at_every_output_stride():
    trained = lively(output_stride=16)
    images = pixels(1, 64, 64)
    for stride, rates in ((8, [12, 24, 36]), (32, [3, 6, 9])):
        model = trained.with_output_stride(stride)
        assert model.config == trained.config.model_copy(update={"output_stride": stride})
        assert [branch.layers[0].dilation_rate[0] for branch in model.aspp.branches[1:]] == rates
        assert [weight.path for weight in model.weights] == [weight.path for weight in trained.weights]
        for weight, expected in zip(model.get_weights(), trained.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)
        # Other rates and resolution, so other logits, but finite ones of like size.
        difference = np.abs(model(images) - trained(images)).max()
        assert 0.0 < difference < 10 * np.abs(trained(images)).max()


def test_another_output_stride_has_weights_of_its_own():
    trained = tiny(head="lite")
    before = trained.classifier.get_weights()[0]
    trained.with_output_stride(8).classifier.kernel.assign(before + 1.0)
    np.testing.assert_array_equal(trained.classifier.get_weights()[0], before)


def test_the_lite_head_has_the_pointwise_branch_and_image_pooling_alone():
    model = tiny(head="lite")
    assert model.decoder is None
    assert [branch.name for branch in model.aspp.branches] == ["pointwise_branch"]
    assert model.aspp.fusion.layers[0].kernel.shape == (1, 1, 16, 8)


def test_lite_reduced_aspp_gates_the_last_features_and_joins_the_finer_ones():
    head = LRASPP(2, epsilon=1e-9)
    head.build((None, None, None, 1), (None, None, None, 1))
    head.reduction.layers[0].kernel.assign(np.float32([1.0, 2.0]).reshape(1, 1, 1, 2))
    head.gate.kernel.assign(np.float32([0.0, 1.0]).reshape(1, 1, 1, 2))
    last = np.float32([3.0, 0.0]).reshape(1, 1, 2, 1)
    joined = head(np.full((1, 1, 2, 1), 7.0, np.float32), last)
    # Gates: hard sigmoid of 0 and of the mean, 1.5: 0.5 and 1.5 / 6 + 0.5 = 0.75.
    np.testing.assert_allclose(joined, [[[[7.0, 1.5, 4.5], [7.0, 0.0, 0.0]]]], atol=1e-5)
    assert head.compute_output_shape((1, 1, 2, 1), (1, 1, 2, 1)) == (1, 1, 2, 3)


def test_aligned_corners_keep_the_corner_logits():
    images = pixels(1, 33, 49)
    for head in ("v3plus", "v3"):
        model = lively(resize="align_corners", head=head)
        coarse, logits = model.coarse_logits(images)[0], model(images)[0]
        step = 32 // (coarse.shape[0] - 1)
        np.testing.assert_allclose(logits[::step, ::step], coarse, atol=1e-4 * np.ptp(coarse))
        other = build_model(model.config.model_copy(update={"resize": "half_pixel"}), 3)
        other.set_weights(model.get_weights())
        assert np.abs(other(images)[0] - logits).max() > 0.01 * np.ptp(coarse)


def test_the_short_form_is_the_network_of_the_default_configuration():
    model = DeepLabV3Plus((64, 96, 3), 5)
    assert model.config == ModelConfig()
    assert model.get_config()["input_shape"] == (64, 96, 3)
    assert model.count_params() == build_model(ModelConfig(), 5).count_params()
    assert model(pixels(1, 20, 30)).shape == (1, 20, 30, 5)


@pytest.mark.parametrize("shape", [(64, 64), (64, 64, 4), (1, 64, 64, 3), (0, 64, 3), (64, -1, 3)])
def test_a_shape_that_is_not_of_rgb_images_is_refused(shape):
    with pytest.raises(ValueError, match=r"input_shape \(.*\) is not \(height, width, 3\)"):
        DeepLabV3Plus(shape, 3, **TINY)


@pytest.mark.parametrize("count", [0, -1])
def test_a_network_without_classes_is_refused(count):
    with pytest.raises(ValueError, match=f"num_classes {count} is less than 1"):
        DeepLabV3Plus(num_classes=count, **TINY)


@keras.saving.register_keras_serializable("tests")
class WithEdges(DeepLabV3Plus):
    """Has an output and an argument more."""

    def __init__(self, *args, edge_channels: int = 1, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.edges = keras.layers.Conv2D(edge_channels, 3, padding="same", name="edges")

    def call(self, images, training=False):
        logits = super().call(images, training=training)
        return keras.ops.concatenate([logits, self.edges(logits)], axis=-1)

    def get_config(self):
        return {**super().get_config(), "edge_channels": self.edges.filters}


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_a_subclass_adds_layers_and_is_saved_with_them(tmp_path):
    model = WithEdges(num_classes=3, edge_channels=2, head="lite", **TINY)
    images = pixels(1, 20, 24)
    logits = model(images)
    assert logits.shape == (1, 20, 24, 5)
    assert type(model.with_output_stride(8)) is WithEdges
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(images), logits)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"head": "lraspp", "backbone": "mobilenet_v3_small"},
        pytest.param(
            {"backbone": "resnet50_beta", "width": 1.0, "head": "v3", "separable": False}, marks=pytest.mark.long
        ),
    ],
)
def test_the_gradient_reaches_every_trainable_weight(changes):
    # Without dropout, since with 8 channels it may hide one.
    model = tiny(dropout=0.0, **changes)
    variables = [variable.value for variable in model.trainable_weights]

    @tf.function
    def largest_gradients(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(images, training=True) ** 2)
        return [tf.reduce_max(tf.abs(gradient)) for gradient in tape.gradient(loss, variables)]

    for variable, largest in zip(variables, largest_gradients(pixels(2, 32, 48)), strict=True):
        assert 0.0 < float(largest) < np.inf, variable.name


# Keras' writer, with NumPy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_the_models_configuration_and_weights_survive_a_file(tmp_path):
    model = build_model(ModelConfig(**TINY, output_stride=8), 3, mean=[10, 20, 30], variance=[4, 9, 16])
    model(pixels(4, 32, 32), training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.config == model.config
    assert loaded.get_config() == model.get_config()
    np.testing.assert_array_equal(loaded(pixels(1, 20, 20)), model(pixels(1, 20, 20)))


@pytest.mark.parametrize(
    "layer",
    [
        ASPP(8, (1, 2), separable=False, dropout=0.2, momentum=0.5, epsilon=0.1),
        Decoder(8, 4, separable=False, align_corners=True),
        LRASPP(16, align_corners=True, momentum=0.5, epsilon=0.1),
        ChannelNormalization(name="pixels"),
        kernels.Conv2D(4, 3, strides=2, padding="same", use_bias=False),
        kernels.DepthwiseConv2D(3, dilation_rate=2, padding="same"),
        kernels.BatchNormalization(momentum=0.5, epsilon=0.1),
    ],
)
def test_layers_survive_serialisation(layer):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(copy) is type(layer)
    assert copy.get_config() == layer.get_config()
    assert keras.saving.serialize_keras_object(copy) == keras.saving.serialize_keras_object(layer)


# Keras' writer, with NumPy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_the_parts_make_up_other_networks_that_are_saved(tmp_path):
    fine, coarse = keras.Input((None, None, 5)), keras.Input((None, None, 7))
    images = keras.Input((None, None, 3))
    pyramid = ASPP(8, (1, 2))(coarse)
    outputs = [Decoder(6, 4)(fine, pyramid), LRASPP(3)(fine, coarse), ChannelNormalization()(images)]
    model = keras.Model([fine, coarse, images], outputs)
    model.save(tmp_path / "model.keras")
    random = np.random.default_rng(0)
    values = [random.normal(size=(1, *shape)).astype(np.float32) for shape in [(8, 8, 5), (2, 2, 7), (4, 4, 3)]]
    for found, expected in zip(keras.saving.load_model(tmp_path / "model.keras")(values), model(values), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_pixels_are_normalised_by_the_datasets_statistics():
    model = build_model(ModelConfig(**TINY), 3, mean=[10, 20, 30], variance=[4, 9, 16])
    images = np.uint8([12, 14, 30]).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(np.ravel(model.normalize(images)), [1.0, -2.0, 0.0])
    assert {w.path for w in model.normalization.weights} <= {w.path for w in model.non_trainable_weights}


def test_one_statistic_without_the_other_is_refused():
    with pytest.raises(ValueError, match="mean and variance"):
        build_model(ModelConfig(**TINY), 3, mean=[10, 20, 30])


@pytest.mark.parametrize(
    ("backbone", "reference"),
    [
        ("mobilenet_v2", keras.applications.mobilenet_v2.preprocess_input),
        ("mobilenet_v3_large", keras.applications.mobilenet_v2.preprocess_input),
        ("resnet101", keras.applications.resnet.preprocess_input),
        ("resnet101_beta", keras.applications.mobilenet_v2.preprocess_input),
    ],
)
def test_each_backbone_preprocesses_as_published(backbone, reference):
    images = pixels(2, 3, 4).astype(np.float32)
    np.testing.assert_allclose(BACKBONES[backbone].preprocess(images), reference(images.copy()), rtol=1e-5, atol=1e-4)


def test_the_backbones_own_preprocessing_is_a_choice():
    model = tiny(normalization="backbone")
    np.testing.assert_allclose(np.ravel(model.normalize(np.uint8([[[[0, 255, 0]]]]))), [-1.0, 1.0, -1.0])
    assert model(pixels(1, 8, 8)).shape == (1, 8, 8, 3)


def test_float_and_uint8_images_give_equal_logits():
    model = lively()
    np.testing.assert_array_equal(model(pixels(1, 9, 9)), model(pixels(1, 9, 9).astype(np.float32)))


@pytest.mark.parametrize("changes", [{}, {"resize": "align_corners", "output_stride": 8}])
def test_other_backends_compute_the_same_logits(changes, monkeypatch):
    model = lively(**changes)
    images = pixels(1, 33, 47)
    expected = model(images)
    monkeypatch.setattr(kernels, "_on_tensorflow", lambda: False)
    np.testing.assert_allclose(model(images), expected, atol=1e-4 * np.ptp(expected))


@pytest.fixture
def bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy("float32")


def test_mixed_precision_keeps_pixels_weights_and_logits_in_float32(bfloat16):
    model = tiny()
    assert model.aspp.fusion.layers[0].compute_dtype == "bfloat16"
    assert {weight.dtype for weight in model.weights} == {"float32"}
    logits = model(pixels(1, 20, 20).astype(np.float32))
    assert logits.dtype == tf.float32
    # 200.4 in bfloat16 would be 200.
    images = np.full((1, 1, 1, 3), 200.4, np.float32)
    np.testing.assert_allclose(model.normalize(images), images / 127.5 - 1.0, rtol=1e-5)


def test_a_single_pixel_trains_to_finite_logits():
    assert np.all(np.isfinite(tiny()(pixels(1, 1, 1), training=True)))


def test_resnet_has_no_width():
    with pytest.raises(ValidationError, match=r"width 0\.5 does not exist for backbone 'resnet50'; allowed: 1\.0"):
        ModelConfig(backbone="resnet50", width=0.5)


@pytest.mark.parametrize("change", [{"output_stride": 4}, {"backbone": "vgg"}, {"width": 2.0}, {"widht": 1.0}])
def test_what_does_not_exist_is_refused_at_load(change):
    with pytest.raises(ValidationError, match=next(iter(change))):
        ModelConfig(**change)
