"""Strict decoding of image files: what other readers might decode differently is a reason to quarantine the image."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from data.errors import DataError

#: (height, width) in pixels.
Size = tuple[int, int]

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")

#: Pillow's names of JPEG files. MPO, which many cameras write, has further images behind the first.
JPEG_FORMATS = ("JPEG", "MPO")

#: EXIF orientation -> what makes the image upright (Exif 2.32, tag 0x0112). From 5 on, width and height change places.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

#: The last chunk of a PNG: its name and its checksum.
PNG_END = b"IEND\xaeB`\x82"

#: Pillow refuses larger images by itself; no `max_pixels` may exceed it.
LARGEST_IMAGE = 2 * (Image.MAX_IMAGE_PIXELS or 0)


def read_image(
    encoded: bytes,
    max_pixels: int,
    setting: str = "data.max_pixels",
    mask_size: Callable[[], Size | None] | None = None,
) -> tuple[bytes, np.ndarray]:
    """Decodes an image and returns the encoded image to store, and its pixels as people see them.

    An image that its EXIF orientation turns or mirrors is turned, since viewers and labelling tools show it so.

    Args:
        encoded: a JPEG, PNG, BMP, WebP or TIFF file with 8 bits a channel: RGB, gray or a palette, opaque.
        max_pixels: largest height x width; a larger image is not decoded at all.
        setting: configuration key of `max_pixels`, for the error.
        mask_size: gives the (height, width) of the image's mask, None if it states none; called for an image with an
            EXIF orientation. Such an image is refused unless the mask's size says that it belongs to the turned image.

    Returns:
        The encoded image, and its pixels, (height, width, 3) uint8 RGB with gray repeated. Upright RGB and gray JPEG
        and PNG keep their bytes; all others become an RGB PNG, because TensorFlow does not decode them in the same way.

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
        stored = _stored_size(image)
        orientation = decode(encoded, image, "image")
        if image.has_transparency_data:
            if image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
                raise DataError(f"unsupported image: it has transparency ({image.mode}); flatten it to RGB")
            keeps_bytes = False
        pixels = image.convert("RGB")
        if orientation != 1:
            keeps_bytes = False
            if image.format != "TIFF":  # Pillow turns a TIFF while it decodes it.
                pixels = pixels.transpose(UPRIGHT[orientation])
            if mask_size:
                _require_turned(orientation, stored, pixels.size[::-1], mask_size())
    if not keeps_bytes:
        buffer = io.BytesIO()
        pixels.save(buffer, "PNG")
        encoded = buffer.getvalue()
    return encoded, np.asarray(pixels)


def image_size(file: BinaryIO) -> Size:
    """(height, width) of an image or mask as people see it, by its header and EXIF orientation; nothing is decoded.

    Raises:
        DataError: the header cannot be read.
    """
    try:
        with Image.open(file, formats=(*FORMATS, "GIF")) as image:
            turned = image.format != "PNG" and image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            height, width = _stored_size(image)
            return (width, height) if turned else (height, width)
    except Exception as error:  # noqa: BLE001 - Pillow's readers raise nearly anything on malformed headers.
        raise DataError(f"unreadable image: {_reason(error)}") from None


@contextmanager
def opened(
    encoded: bytes, what: str, allowed: str = "no setting allows more", formats: tuple[str, ...] = FORMATS
) -> Iterator[Image.Image]:
    """An image whose header alone has been read.

    Args:
        encoded: the file.
        what: kind of the file ('image', 'mask'), for the reasons.
        allowed: how many pixels are allowed, for the reason why one of more than `LARGEST_IMAGE` is refused.
        formats: Pillow's names of the formats that are allowed.

    Raises:
        DataError: the header cannot be read, or there is more than one image in the file.
    """
    try:
        image = Image.open(io.BytesIO(encoded), formats=formats)
        frames = getattr(image, "n_frames", 1)
    except Image.DecompressionBombError:
        raise DataError(f"{what} too large: more than {LARGEST_IMAGE} pixels; {allowed}") from None
    except UnidentifiedImageError:
        raise DataError(f"unreadable {what}: no {', '.join(formats)} file, or its head is damaged") from None
    except Exception as error:  # noqa: BLE001 - Pillow's readers raise nearly anything on malformed headers.
        raise DataError(f"unreadable {what}: no {', '.join(formats)} file, or damaged: {_reason(error)}") from None
    with image:
        if frames > 1 and image.format not in JPEG_FORMATS:
            raise DataError(f"unsupported {what}: an animation or a stack of {frames} images")
        yield image


def decode(encoded: bytes, image: Image.Image, what: str) -> int:
    """Decodes all pixels of an opened image, and returns its EXIF orientation: 1 where it is upright, else 2 to 8.

    Raises:
        DataError: the file is damaged or cut off.
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
    return orientation if orientation in UPRIGHT else 1  # Cameras write 0 for 'unknown'.


def raw_mode(image: Image.Image) -> str:
    """How the pixels are stored in the file, e.g. 'RGB;16B' or 'L;4', where Pillow's `mode` is RGB or L."""
    tiles = getattr(image, "tile", [])  # Only images that come from a file have them.
    arguments = tiles[0].args if tiles else image.mode
    return arguments[0] if isinstance(arguments, tuple) else str(arguments)


def check_tiff(image: Image.Image, what: str) -> None:
    """Checks by the tags of a TIFF that Pillow decodes all bits of all its bands; other formats pass.

    Pillow reads the bands of a planar TIFF as 8-bit ones whatever their depth, leaves out bands behind the third
    without a word, and reads signed 8-bit numbers as unsigned.

    Raises:
        DataError: it does not, and the file must be saved differently.
    """
    if image.format != "TIFF":
        return
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits, formats = (set(tags.get(tag, (1,))) for tag in (TiffImagePlugin.BITSPERSAMPLE, TiffImagePlugin.SAMPLEFORMAT))
    samples = tags.get(TiffImagePlugin.SAMPLESPERPIXEL, len(image.getbands()))
    if samples != len(image.getbands()):
        raise DataError(f"unsupported {what}: the TIFF has {samples} bands; save one band, or RGB")
    if samples > 1 and bits != {8}:
        depth = ", ".join(map(str, sorted(bits)))
        raise DataError(f"unsupported {what}: more than 8 bits a channel (TIFF with {samples} bands of {depth} bits)")
    if formats == {2} and bits == {8}:
        raise DataError(f"unsupported {what}: signed 8-bit numbers in a TIFF; save them unsigned")


def _stored_size(image: Image.Image) -> Size:
    """(height, width) of the pixels as the file holds them."""
    if image.format == "TIFF":  # Pillow states the turned size.
        tags = image.tag_v2  # type: ignore[attr-defined]
        return tags[TiffImagePlugin.IMAGELENGTH], tags[TiffImagePlugin.IMAGEWIDTH]
    return image.size[::-1]


def _require_turned(orientation: int, stored: Size, turned: Size, mask: Size | None) -> None:
    """Refuses an image that EXIF turns if its mask may belong to the pixels as the file holds them."""
    if turned != stored and mask not in (None, stored):
        return  # Where the mask has neither size, the reason for its size is the better one.
    raise DataError(
        f"rotated by EXIF: the image has orientation {orientation}, and its mask "
        f"{'has the size of the image as it is stored' if mask else 'states no size'}, so that it may be for the image "
        "before or after it is turned; where the mask is for the image as people see it, turn the pixels upright and "
        "remove the tag (exiftran -ai, or mogrify -auto-orient), and where not, remove the tag alone (exiftool "
        "-Orientation=)"
    )


def _check_colour(image: Image.Image) -> None:
    raw = raw_mode(image)
    if ";16" in raw or image.mode.startswith(("I", "F")):
        raise DataError(f"unsupported image: more than 8 bits a channel ({raw}); convert it to 8 bits")
    check_tiff(image, "image")
    if image.mode not in ("RGB", "L", "P", "1", "RGBA", "LA", "PA"):
        raise DataError(f"unsupported image: colours are {image.mode}; convert it to RGB")


def _reason(error: Exception) -> str:
    return f"{error or type(error).__name__}"
