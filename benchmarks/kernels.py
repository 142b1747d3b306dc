"""Each kernel of `models/network/kernels.py` against what Keras or TensorFlow would run, in ms.

Usage: PYTHONPATH=. python benchmarks/kernels.py   (a minute; on an idle machine)
"""

import statistics
import time
from collections.abc import Callable

import keras
import tensorflow as tf
from keras import layers, ops
from rich.console import Console
from rich.table import Table

from models.network import kernels

ROUNDS = 9
#: The sizes of MobileNetV2 at 256x256, batch 8.
BATCH = 8

Call = Callable[[], object]


def with_gradients(call: Callable[[tf.Tensor], tf.Tensor], inputs: tf.Tensor, weights: list[tf.Variable]) -> Call:
    """One forward and backward pass, as a graph."""

    @tf.function(autograph=False)
    def step() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = call(inputs)
            loss = tf.reduce_sum(tf.cast(outputs, tf.float32))
        # A reduction of each gradient is all that leaves the graph.
        return [tf.reduce_max(gradient) for gradient in tape.gradient(loss, [inputs, *weights])]

    return step


def of_layer(layer: layers.Layer, size: int, channels: int) -> Call:
    """Forward and backward of a layer in mixed bfloat16."""
    layer.build((BATCH, size, size, channels))
    inputs = tf.cast(tf.random.stateless_normal((BATCH, size, size, channels), (0, 0)), tf.bfloat16)
    weights = [weight.value for weight in layer.trainable_weights]
    training = {"training": True} if isinstance(layer, layers.BatchNormalization) else {}
    return with_gradients(lambda x: layer(x, **training), inputs, weights)


def of_loss(call: Callable[..., tf.Tensor], classes: int) -> Call:
    """Forward and backward of a loss at 256x256."""
    logits = tf.random.stateless_normal((BATCH, 256, 256, classes), (0, 0))
    labels = tf.random.stateless_uniform((BATCH, 256, 256), (0, 1), 0, classes, tf.int32)
    return with_gradients(lambda x: call(labels, x), logits, [])


def keras_loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """The loss that Keras runs."""
    return ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def comparisons() -> dict[str, tuple[Call, Call]]:
    """(Keras' way, ours) of each kernel."""
    policy = {"dtype": "mixed_bfloat16"}
    pointwise = {"filters": 256, "kernel_size": 1, "use_bias": False, **policy}
    strided = {"kernel_size": 3, "strides": 2, "padding": "same", "use_bias": False, **policy}

    def both(name: str, size: int, channels: int, **arguments: object) -> tuple[Call, Call]:
        made = (getattr(module, name)(**arguments) for module in (layers, kernels))
        theirs, ours = (of_layer(layer, size, channels) for layer in made)
        return theirs, ours

    return {
        "1x1 convolution 304 -> 256, 64x64, bfloat16": both("Conv2D", 64, 304, **pointwise),
        "depthwise 3x3 / 2, 96 channels, 128x128, bfloat16": both("DepthwiseConv2D", 128, 96, **strided),
        "batch normalisation, 96 channels, 128x128, bfloat16": both("BatchNormalization", 128, 96, **policy),
        "batch normalisation, 24 channels, 128x128, bfloat16": both("BatchNormalization", 128, 24, **policy),
        "softmax cross-entropy, 21 classes, 256x256": (
            of_loss(keras_loss, 21),
            of_loss(kernels.softmax_cross_entropy, 21),
        ),
    }


def milliseconds(calls: tuple[Call, ...]) -> list[float]:
    """Median time of each call, the calls taken in turn."""
    found: list[list[float]] = [[] for _ in calls]
    for number in range(ROUNDS + 2):
        for call, times in zip(calls, found, strict=True):
            started = time.perf_counter()
            [tensor.numpy() for tensor in call()]  # type: ignore[attr-defined]
            if number >= 2:
                times.append(1000 * (time.perf_counter() - started))
    return [statistics.median(times) for times in found]


def main() -> None:
    """Prints a table."""
    keras.utils.set_random_seed(0)
    table = Table("forward and backward, ms", "Keras", "here", "ratio", title=f"batch {BATCH}")
    for name, calls in comparisons().items():
        theirs, ours = milliseconds(calls)
        table.add_row(name, f"{theirs:.1f}", f"{ours:.1f}", f"{theirs / ours:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
