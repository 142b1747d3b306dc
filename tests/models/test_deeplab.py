"""The network: any size, any output stride on the same weights, everything trained, everything saved."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from models.backbones import BACKBONES
from models.config import ModelConfig
from models.deeplab import ASPP, Decoder, DeepLabV3Plus, build_model

TINY = {"width": 0.35, "aspp_channels": 8, "decoder_channels": 8, "low_level_channels": 4}


def tiny(**changes) -> DeepLabV3Plus:
    return build_model(ModelConfig(**{**TINY, **changes}), num_classes=3)


def lively(**changes) -> DeepLabV3Plus:
    """With momentum 0 the moving statistics are at once those of a batch, and no signal fades on its way."""
    model = tiny(batch_norm_momentum=0.0, **changes)
    model(pixels(4, 64, 64), training=True)
    model.classifier.kernel.assign(model.classifier.kernel * 100.0)
    return model


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


def layer_kinds(model: DeepLabV3Plus) -> set[type]:
    return {type(layer) for part in (model.aspp, model.decoder) for layer in part._flatten_layers()}


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_one_graph_serves_every_size(output_stride):
    model = tiny(output_stride=output_stride)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
    def graph(images):
        return model.coarse_logits(images), model(images)

    for height, width in [(1, 1), (2, 65), (33, 47), (64, 64)]:
        coarse, logits = graph(pixels(2, height, width))
        assert coarse.shape == (2, -(-height // 4), -(-width // 4), 3)
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


@pytest.mark.parametrize(("output_stride", "rates"), [(8, [12, 24, 36]), (16, [6, 12, 18]), (32, [3, 6, 9])])
@pytest.mark.parametrize("separable", [True, False])
def test_the_rates_of_aspp_follow_the_output_stride(output_stride, rates, separable):
    model = tiny(output_stride=output_stride, separable=separable)
    assert [branch.layers[0].dilation_rate[0] for branch in model.aspp.branches[1:]] == rates


def test_separable_means_depthwise_convolutions_in_aspp_and_decoder():
    assert keras.layers.DepthwiseConv2D in layer_kinds(tiny(separable=True))
    assert keras.layers.DepthwiseConv2D not in layer_kinds(tiny(separable=False))


def test_the_same_weights_serve_at_every_output_stride():
    trained = lively(output_stride=16)
    images = pixels(1, 64, 64)
    for stride in (8, 32):
        model = tiny(output_stride=stride)
        model.set_weights(trained.get_weights())
        assert [weight.path for weight in model.weights] == [weight.path for weight in trained.weights]
        # Other rates and resolution, so other logits, but finite ones of like size.
        difference = np.abs(model(images) - trained(images)).max()
        assert 0.0 < difference < 10 * np.abs(trained(images)).max()


@pytest.mark.parametrize("changes", [{}, {"separable": False}, {"backbone": "resnet50", "width": 1.0}])
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
    [ASPP(8, (1, 2), separable=False, dropout=0.2, momentum=0.5, epsilon=0.1), Decoder(8, 4, separable=False)],
)
def test_layers_survive_serialisation(layer):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(copy) is type(layer)
    assert copy.get_config() == layer.get_config()


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
        ("resnet50", keras.applications.resnet.preprocess_input),
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


def test_a_resnet_50_of_the_papers_size_has_about_forty_million_parameters():
    model = build_model(ModelConfig(backbone="resnet50", separable=False), 21)
    assert model.count_params() == pytest.approx(40e6, rel=0.03)
