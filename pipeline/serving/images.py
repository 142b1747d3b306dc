"""Encoded images of a request, which are checked by the rules of `predict` before TensorFlow decodes them."""

from collections.abc import Sequence

from data.errors import DataError
from data.images import LARGEST_IMAGE, opened, read_image
from pipeline.serving.errors import RequestError


def checked_images(images: Sequence[bytes], max_pixels: int, name: str) -> list[bytes]:
    """Checks images, and converts them to formats that the model decodes.

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
