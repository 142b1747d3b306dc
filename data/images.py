"""Strict decoding of image files: what other readers might decode differently is a reason to quarantine the image."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from data.errors import DataError

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")

#: Pillow's names of JPEG files. MPO, which many cameras write, has further images behind the first.
JPEG_FORMATS = ("JPEG", "MPO")

#: The last chunk of a PNG: its name and its checksum.
PNG_END = b"IEND\xaeB`\x82"

#: Pillow refuses larger images by itself; no `max_pixels` may exceed it.
LARGEST_IMAGE = 2 * (Image.MAX_IMAGE_PIXELS or 0)


def read_image(encoded: bytes, max_pixels: int, setting: str = "data.max_pixels") -> tuple[bytes, np.ndarray]:
    """Decodes an image and returns the encoded image to store, and its pixels.

    Args:
        encoded: a JPEG, PNG, BMP, WebP or TIFF file with 8 bits a channel: RGB, gray or a palette.
        max_pixels: largest height x width; a larger image is not decoded at all.
        setting: configuration key of `max_pixels`, for the error.

    Returns:
        The encoded image, and its pixels, (height, width, 3) uint8 RGB with gray repeated. RGB and gray JPEG and PNG
        keep their bytes; everything else becomes an RGB PNG, because TensorFlow decodes no other in the same way.

    Raises:
        DataError: the reason why the image cannot be used, beginning with a stable category.
    """
    allowed = f"{setting} allows {min(max_pixels, LARGEST_IMAGE)}"
    with opened(encoded, "image", allowed) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise DataError(f"image too large: {width}x{height} is {width * height} pixels; {allowed}")
        _check_colour(image)
        keeps_bytes = image.format in (*JPEG_FORMATS, "PNG") and raw_mode(image) in ("RGB", "L")
        decode(encoded, image, "image")
        pixels = image.convert("RGB")
    if not keeps_bytes:
        buffer = io.BytesIO()
        pixels.save(buffer, "PNG")
        encoded = buffer.getvalue()
    return encoded, np.asarray(pixels)


@contextmanager
def opened(encoded: bytes, what: str, allowed: str = "no setting allows more") -> Iterator[Image.Image]:
    """An image whose header alone has been read.

    Args:
        encoded: the file.
        what: kind of the file ('image', 'mask'), for the reasons.
        allowed: how many pixels are allowed, for the reason why one of more than `LARGEST_IMAGE` is refused.

    Raises:
        DataError: the header cannot be read, or there is more than one image in the file.
    """
    try:
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
        frames = getattr(image, "n_frames", 1)
    except Image.DecompressionBombError:
        raise DataError(f"{what} too large: more than {LARGEST_IMAGE} pixels; {allowed}") from None
    except UnidentifiedImageError:
        raise DataError(f"unreadable {what}: no {', '.join(FORMATS)} file, or its head is damaged") from None
    except Exception as error:  # noqa: BLE001 - Pillow's readers raise nearly anything on malformed headers.
        raise DataError(f"unreadable {what}: no {', '.join(FORMATS)} file, or damaged: {_reason(error)}") from None
    with image:
        if frames > 1 and image.format not in JPEG_FORMATS:
            raise DataError(f"unsupported {what}: an animation or a stack of {frames} images")
        yield image


def decode(encoded: bytes, image: Image.Image, what: str) -> None:
    """Decodes all pixels of an opened image.

    Raises:
        DataError: the file is damaged or cut off, or its EXIF block asks to rotate the image.
    """
    if image.format == "PNG" and PNG_END not in encoded:
        raise DataError(f"truncated {what}: the PNG has no end chunk")
    try:
        if image.format == "PNG":
            # Pillow checks the checksums, as TensorFlow does, only here; EXIF may come after the pixels.
            Image.open(io.BytesIO(encoded), formats=("PNG",)).verify()
            image.load()
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        else:
            # Before the pixels, because Pillow rotates a TIFF while it loads it and then drops the tag.
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            image.load()
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise nearly anything on malformed content.
        category = f"truncated {what}" if "truncated" in str(error).lower() else f"unreadable {what}"
        raise DataError(f"{category}: {_reason(error)}") from None
    if orientation not in (0, 1):  # 0 is not a valid orientation; cameras write it for 'unknown'.
        raise DataError(
            f"rotated by EXIF: the {what} has orientation {orientation}, which some programs follow and others do not; "
            "rotate the pixels upright and remove the tag (exiftran -ai, or mogrify -auto-orient), then check that "
            "image and mask still match"
        )


def raw_mode(image: Image.Image) -> str:
    """How the pixels are stored in the file, e.g. 'RGB;16B' or 'L;4', where Pillow's `mode` is RGB or L."""
    tiles = getattr(image, "tile", [])  # Only images that come from a file have them.
    arguments = tiles[0].args if tiles else image.mode
    return arguments[0] if isinstance(arguments, tuple) else str(arguments)


def _check_colour(image: Image.Image) -> None:
    raw = raw_mode(image)
    if ";16" in raw or image.mode.startswith(("I", "F")):
        raise DataError(f"unsupported image: more than 8 bits a channel ({raw}); convert it to 8 bits")
    if image.has_transparency_data:
        raise DataError(f"unsupported image: it has transparency ({image.mode}); flatten it to RGB")
    if image.mode not in ("RGB", "L", "P", "1"):
        raise DataError(f"unsupported image: colours are {image.mode}; convert it to RGB")


def _reason(error: Exception) -> str:
    return f"{error or type(error).__name__}"
