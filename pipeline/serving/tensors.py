"""The values of a request: converts JSON to the arrays that a signature takes, and checks encoded images.

No type is converted implicitly, and the cost of images is known before TensorFlow decodes them.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import chain
from typing import Any

import numpy as np
import tensorflow as tf

from data.errors import DataError, ProjectError
from data.images import LARGEST_IMAGE, opened, read_image


class RequestError(ProjectError):
    """A request is rejected; the text and the HTTP status are sent to the client.

    TensorFlow Serving answers with the same status: 400 for INVALID_ARGUMENT, 404 for NOT_FOUND, 503 for UNAVAILABLE,
    504 for DEADLINE_EXCEEDED.
    """

    def __init__(self, text: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(text)
        self.status = status


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


def to_array(values: Any, tensor: Tensor, to_bytes: Callable[[Any, str], bytes]) -> np.ndarray:
    """Converts nested lists to an array of a tensor's type.

    Args:
        values: Nested lists of numbers, or one list of arguments for `to_bytes`.
        tensor: The signature's tensor.
        to_bytes: Converts one element of a string tensor to bytes, given the element and the tensor's name.

    Returns:
        An array of any shape; strings as an object array of `bytes`.

    Raises:
        RequestError: The values are of another type.
    """
    name = tensor.name
    if tensor.dtype == tf.string:  # No served signature takes strings of more than one dimension.
        if not isinstance(values, list):
            raise RequestError(f"{name}: must be a list")
        strings = np.empty(len(values), object)
        strings[:] = [to_bytes(value, name) for value in values]
        return strings
    try:
        array = np.array(values)
    except (ValueError, OverflowError):
        raise RequestError(f"{name}: lists of different lengths; an array has one length a dimension") from None
    dtype = np.dtype(tensor.dtype.as_numpy_dtype)
    limits = np.iinfo(dtype)
    elements = iter([values])
    for _ in range(array.ndim):
        elements = chain.from_iterable(elements)
    # The elements are looked at as well, because NumPy converts true and false among numbers to 1 and 0.
    if array.size and (array.dtype.kind not in "iu" or bool in map(type, elements)):
        raise RequestError(f"{name}: holds other things than whole numbers; the signature takes {dtype.name}")
    if array.size and not limits.min <= array.min() <= array.max() <= limits.max:
        raise RequestError(
            f"{name}: holds {array.min()} to {array.max()}; {dtype.name} allows {limits.min} to {limits.max}"
        )
    return array.astype(dtype)


def require_shape(array: np.ndarray, tensor: Tensor) -> None:
    """Rejects an array whose shape the signature does not accept, or that has no elements.

    Raises:
        RequestError: The shape is wrong; states the actual and the allowed one.
    """
    sizes = zip(array.shape, tensor.shape, strict=False)
    if array.ndim != len(tensor.shape) or not array.size or any(allowed not in (-1, size) for size, allowed in sizes):
        raise RequestError(
            f"{tensor.name}: has shape {list(array.shape)}; the signature takes {list(tensor.shape)}, not empty"
        )


def checked_images(images: Sequence[bytes], max_pixels: int, name: str) -> list[bytes]:
    """Checks images by the rules of `predict`, and converts them to formats that the model decodes.

    Args:
        images: Encoded images: JPEG, PNG, BMP, WebP or TIFF.
        max_pixels: Maximum of pixels of all images together. It is checked by the headers alone, so that a small file
            that decompresses to a huge image is not decoded.
        name: Name of the tensor, for errors.

    Returns:
        RGB and gray JPEG and PNG unchanged, all others as PNG.

    Raises:
        RequestError: One is not an image or is damaged, or all together are too large; states which.
    """
    pixels, checked = 0, []
    for index, encoded in enumerate(images):
        try:
            with opened(encoded, "image", f"serving.max_pixels allows {max_pixels}") as image:
                pixels += image.width * image.height
            require_pixels(pixels, max_pixels, f"up to image {index}")
            checked.append(read_image(encoded, LARGEST_IMAGE)[0])
        except DataError as error:
            raise RequestError(f"{name}: image {index} ({len(encoded)} bytes): {error}") from None
    return checked


def require_pixels(pixels: int, max_pixels: int, where: str) -> None:
    """Rejects more pixels than a request may contain.

    Raises:
        RequestError: There are too many pixels.
    """
    if pixels > max_pixels:
        raise RequestError(f"too many pixels: {pixels} {where}; serving.max_pixels allows {max_pixels}")
