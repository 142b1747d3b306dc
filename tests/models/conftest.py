"""Fixtures of the tests of networks."""

from collections.abc import Iterator
from typing import Any

import keras
import pytest


@pytest.fixture(scope="module")
def blank_weights() -> Iterator[None]:
    """Kernels start at zero, for tests that set them or look at shapes: drawing them takes most of a network's time."""

    def zeros(self: Any, shape: tuple[int, ...], dtype: Any = None) -> Any:
        return keras.ops.zeros(shape, dtype)

    with pytest.MonkeyPatch.context() as patch:
        for kind in (keras.initializers.GlorotUniform, keras.initializers.HeNormal, keras.initializers.TruncatedNormal):
            patch.setattr(kind, "__call__", zeros)
        yield
