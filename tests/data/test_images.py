"""Decoding images strictly."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.errors import DataError
from data.images import read_image

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GRAY = RGB[:, :, 0]
LIMIT = 1000


def encoded(pixels: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG of a kind that Pillow does not write: `rows` each begin with a filter byte."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


FOUR_BIT_GRAY = png(2, 1, 4, 0, b"\0\x1f")

KEPT = {
    "rgb png": encoded(RGB, "PNG"),
    "gray png": encoded(GRAY, "PNG"),
    "rgb jpeg": encoded(RGB, "JPEG"),
    "gray jpeg": encoded(GRAY, "JPEG"),
    "progressive jpeg": encoded(RGB, "JPEG", progressive=True),
    "upright jpeg": encoded(RGB, "JPEG", exif=exif(1)),
    "jpeg of unknown orientation": encoded(RGB, "JPEG", exif=exif(0)),
    "jpeg with a second image": encoded(
        Image.fromarray(RGB), "MPO", save_all=True, append_images=[Image.fromarray(RGB)]
    ),
}
REWRITTEN = {
    "bmp": encoded(RGB, "BMP"),
    "tiff": encoded(RGB, "TIFF", compression="tiff_lzw"),
    "lossless webp": encoded(RGB, "WEBP", lossless=True),
    "palette png": encoded(Image.fromarray(RGB).quantize(8), "PNG"),
    "two-colour png": encoded(Image.fromarray(GRAY > 100), "PNG"),
    "four-bit gray png": FOUR_BIT_GRAY,
}
REFUSED = {
    "16-bit gray png": (encoded(GRAY.astype(np.uint16) * 256, "PNG"), "unsupported image: more than 8 bits a channel"),
    "16-bit rgb png": (png(1, 1, 16, 2, bytes(7)), "unsupported image: more than 8 bits a channel"),
    "float tiff": (encoded(GRAY.astype(np.float32), "TIFF"), "unsupported image: more than 8 bits a channel"),
    "rgba png": (encoded(Image.fromarray(RGB).convert("RGBA"), "PNG"), "unsupported image: it has transparency"),
    "gray png with alpha": (encoded(Image.fromarray(GRAY).convert("LA"), "PNG"), "unsupported image: it has transpar"),
    "keyed palette png": (
        encoded(Image.fromarray(RGB).quantize(8), "PNG", transparency=0),
        "unsupported image: it has transparency",
    ),
    "cmyk jpeg": (encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG"), "unsupported image: colours are CMYK"),
    "gif": (encoded(GRAY, "GIF"), "unreadable image: no JPEG, PNG, BMP, WEBP, TIFF file"),
    "stack of tiffs": (
        encoded(Image.fromarray(RGB), "TIFF", save_all=True, append_images=[Image.fromarray(RGB)]),
        "unsupported image: an animation or a stack of 2 images",
    ),
    "rotated jpeg": (encoded(RGB, "JPEG", exif=exif(6)), "rotated by EXIF: the image has orientation 6"),
    "rotated png": (encoded(RGB, "PNG", exif=exif(3)), "rotated by EXIF: the image has orientation 3"),
    "rotated tiff": (encoded(RGB, "TIFF", exif=exif(8)), "rotated by EXIF: the image has orientation 8"),
    "rotated webp": (encoded(RGB, "WEBP", exif=exif(8)), "rotated by EXIF: the image has orientation 8"),
    "empty file": (b"", "unreadable image: "),
    "text": (b"<html>not found</html>", "unreadable image: "),
    "large image": (encoded(np.zeros((34, 30, 3), np.uint8), "PNG"), "image too large: 30x34 is 1020 pixels"),
    "decompression bomb": (
        png(60_000, 60_000, 8, 0, b""),
        "image too large: more than 178956970 pixels; data.max_pixels allows 1000",
    ),
}


@pytest.mark.parametrize("content", KEPT.values(), ids=KEPT)
def test_rgb_and_gray_jpeg_and_png_keep_their_bytes(content):
    stored, pixels = read_image(content, LIMIT)
    assert stored == content
    assert pixels.shape == (6, 9, 3) and pixels.dtype == np.uint8
    assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


@pytest.mark.parametrize("content", REWRITTEN.values(), ids=REWRITTEN)
def test_other_kinds_become_rgb_png_without_loss(content):
    stored, pixels = read_image(content, LIMIT)
    image = Image.open(io.BytesIO(stored))
    assert (image.format, image.mode) == ("PNG", "RGB")
    assert np.array_equal(np.asarray(image), pixels)
    assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


@pytest.mark.parametrize(("content", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_would_surprise_is_refused_with_the_reason(content, reason):
    with pytest.raises(DataError) as caught:
        read_image(content, LIMIT)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(("width", "size"), [(34, "34x30 is 1020"), (60_000, "more than 178956970")])
def test_who_set_another_limit_is_told_of_that(width, size):
    with pytest.raises(DataError, match=f"^image too large: {size} pixels; --max-pixels allows 1000$"):
        read_image(png(width, 30 if width == 34 else 60_000, 8, 0, b""), LIMIT, "--max-pixels")


@pytest.mark.parametrize("content", [*KEPT.values(), *REWRITTEN.values()], ids=[*KEPT, *REWRITTEN])
def test_tensorflow_decodes_what_is_stored_as_we_do(content):
    tf = pytest.importorskip("tensorflow")
    stored, pixels = read_image(content, LIMIT)
    decoded = tf.io.decode_image(stored, channels=3, expand_animations=False).numpy().astype(int)
    # JPEG decoders differ in upsampling and rounding; PNG is exact.
    assert np.abs(decoded - pixels).mean() <= (0 if stored.startswith(b"\x89PNG") else 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.97])
def test_a_file_that_was_cut_off_is_refused(kind, share):
    content = encoded(RNG.integers(0, 256, (25, 30, 3), dtype=np.uint8), kind)
    with pytest.raises(DataError, match="^(truncated|unreadable) image: "):
        read_image(content[: int(share * len(content))], LIMIT)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_stored_file_lacks_not_one_byte(kind):
    content = encoded(RGB, kind)
    for length in range(len(content)):
        with pytest.raises(DataError):
            read_image(content[:length], LIMIT)


def test_a_truncated_jpeg_is_called_truncated():
    with pytest.raises(DataError, match="^truncated image: "):
        read_image(KEPT["rgb jpeg"][:-10], LIMIT)


def test_a_flipped_bit_in_a_png_is_found_by_its_checksum():
    content = bytearray(KEPT["rgb png"])
    content[60] ^= 1
    with pytest.raises(DataError, match="^unreadable image: broken PNG file"):
        read_image(bytes(content), LIMIT)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([*KEPT.values(), *REWRITTEN.values()]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
    st.integers(0, 40),
)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_end_in_a_reason_and_nothing_else(content, changes, cut):
    damaged = bytearray(content[: len(content) - cut])
    for position, value in changes:
        damaged[position % len(damaged)] = value
    known = ("unreadable image", "truncated image", "unsupported image", "image too large", "rotated by EXIF")
    try:
        _, pixels = read_image(bytes(damaged), LIMIT)
    except DataError as error:
        category = str(error).partition(":")[0]
    else:
        category = None
        assert pixels.ndim == 3 and pixels.size <= 3 * LIMIT
    assert category in (None, *known)
