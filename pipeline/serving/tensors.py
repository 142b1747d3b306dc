"""Converts JSON values to the arrays that a signature takes, with checks and without implicit type conversions."""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.serving.errors import RequestError


@dataclass(frozen=True)
class Tensor:
    """One input or output of a signature."""

    name: str
    dtype: tf.DType
    shape: tuple[int, ...]
    """Shape of the tensor; -1 stands for any size."""


def from_base64(text: str, name: str) -> bytes:
    """Decodes a base64 string.

    Raises:
        RequestError: The value is not a base64 string.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"{name}: no base64: {error}") from None


def to_base64(content: bytes) -> str:
    """Encodes bytes as a base64 string."""
    return base64.b64encode(content).decode("ascii")


def to_array(values: Any, tensor: Tensor, to_bytes: Callable[[Any], bytes]) -> np.ndarray:
    """Converts nested lists to an array of a tensor's type.

    Args:
        values: Nested lists of numbers, or one list of arguments for `to_bytes`.
        tensor: The signature's tensor.
        to_bytes: Converts one element of a string tensor to bytes.

    Returns:
        An array of any shape; strings as an object array of `bytes`.

    Raises:
        RequestError: The values are of another type.
    """
    return _strings(values, tensor, to_bytes) if tensor.dtype == tf.string else _numbers(values, tensor)


def require_shape(array: np.ndarray, tensor: Tensor) -> None:
    """Rejects an array whose shape a signature does not accept, or that has no elements.

    Raises:
        RequestError: The shape is wrong; states the actual and the allowed one.
    """
    sizes = zip(array.shape, tensor.shape, strict=False)
    if array.ndim != len(tensor.shape) or not array.size or any(allowed not in (-1, size) for size, allowed in sizes):
        raise RequestError(
            f"{tensor.name}: has shape {list(array.shape)}; the signature takes {list(tensor.shape)}, not empty"
        )


def _strings(values: Any, tensor: Tensor, to_bytes: Callable[[Any], bytes]) -> np.ndarray:
    """Converts one list of strings: no served signature takes more dimensions."""
    if not isinstance(values, list):
        raise RequestError(f"{tensor.name}: must be a list")
    array = np.empty(len(values), object)
    array[:] = [to_bytes(value) for value in values]
    return array


def _numbers(values: Any, tensor: Tensor) -> np.ndarray:
    try:
        array = np.array(values)
    except (ValueError, OverflowError):
        raise RequestError(f"{tensor.name}: lists of different lengths; an array has one length a dimension") from None
    dtype = np.dtype(tensor.dtype.as_numpy_dtype)
    limits = np.iinfo(dtype)
    if array.size and (array.dtype.kind not in "iu" or _hold_truth_values(values, array.ndim)):
        raise RequestError(f"{tensor.name}: holds other things than whole numbers; the signature takes {dtype.name}")
    if array.size and not limits.min <= array.min() <= array.max() <= limits.max:
        raise RequestError(
            f"{tensor.name}: holds {array.min()} to {array.max()}; {dtype.name} allows {limits.min} to {limits.max}"
        )
    return array.astype(dtype)


def _hold_truth_values(values: Any, dimensions: int) -> bool:
    """Whether nested lists contain true or false, which NumPy converts to 1 and 0 among numbers."""
    flat = iter([values])
    for _ in range(dimensions):
        flat = chain.from_iterable(flat)
    return bool in map(type, flat)
