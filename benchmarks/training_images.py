"""Labelled images that the benchmarks measure with."""

from itertools import islice
from typing import NamedTuple

import numpy as np

from data.dataset import DataConfig, resolve_label_map
from data.files import LocalFiles, read_bytes
from data.images import read_image
from data.layouts import open_layout
from data.layouts.base import Sample
from data.masks import read_mask


class LabelledImage(NamedTuple):
    """A labelled image."""

    encoded: bytes
    """The image as it was received."""
    image: np.ndarray
    """(height, width, 3) uint8 RGB."""
    mask: np.ndarray
    """(height, width) uint8 class ids."""


def training_images(folder: str, count: int) -> tuple[list[LabelledImage], int]:
    """The first images of a dataset's training split, and its number of classes."""
    files = LocalFiles()
    config = DataConfig(path=folder)
    layout = open_layout(config.layout, folder, files)
    labels = resolve_label_map(config, layout)
    samples = (entry for entry in layout.samples(next(iter(layout.splits()), None)) if isinstance(entry, Sample))
    found = []
    for sample in islice(samples, count):
        encoded, image = read_image(read_bytes(sample.image, files), config.max_pixels)
        found.append(LabelledImage(encoded, image, read_mask(sample.mask, labels, image.shape[:2], files)))
    return found, labels.num_classes
