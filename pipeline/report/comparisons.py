"""Test images beside their labels and what the model makes of them, for a person to look at."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from data import features
from data.preprocess import decode_image, decode_mask
from models.export import Segmenter, load_segmenter
from models.metrics import confusion_matrix, mean_iou

#: Bounds the time that a report takes: this many images, of this many pixels in all (the first one may have more).
MOST_IMAGES = 24
MOST_PIXELS = 4_000_000


@dataclass(frozen=True)
class Comparison:
    """One test image."""

    key: str
    """Its path in the dataset."""
    mean_iou: float
    """Over the classes that occur in this image's label or prediction."""
    image: np.ndarray = field(repr=False)
    """(height, width, 3) uint8 RGB."""
    label: np.ndarray = field(repr=False)
    """(height, width) uint8 class ids, `IGNORE_LABEL` where void."""
    prediction: np.ndarray = field(repr=False)
    """(height, width) uint8 class ids."""


@dataclass(frozen=True)
class Selection:
    """The comparisons worth a look."""

    worst: list[Comparison]
    """Lowest mean IoU first."""
    typical: list[Comparison]
    """Nearest to the median of mean IoU, lower ones first."""
    compared: int
    """Number of images among which these were chosen."""


def compare(serialized: Iterable[bytes], model: str) -> list[Comparison]:
    """Lets a model segment the images of examples.

    Args:
        serialized: tf.Examples; as many of them are used as the bounds allow.
        model: folder of a SavedModel.

    Returns:
        Those with a labelled pixel, in their order.
    """
    segmenter = load_segmenter(model)
    comparisons = [_compare(example, segmenter) for example in _within_bounds(serialized)]
    return [comparison for comparison in comparisons if not np.isnan(comparison.mean_iou)]


def select(comparisons: Sequence[Comparison], each: int) -> Selection:
    """The `each` worst comparisons and, among the others, the `each` most typical ones."""
    ordered = sorted(comparisons, key=lambda comparison: comparison.mean_iou)
    worst, others = ordered[:each], ordered[each:]
    middle = np.median([comparison.mean_iou for comparison in ordered]) if ordered else 0.0
    nearest = sorted(others, key=lambda comparison: abs(comparison.mean_iou - middle))[:each]
    return Selection(worst, sorted(nearest, key=lambda comparison: comparison.mean_iou), len(ordered))


def _within_bounds(serialized: Iterable[bytes]) -> Iterator[Any]:
    pixels = 0
    for count, record in enumerate(serialized):
        if count == MOST_IMAGES or pixels >= MOST_PIXELS:
            return
        example = tf.train.Example.FromString(record).features.feature
        pixels += example[features.HEIGHT].int64_list.value[0] * example[features.WIDTH].int64_list.value[0]
        yield example


def _compare(example: Any, segmenter: Segmenter) -> Comparison:
    encoded, mask, key = (example[name].bytes_list.value[0] for name in (features.IMAGE, features.MASK, features.KEY))
    label = decode_mask(mask).numpy()
    [(prediction, _)] = segmenter.predict([encoded])
    matrix = confusion_matrix(label, prediction, segmenter.label_map.num_classes)
    return Comparison(key.decode(), mean_iou(matrix), decode_image(encoded).numpy(), label, prediction)
