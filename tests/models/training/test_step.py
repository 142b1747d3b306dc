"""One training step: which weights change, by how much, and in which precision; alone, in parts, and compiled."""

from collections.abc import Iterator

import keras
import numpy as np
import pytest
import tensorflow as tf

from data.features import IGNORE_LABEL
from models.config import ModelConfig, TrainingConfig
from models.network import kernels
from models.network.deeplab import DeepLabV3Plus, build_model
from models.training.step import TrainStep
from models.training.strategies import distribute

ALIKE = np.ones(2, np.float32)


def network() -> keras.Model:
    """A convolution, batch normalisation, a depthwise convolution and a classifier for two classes."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.layers.Input((None, None, 3)),
            keras.layers.Conv2D(4, 3, padding="same", name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise"),
            keras.layers.Conv2D(2, 1, name="classifier"),
        ]
    )


def batch(label: int = 1) -> tuple[tf.Tensor, tf.Tensor]:
    images = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    return tf.constant(images), tf.fill((2, 8, 8), tf.constant(label, tf.uint8))


def values(model: keras.Model) -> dict[str, np.ndarray]:
    return {f"{v.path.split('/')[-2]}/{v.name}": v.numpy() for v in model.trainable_variables}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_only_convolution_kernels_decay(optimizer: str) -> None:
    # With nothing but void the loss has no gradient, so what changes has decayed.
    model = network()
    before = values(model)
    config = TrainingConfig(steps=10, optimizer=optimizer, learning_rate=0.1, power=0.0, momentum=0.0, weight_decay=0.5)
    TrainStep(model, config, ALIKE).run(*batch(IGNORE_LABEL))
    for name, value in values(model).items():
        # SGD: the gradient of wd / 2 |w|^2 is wd w. AdamW: w loses the fraction rate * wd. Both: 0.1 * 0.5.
        expected = 0.95 * before[name] if name in ("conv/kernel", "classifier/kernel") else before[name]
        np.testing.assert_allclose(value, expected, rtol=1e-5, err_msg=name)


def test_a_step_of_sgd_by_hand() -> None:
    # Two classes and a bias alone: the gradient is softmax - onehot = (.5, -.5) at logits (0, 0).
    model = keras.Sequential(
        [keras.layers.Input((None, None, 3)), keras.layers.Conv2D(2, 1, kernel_initializer="zeros", name="classifier")]
    )
    config = TrainingConfig(steps=10, optimizer="sgd", learning_rate=0.1, power=0.0, momentum=0.0, weight_decay=0.0)
    images, masks = tf.zeros((1, 2, 2, 3)), tf.ones((1, 2, 2), tf.uint8)
    loss, norm, _ = TrainStep(model, config, ALIKE).run(images, masks)
    assert float(loss) == pytest.approx(np.log(2))
    assert float(norm) == pytest.approx(np.sqrt(0.5))
    np.testing.assert_allclose(model.layers[-1].bias, [-0.05, 0.05], rtol=1e-5)


def test_a_clipped_step_has_the_length_of_the_limit() -> None:
    model = network()
    config = TrainingConfig(
        steps=10, optimizer="sgd", learning_rate=1.0, power=0.0, momentum=0.0, weight_decay=0.0, clip_norm=0.01
    )
    before = values(model)
    _, norm, _ = TrainStep(model, config, ALIKE).run(*batch())
    moved = [value - before[name] for name, value in values(model).items()]
    assert float(norm) > 0.01
    assert np.sqrt(sum(np.sum(move**2) for move in moved)) == pytest.approx(0.01, rel=1e-3)


def test_the_rate_follows_the_schedule() -> None:
    model = network()
    train_step = TrainStep(model, TrainingConfig(steps=2, learning_rate=0.1, power=1.0), ALIKE)
    for _ in range(2):
        train_step.run(*batch())
    before = values(model)
    train_step.run(*batch())
    # Two of two steps are done: the rate is 0.
    np.testing.assert_array_equal(values(model)["conv/kernel"], before["conv/kernel"])


def test_the_average_lags_behind_the_weights() -> None:
    model = network()
    train_step = TrainStep(model, TrainingConfig(steps=10, learning_rate=0.1, ema_decay=0.5), ALIKE)
    before = values(model)["classifier/kernel"]
    train_step.run(*batch())
    after = values(model)["classifier/kernel"]
    with train_step.averaged():
        # After one step the decay is (1 + 1) / (10 + 1).
        np.testing.assert_allclose(values(model)["classifier/kernel"], (2 * before + 9 * after) / 11, rtol=1e-4)
    np.testing.assert_array_equal(values(model)["classifier/kernel"], after)


def test_class_weights_shift_the_loss() -> None:
    images, masks = batch()
    masks = tf.concat([masks[:, :4], tf.zeros_like(masks[:, 4:])], axis=1)
    losses = [
        float(TrainStep(network(), TrainingConfig(steps=10), np.float32(w)).run(images, masks)[0])
        for w in ([1, 0], [0, 1], [1, 1])
    ]
    assert losses[2] == pytest.approx((losses[0] + losses[1]) / 2, rel=1e-4)
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


class Backboned(keras.Model):
    """A network with a backbone; nothing is normalised by the batch outside of it but once."""

    def __init__(self) -> None:
        super().__init__()
        keras.utils.set_random_seed(0)
        image = keras.Input((None, None, 3))
        features = keras.layers.Conv2D(4, 3, padding="same", name="conv")(image)
        self.backbone = keras.Model(image, keras.layers.BatchNormalization(name="norm")(features))
        self.head_norm = keras.layers.BatchNormalization(name="head_norm")
        self.classifier = keras.layers.Conv2D(2, 1, name="classifier")
        self.head_norm.build((None, None, None, 4))
        self.classifier.build((None, None, None, 4))
        self.built = True

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        features = self.backbone(images / 255.0, training=training)
        return self.classifier(self.head_norm(features, training=training))


def changed(config: TrainingConfig) -> set[str]:
    """The weights of a network with a backbone that one step changes."""
    model = Backboned()
    before = [weight.numpy() for weight in model.weights]
    TrainStep(model, config, ALIKE).run(*batch())
    return {
        "/".join(weight.path.split("/")[-2:])
        for weight, value in zip(model.weights, before, strict=True)
        if not np.array_equal(weight, value)
    }


BACKBONE_NORM = {"norm/gamma", "norm/beta", "norm/moving_mean", "norm/moving_variance"}
HEAD_NORM = {f"head_{name}" for name in BACKBONE_NORM}
CONVOLUTIONS = {"conv/kernel", "classifier/kernel", "classifier/bias"}


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("train", CONVOLUTIONS | BACKBONE_NORM | HEAD_NORM),
        ("freeze_backbone", CONVOLUTIONS | {"conv/bias"} | HEAD_NORM),
        ("freeze", CONVOLUTIONS | {"conv/bias"}),
    ],
)
def test_frozen_batch_normalisation_keeps_what_it_starts_with(mode: str, expected: set[str]) -> None:
    found = changed(TrainingConfig(optimizer="sgd", learning_rate=0.1, batch_norm=mode))
    # A bias before batch normalisation has no gradient but rounding.
    assert found - {"conv/bias"} == expected - {"conv/bias"}
    assert mode == "train" or "conv/bias" in found


def test_a_backbone_of_rate_0_is_left_alone() -> None:
    config = TrainingConfig(batch_norm="freeze", backbone_rate_factor=0.0, weight_decay=0.5, learning_rate=0.1)
    assert changed(config) == {"classifier/kernel", "classifier/bias"}


def test_a_backbone_learns_by_its_factor() -> None:
    moves = {}
    for factor in (1.0, 0.25):
        model = Backboned()
        before = values(model)
        config = TrainingConfig(
            optimizer="sgd", learning_rate=0.1, momentum=0.0, weight_decay=0.0, backbone_rate_factor=factor
        )
        TrainStep(model, config, ALIKE).run(*batch())
        moves[factor] = {name: value - before[name] for name, value in values(model).items()}
    for name in ("conv/kernel", "norm/gamma"):
        np.testing.assert_allclose(moves[0.25][name], 0.25 * moves[1.0][name], rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(moves[0.25]["classifier/kernel"], moves[1.0]["classifier/kernel"], rtol=1e-5)


def test_parts_of_unlike_weight_add_up_to_the_whole() -> None:
    # Frozen batch normalisation, whose statistics would be those of a part.
    images, masks = (np.concatenate([part.numpy()] * 2) for part in batch())
    images[2:] *= 0.3
    masks[0] = 0
    masks[2, 1:], masks[3] = IGNORE_LABEL, IGNORE_LABEL
    found = {}
    for parts in (1, 2, 4):
        model = Backboned()
        config = TrainingConfig(
            optimizer="sgd", learning_rate=0.1, batch_norm="freeze", accumulation=parts, global_batch_size=4
        )
        train_step = TrainStep(model, config, np.float32([0.5, 2]))
        results = [train_step.run(tf.constant(images), tf.constant(masks)) for _ in range(3)]
        found[parts] = [*model.get_weights(), *(np.stack([r.loss, r.gradient_norm]) for r in results)]
    for parts in (2, 4):
        for value, expected in zip(found[parts], found[1], strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)


@pytest.fixture
def float16() -> Iterator[None]:
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy("float32")


def scaled(rate: float = 0.01) -> tuple[keras.Model, TrainStep]:
    model = keras.Sequential(
        [keras.layers.Input((None, None, 3)), keras.layers.Conv2D(2, 1, name="classifier", dtype="mixed_float16")]
    )
    wide = keras.Sequential([*model.layers, keras.layers.Activation("linear", dtype="float32")])
    return wide, TrainStep(wide, TrainingConfig(precision="mixed_float16", learning_rate=rate), ALIKE)


@pytest.mark.usefixtures("float16")
def test_an_overflow_in_float16_lowers_the_scale_and_skips_the_step() -> None:
    model, train_step = scaled()
    # The classifier's gradient is 3000 * 0.86 times the scale, which float16 holds from a scale of 16 down.
    images, masks = tf.fill((1, 8, 8, 3), 3000.0), tf.ones((1, 8, 8), tf.uint8)
    model.set_weights([np.float32([[[[1, -1], [1, -1], [1, -1]]]]) * 1e-4, np.zeros(2, np.float32)])
    before = model.get_weights()
    scale = train_step.scalars(0)["loss_scale"]
    result = train_step.run(images, masks)
    assert not np.isfinite(result.gradient_norm) and not result.diverged
    assert train_step.scalars(1)["loss_scale"] == scale / 2
    for weight, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, expected)
    for _ in range(11):
        result = train_step.run(images, masks)
    assert train_step.scalars(12)["loss_scale"] == 16
    assert np.isfinite(result.gradient_norm) and not result.diverged
    assert not np.array_equal(model.get_weights()[0], before[0])
    # Without the scale, and of six weights; the biases have 0.86.
    assert float(result.gradient_norm) == pytest.approx(np.sqrt(6) * 3000 * 0.8581, rel=1e-2)


@pytest.mark.usefixtures("float16")
def test_float16_that_overflows_at_any_scale_has_diverged() -> None:
    model, train_step = scaled()
    model.set_weights([np.full((1, 1, 3, 2), np.nan, np.float32), np.zeros(2, np.float32)])
    assert train_step.run(*batch()).diverged


def test_a_loss_that_is_not_finite_has_diverged() -> None:
    model = network()
    train_step = TrainStep(model, TrainingConfig(), ALIKE)
    assert not train_step.run(*batch()).diverged
    model.layers[-1].bias.assign([np.nan, 0])
    assert train_step.run(*batch()).diverged


def test_a_tpu_takes_the_same_step() -> None:
    found = []
    for strategy in ("one_device", "tpu"):
        distribution = distribute(strategy, tpu=lambda: tf.distribute.OneDeviceStrategy("/cpu:0"))
        with distribution.scope():
            model = network()
        config = TrainingConfig(strategy=strategy, ema_decay=0.5, clip_norm=1.0, learning_rate=0.1)
        train_step = TrainStep(model, config, ALIKE, distribution)
        result = train_step.run(*batch())
        found.append([*model.get_weights(), *result])
    for value, expected in zip(*found, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def operations(graph: tf.Graph) -> Iterator[tf.Operation]:
    """Those of a graph and of the functions that it calls."""
    yield from graph.get_operations()
    for name in graph._functions:
        yield from graph._get_function(name).graph.get_operations()


def assert_fit_for_tpu(train_step: TrainStep, images: tf.Tensor, masks: tf.Tensor) -> None:
    """Nothing in the step calls Python or handles strings."""
    kinds = set()
    for operation in operations(train_step.run.get_concrete_function(images, masks).graph):
        kinds.add(operation.type)
        assert all(tensor.dtype != tf.string for tensor in (*operation.inputs, *operation.outputs)), operation
    assert not kinds & {"PyFunc", "PyFuncStateless", "EagerPyFunc"} and "Conv2D" in kinds


def labelled_images() -> tuple[tf.Tensor, tf.Tensor]:
    """A batch whose sides are no multiple of any stride."""
    images = np.random.default_rng(0).uniform(0, 255, (2, 33, 33, 3)).astype(np.float32)
    masks = np.random.default_rng(1).integers(0, 2, (2, 33, 33)).astype(np.uint8)
    return tf.constant(images), tf.constant(masks)


def deeplab(**changes: object) -> DeepLabV3Plus:
    keras.utils.set_random_seed(0)
    shape = {"width": 0.35, "aspp_channels": 8, "decoder_channels": 8, "low_level_channels": 4, "dropout": 0.0}
    return build_model(ModelConfig.model_validate({**shape, **changes}), 2)


def test_nothing_in_the_step_of_the_real_network_keeps_it_from_a_tpu() -> None:
    config = TrainingConfig(global_batch_size=2, clip_norm=1.0, ema_decay=0.9, loss={"dice": 0.5, "lovasz": 0.5})
    assert_fit_for_tpu(TrainStep(deeplab(dropout=0.1), config, ALIKE), *labelled_images())


def test_batch_normalisation_keeps_its_digits_where_xla_compiles() -> None:
    # A mean of a thousand standard deviations.
    images = tf.constant(np.random.default_rng(0).normal(1000.0, 1.0, (4, 16, 16, 3)), tf.float32)
    masks = tf.cast(images[..., 0] > 1000.0, tf.uint8)
    found = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Input((None, None, 3)), kernels.BatchNormalization(), kernels.Conv2D(2, 1)]
        config = TrainingConfig(global_batch_size=4, jit_compile=jit_compile)
        found.append(TrainStep(keras.Sequential(layers), config, ALIKE).run(images, masks)[:2])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3)


@pytest.mark.long
@pytest.mark.parametrize(
    ("batch_norm", "changes"),
    [("train", {}), ("freeze", {"backbone": "mobilenet_v3_small", "resize": "align_corners"})],
)
def test_xla_compiles_the_step_of_the_real_network(batch_norm: str, changes: dict[str, object]) -> None:
    found = []
    for jit_compile in (False, True):
        config = TrainingConfig(global_batch_size=2, jit_compile=jit_compile, batch_norm=batch_norm)
        result = TrainStep(deeplab(**changes), config, ALIKE).run(*labelled_images())
        assert not result.diverged
        found.append(result[:2])
    assert float(found[1][0]) == pytest.approx(float(found[0][0]), rel=1e-3)
    # Statistics of so few features make tens of percents in the gradient of the last digit of the pixels.
    if batch_norm == "freeze":
        assert float(found[1][1]) == pytest.approx(float(found[0][1]), rel=1e-4)


@pytest.mark.parametrize("precision", [pytest.param("mixed_bfloat16", marks=pytest.mark.long), "mixed_float16"])
def test_the_real_network_learns_in_mixed_precision(precision: str) -> None:
    keras.config.set_dtype_policy(precision)
    try:
        model = deeplab()
    finally:
        keras.config.set_dtype_policy("float32")
    config = TrainingConfig(precision=precision, global_batch_size=2, learning_rate=0.01)
    train_step = TrainStep(model, config, ALIKE)
    images, _ = labelled_images()
    masks = tf.ones(images.shape[:3], tf.uint8)
    results = [train_step.run(images, masks) for _ in range(8)]
    assert not any(result.diverged for result in results)
    assert results[-1].loss < 0.9 * results[0].loss
    assert {weight.dtype for weight in train_step.weights} == {tf.float32}


class Strided(keras.Model):
    """The kinds of layers of the real network, once each, which XLA compiles in seconds."""

    def __init__(self) -> None:
        super().__init__()
        keras.utils.set_random_seed(0)
        self.trunk = keras.Sequential(
            [
                keras.layers.Input((None, None, 3)),
                kernels.Conv2D(8, 3, strides=2, padding="same", use_bias=False),
                kernels.BatchNormalization(),
                keras.layers.ReLU(6.0),
                kernels.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False),
                kernels.DepthwiseConv2D(3, dilation_rate=2, padding="same", use_bias=False),
                keras.layers.Dropout(0.1),
                kernels.Conv2D(2, 1),
            ]
        )
        self.built = True

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return kernels.resize_bilinear(self.trunk(images / 255.0, training=training), images.shape[1:3])


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("sgd", marks=pytest.mark.long)])
def test_xla_compiles_the_step_to_the_same_numbers(optimizer: str) -> None:
    # XLA compiles what a TPU runs, and refuses shapes that are not fixed.
    found = []
    for jit_compile in (False, True):
        config = TrainingConfig(
            global_batch_size=2,
            optimizer=optimizer,
            clip_norm=1.0,
            ema_decay=0.9,
            jit_compile=jit_compile,
            loss={"ohem_fraction": 0.5, "ohem_ramp_steps": 4},
        )
        train_step = TrainStep(Strided(), config, ALIKE)
        assert_fit_for_tpu(train_step, *labelled_images())
        result = train_step.run(*labelled_images())
        assert not result.diverged
        found.append(result[:2])
    # Dropout draws other numbers.
    np.testing.assert_allclose(found[1], found[0], rtol=0.1)
