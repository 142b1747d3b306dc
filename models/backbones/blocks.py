"""What the backbones share."""

from collections.abc import Sequence
from dataclasses import dataclass

from keras import initializers, layers

from models.kernels import BatchNormalization


@dataclass(frozen=True)
class BatchNorm:
    """The batch normalisation of one part of a network."""

    momentum: float = 0.99
    """Of the moving averages, in [0, 1)."""
    epsilon: float = 1e-3
    """Added to the variance."""

    def __call__(self, name: str | None = None) -> layers.Layer:
        """A new layer over the last axis."""
        return BatchNormalization(momentum=self.momentum, epsilon=self.epsilon, name=name)


def truncated_normal(stddev: float) -> initializers.Initializer:
    """A new initialiser; one for each weight, since an instance that is used twice gives equal values."""
    return initializers.TruncatedNormal(stddev=stddev)


def atrous_schedule(strides: Sequence[int], output_stride: int, stem_stride: int) -> list[tuple[int, int]]:
    """(stride, dilation rate) of each unit, so that the features end at `output_stride`.

    Once the target is reached a unit's stride becomes 1 and the following units multiply their rate
    (DeepLabV3, section 3.1; `stack_blocks_dense` of research/deeplab). No weight changes its shape, so the same
    weights serve at every output stride.

    Args:
        strides: nominal stride of each unit.
        output_stride: ratio of the input's resolution to that of the last unit.
        stem_stride: ratio of the input's resolution to that of the first unit's input.
    """
    schedule = []
    reached, rate = stem_stride, 1
    for stride in strides:
        if reached < output_stride:
            schedule.append((stride, rate))
            reached *= stride
        else:
            schedule.append((1, rate))
            rate *= stride
    return schedule
