"""Encoded images are checked before TensorFlow decodes them."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from pipeline.serving.tensors import RequestError, checked_images
from tests.pipeline.serving.conftest import blocks, encode


def bomb(width: int, height: int) -> bytes:
    """A PNG of some hundred bytes that claims to be huge."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", r"image 1 \(0 bytes\): unreadable image"),
        (b"GIF89a and no more", "unreadable image"),
        (b"no image", r"image 1 \(8 bytes\): unreadable image: no JPEG, PNG, BMP, WEBP, TIFF file"),
        (encode(blocks(64, 64))[:-100], "truncated image"),
        (encode(blocks(64, 64), "JPEG")[:-100], "truncated image"),
        (bomb(5000, 5000), "too many pixels: 25000064 up to image 1; serving.max_pixels allows 10000"),
        (bomb(50_000, 50_000), "image too large"),
        (encode(np.zeros((4, 4, 4), np.uint8)), "it has transparency"),
    ],
)
def test_an_image_that_cannot_be_used_is_named_with_the_reason(encoded: bytes, reason: str):
    with pytest.raises(RequestError, match=reason) as caught:
        checked_images([encode(blocks(8, 8)), encoded], 10_000, "image_bytes")
    assert caught.value.status == 400


def test_the_limit_counts_all_images_of_a_request():
    images = [encode(blocks(10, 10, seed)) for seed in range(3)]
    assert checked_images(images, 300, "image_bytes") == images
    with pytest.raises(RequestError, match="too many pixels: 300 up to image 2; serving.max_pixels allows 299"):
        checked_images(images, 299, "image_bytes")


def test_a_photo_is_turned_as_people_see_it():
    """TensorFlow does not follow the orientation."""
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned by a quarter, clockwise.
    pixels = blocks(9, 7)
    [png] = checked_images([encode(np.ascontiguousarray(np.rot90(pixels)), exif=exif)], 100, "image_bytes")
    assert np.array_equal(np.asarray(Image.open(BytesIO(png))), pixels)


def test_formats_that_tensorflow_does_not_read_become_png():
    pixels = blocks(9, 7)
    [png] = checked_images([encode(pixels, "WEBP", lossless=True)], 100, "image_bytes")
    assert png == encode(pixels)
