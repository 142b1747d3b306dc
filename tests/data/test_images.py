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
from data.images import image_size, read_image

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


def tiff(pixels: np.ndarray, *, planar: bool = False, tile: int = 0, extra: int | None = None) -> bytes:
    """An uncompressed TIFF of a kind that Pillow does not write; `tile` is the side of its tiles, 16 or more."""
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    height, width, bands = pixels.shape
    if tile:
        pixels = np.pad(pixels, ((0, -height % tile), (0, -width % tile), (0, 0)))
    planes = [pixels[:, :, i] for i in range(bands)] if planar else [pixels]
    step = tile or max(height, width)
    blocks = [
        plane[y : y + step, x : x + step].tobytes()
        for plane in planes
        for y in range(0, pixels.shape[0], step)
        for x in range(0, pixels.shape[1], step)
    ]
    offsets = [8 + sum(map(len, blocks[:i])) for i in range(len(blocks))]
    sizes = [len(block) for block in blocks]
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    tags: dict[int, list[int]] = {256: [width], 257: [height], 258: [8 * pixels.itemsize] * bands, 259: [1]}
    tags |= {262: [2 if bands >= 3 else 1], 277: [bands], 284: [2 if planar else 1], 339: [kind] * bands}
    tags |= {322: [tile], 323: [tile], 324: offsets, 325: sizes} if tile else {273: offsets, 278: [height], 279: sizes}
    tags |= {} if extra is None else {338: [extra]}
    content = struct.pack("<2sHI", b"II", 42, 8 + sum(sizes)) + b"".join(blocks)
    after, entries, values = len(content) + 2 + 12 * len(tags) + 4, b"", b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        if len(numbers) == 1:
            entries += struct.pack("<HHI", tag, 4, 1) + packed
        else:
            entries += struct.pack("<HHII", tag, 4, len(numbers), after + len(values))
            values += packed
    return content + struct.pack("<H", len(tags)) + entries + bytes(4) + values


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
    "opaque rgba png": encoded(Image.fromarray(RGB).convert("RGBA"), "PNG"),
    "opaque gray png with alpha": encoded(Image.fromarray(GRAY).convert("LA"), "PNG"),
    "palette png whose key is no pixel's": encoded(Image.fromarray(GRAY % 4), "PNG", transparency=9),
    "opaque rgba webp": encoded(Image.fromarray(RGB).convert("RGBA"), "WEBP", lossless=True),
}
CLEAR = np.dstack([RGB, np.full(GRAY.shape, 254, np.uint8)])
REFUSED = {
    "16-bit gray png": (encoded(GRAY.astype(np.uint16) * 256, "PNG"), "unsupported image: more than 8 bits a channel"),
    "16-bit rgb png": (png(1, 1, 16, 2, bytes(7)), "unsupported image: more than 8 bits a channel"),
    "float tiff": (encoded(GRAY.astype(np.float32), "TIFF"), "unsupported image: more than 8 bits a channel"),
    "rgba png": (encoded(CLEAR, "PNG"), "unsupported image: it has transparency"),
    "gray png with alpha": (encoded(Image.fromarray(CLEAR).convert("LA"), "PNG"), "unsupported image: it has transpar"),
    "planar 16-bit tiff": (
        tiff(RGB.astype(np.uint16) * 257, planar=True),
        "unsupported image: more than 8 bits a channel (TIFF with 3 bands of 16 bits)",
    ),
    "tiff with a band of infrared": (
        tiff(CLEAR, extra=0),
        "unsupported image: the TIFF has 4 bands; save one band, or RGB",
    ),
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


#: Each EXIF orientation, and how the pixels that people see become those that are stored with it.
STORED = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, 1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_an_image_is_turned_as_people_see_it(kind, orientation):
    stored = np.ascontiguousarray(STORED[orientation](RGB))
    options = {"lossless": True} if kind == "WEBP" else {}
    content, pixels = read_image(encoded(stored, kind, exif=exif(orientation), **options), LIMIT)
    assert np.array_equal(pixels, RGB)
    image = Image.open(io.BytesIO(content))
    assert (image.format, image.getexif().get(0x0112)) == ("PNG", None)
    assert np.array_equal(np.asarray(image), RGB)


def test_a_turned_jpeg_is_stored_upright():
    content, pixels = read_image(encoded(RGB, "JPEG", exif=exif(6)), LIMIT)
    assert pixels.shape == (9, 6, 3)
    assert np.array_equal(pixels, np.rot90(read_image(KEPT["rgb jpeg"], LIMIT)[1], -1))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), pixels)


@pytest.mark.parametrize(
    ("orientation", "shape", "mask", "refused"),
    [
        (6, (6, 9), (9, 6), None),
        (6, (6, 9), (5, 5), None),  # Its size is refused later, with a better reason.
        (6, (6, 9), (6, 9), "its mask has the size of the image as it is stored"),
        (6, (6, 9), None, "its mask states no size"),
        (6, (6, 6), (6, 6), "its mask has the size of the image as it is stored"),
        (3, (6, 9), (6, 9), "its mask has the size of the image as it is stored"),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_with_a_mask_an_image_is_turned_where_the_sizes_say_so(kind, orientation, shape, mask, refused):
    content = encoded(RGB[: shape[0], : shape[1]], kind, exif=exif(orientation))
    if refused is None:
        assert read_image(content, LIMIT, mask_size=lambda: mask)[1].shape[:2] == (9, 6)
    else:
        with pytest.raises(
            DataError, match=f"^rotated by EXIF: the image has orientation {orientation}, and {refused}"
        ):
            read_image(content, LIMIT, mask_size=lambda: mask)


def test_the_size_by_the_header_is_that_of_the_decoded_image():
    for kind in ("JPEG", "TIFF", "WEBP"):
        for orientation in (1, 3, 6):
            content = encoded(RGB, kind, exif=exif(orientation))
            assert image_size(io.BytesIO(content)) == read_image(content, LIMIT)[1].shape[:2]
    with pytest.raises(DataError, match="^unreadable image: "):
        image_size(io.BytesIO(b"text"))


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
