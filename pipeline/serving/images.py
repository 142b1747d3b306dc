"""Encoded images of a request: checked before TensorFlow sees them, by the rules of `predict`."""

from collections.abc import Sequence

from data.errors import DataError
from data.images import LARGEST_IMAGE, opened, read_image
from pipeline.serving.errors import RequestError


def checked_images(images: Sequence[bytes], max_pixels: int, name: str) -> list[bytes]:
    """The images as the model decodes them.

    Args:
        images: Encoded: JPEG, PNG, BMP, WebP or TIFF.
        max_pixels: Of all images together; the headers alone decide, so that a small file that unpacks to a huge
            picture costs nothing.
        name: Of the tensor, for errors.

    Returns:
        RGB and gray JPEG and PNG as they are, all others as PNG.

    Raises:
        RequestError: One is no image, is damaged, or they are too large together; says which.
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
    """Refuses more pixels than a request may hold.

    Raises:
        RequestError: There are more.
    """
    if pixels > max_pixels:
        raise RequestError(f"too many pixels: {pixels} {where}; serving.max_pixels allows {max_pixels}")
