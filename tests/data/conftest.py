"""Fixtures for tests that read files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.files import LocalFiles

Write = Callable[..., Path]


@pytest.fixture
def files() -> LocalFiles:
    """The local disk."""
    return LocalFiles()


@pytest.fixture
def write_image(tmp_path: Path) -> Write:
    """Writes an image below `tmp_path`: an array, or a 4x3 gray one filled with a number."""

    def write(relative: str, pixels: np.ndarray | int = 0, palette: list[int] | None = None, **options: object) -> Path:
        path = tmp_path / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        array = np.full((3, 4), pixels, np.uint8) if isinstance(pixels, int) else pixels
        image = Image.fromarray(array)
        if palette is not None:
            image.putpalette(palette)
        image.save(path, **options)
        return path

    return write


@pytest.fixture
def write_text(tmp_path: Path) -> Write:
    """Writes a text file below `tmp_path`."""

    def write(relative: str, text: str) -> Path:
        path = tmp_path / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write
