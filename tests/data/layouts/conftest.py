"""Fixtures for tests of layouts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.layouts import open_layout
from data.layouts.base import Sample
from data.masks import read_mask

Drawn = Callable[..., dict[str, list[str]]]


@pytest.fixture
def drawn(tmp_path: Path, files: Any) -> Drawn:
    """Reads the masks of the dataset in `tmp_path` by the images' keys: a letter for each pixel, '.' the background.

    The letter is the first one of the class, '?' the ignore label (void). Every entry must be good.
    """

    def read(name: str, split: str | None = None) -> dict[str, list[str]]:
        layout = open_layout("auto", str(tmp_path), files)
        assert layout.name == name
        label_map = layout.label_map()
        letters = np.full(256, "?")
        for i, label in enumerate(label_map.classes):
            letters[i] = "." if label.name == "background" else label.name[0]
        found = {}
        for sample in layout.samples(split):
            assert isinstance(sample, Sample), sample
            with Image.open(sample.image) as image:
                mask = read_mask(sample.mask, label_map, image.size[::-1], files)
            found[sample.key] = ["".join(row) for row in letters[mask]]
        return found

    return read
