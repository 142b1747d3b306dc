"""Parameters and multiply-adds of a network, beside those that papers and official repositories publish.

`python -m models.network.complexity` prints both. Nothing is trained or computed: shapes are enough.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers
from rich.console import Console
from rich.table import Table

from models.config import ModelConfig
from models.network.deeplab import DeepLabV3Plus, build_model

#: The layers that multiply: their kernel is applied once at each position of their output.
MULTIPLYING = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)


@dataclass(frozen=True)
class LayerCost:
    """The cost of one convolution or dense layer for one image."""

    path: str
    """Path of the layer in its network."""
    kernel: tuple[int, ...]
    """Shape of the kernel."""
    size: tuple[int, ...]
    """(height, width) of the output."""
    rate: int
    """Dilation rate."""

    @property
    def multiply_adds(self) -> int:
        """One for each weight of the kernel at each position of the output; biases are not counted."""
        return math.prod(self.kernel) * math.prod(self.size)

    @property
    def padded_multiply_adds(self) -> int:
        """The number that TensorFlow 1 computed and its profiler counted: it cut the input of an atrous convolution
        into rate * rate images (space to batch), for which it padded height and width to multiples of the rate.
        """
        return math.prod(self.kernel) * math.prod(-(-side // self.rate) * self.rate for side in self.size)


def layer_costs(model: keras.Model, size: tuple[int, int]) -> list[LayerCost]:
    """The cost of each convolution and dense layer, in the order in which they run.

    Args:
        model: a built network that is defined by its `call`, such as `models.network.deeplab.DeepLabV3Plus`.
        size: (height, width) of the image.
    """
    with _recorded(model) as costs:
        model(keras.KerasTensor((1, *size, 3)))
    return costs


@contextmanager
def _recorded(model: keras.Model) -> Iterator[list[LayerCost]]:
    """A context in which each call of a layer that multiplies adds an item to the list."""
    costs: list[LayerCost] = []
    found = [layer for layer in model._flatten_layers() if isinstance(layer, MULTIPLYING)]
    for layer in found:
        layer.call = _recording(layer, layer.call, costs)
    try:
        yield costs
    finally:
        for layer in found:
            del layer.call


def _recording(layer: layers.Layer, call: Callable[..., Any], costs: list[LayerCost]) -> Callable[..., Any]:
    def record(inputs: Any) -> Any:
        outputs = call(inputs)
        rate = max(getattr(layer, "dilation_rate", (1,)))
        costs.append(LayerCost(layer.path, tuple(layer.kernel.shape), tuple(outputs.shape[1:-1]), rate))
        return outputs

    return record


@dataclass(frozen=True)
class PublishedCost:
    """Multiply-adds that a paper or an official repository gives for one network."""

    name: str
    """Name of the network, as published."""
    source: str
    """Paper and table, or repository, of the figure."""
    size: tuple[int, int]
    """(height, width) of the image."""
    classes: int
    """Number of classes."""
    billions: str
    """The figure, with its digits."""
    config: ModelConfig
    """The network as it is built here."""
    deviation: str = ""
    """Why the figure differs from the cost of the network; empty where it does not."""

    def build(self) -> DeepLabV3Plus:
        """The network as it is built here."""
        return build_model(self.config, self.classes)

    def costs(self) -> list[LayerCost]:
        """The cost of each of its layers."""
        return layer_costs(self.build(), self.size)

    def difference(self, multiply_adds: int) -> float:
        """The relative difference from the nearest number that rounds to the published digits."""
        half_digit = 0.5 * 0.1 ** len(self.billions.partition(".")[2])
        ours, published = multiply_adds / 1e9, float(self.billions)
        nearest = min(max(ours, published - half_digit), published + half_digit)
        return ours / nearest - 1.0


def _paper(table: int, name: str, billions: str, deviation: str = "", **options: Any) -> PublishedCost:
    source = f"arXiv 1802.02611, table {table}"
    return PublishedCost(name, source, (513, 513), 21, billions, ModelConfig(**options), deviation)


def _zoo(name: str, billions: str, deviation: str = "", *, cityscapes: bool = False, **options: Any) -> PublishedCost:
    # research/deeplab sees the 1024x2048 pixels of Cityscapes in a crop of a multiple of its output stride plus 1.
    size, classes = ((1025, 2049), 19) if cityscapes else ((513, 513), 21)
    return PublishedCost(
        name, "research/deeplab, model zoo", size, classes, billions, ModelConfig(**options), deviation
    )


_RESNET: dict[str, Any] = {"backbone": "resnet101_beta", "separable": False}
_XCEPTION: dict[str, Any] = {"backbone": "xception65"}
_LRASPP: dict[str, Any] = {"head": "lraspp", "output_stride": 32, "aspp_channels": 128, "cityscapes": True}
_ONE_OF_SIX = (
    "the decoder adds 20.26 here, and 21.74 to 21.77 in the five other pairs of tables 3 and 5, as it does ours"
)
_OPERATIONS = "operations: two for each multiply-add, and those of hard-swish, of upsampling, softmax and argmax"

#: The published costs of networks that `models.config` describes.
PUBLISHED = (
    _paper(3, "ResNet-101", "81.02", head="v3", output_stride=16, **_RESNET),
    _paper(3, "ResNet-101", "276.18", head="v3", output_stride=8, **_RESNET),
    _paper(3, "ResNet-101", "52.43", head="v3", output_stride=32, **_RESNET),
    _paper(3, "ResNet-101 + decoder", "101.28", _ONE_OF_SIX, output_stride=16, **_RESNET),
    _paper(3, "ResNet-101 + decoder", "297.92", output_stride=8, **_RESNET),
    _paper(3, "ResNet-101 + decoder", "74.20", output_stride=32, **_RESNET),
    _paper(5, "Xception-65", "68.00", head="v3", output_stride=16, separable=False, **_XCEPTION),
    _paper(5, "Xception-65", "240.85", head="v3", output_stride=8, separable=False, **_XCEPTION),
    _paper(5, "Xception-65 + decoder", "89.76", output_stride=16, separable=False, **_XCEPTION),
    _paper(5, "Xception-65 + decoder", "262.59", output_stride=8, separable=False, **_XCEPTION),
    _paper(5, "Xception-65 + decoder, separable", "54.17", output_stride=16, **_XCEPTION),
    _paper(5, "Xception-65 + decoder, separable", "177.10", output_stride=8, **_XCEPTION),
    _zoo("Xception-65 + decoder, separable", "418.64", output_stride=16, cityscapes=True, **_XCEPTION),
    _zoo("MobileNetV2 lite", "2.75", head="lite", output_stride=16),
    _zoo("MobileNetV2 lite", "21.27", head="lite", output_stride=16, cityscapes=True),
    _zoo("MobileNetV2 lite, width 0.5", "0.88", backbone="mobilenet_v2_seg", width=0.5, head="lite", output_stride=16),
    _zoo("MobileNetV2 lite, width 0.5", "2.84", backbone="mobilenet_v2_seg", width=0.5, head="lite", output_stride=8),
    _zoo("MobileNetV3-large", "15.95", _OPERATIONS, backbone="mobilenet_v3_large_seg", **_LRASPP),
    _zoo("MobileNetV3-small", "4.63", _OPERATIONS, backbone="mobilenet_v3_small_seg", **_LRASPP),
)


def comparison() -> Table:
    """Our multiply-adds beside the published ones, in billions, and our parameters in millions."""
    table = Table(title="Billions of multiply-adds", caption="padded: as counted there, see padded_multiply_adds")
    numbers = ("published", "ours", "ours, padded", "difference", "millions of parameters")
    for column in ("network", "image", "output stride", *numbers, "source"):
        table.add_column(column, justify="left" if column in ("network", "source") else "right")
    for row in PUBLISHED:
        network = row.build()
        costs = layer_costs(network, row.size)
        exact = sum(cost.multiply_adds for cost in costs)
        padded = sum(cost.padded_multiply_adds for cost in costs)
        billions = (row.billions, f"{exact / 1e9:.2f}", f"{padded / 1e9:.2f}", f"{row.difference(padded):+.1%}")
        stride, size = str(row.config.output_stride), "x".join(map(str, row.size))
        millions = f"{network.count_params() / 1e6:.2f}"
        table.add_row(row.name, size, stride, *billions, millions, "; ".join(filter(None, (row.source, row.deviation))))
    return table


if __name__ == "__main__":
    Console().print(comparison())
