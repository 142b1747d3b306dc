"""Mask files as people and their tools keep them, read as the label values or colours that they hold."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from data.errors import DataError
from data.labels import ClassLabel, LabelMap
from data.layouts.base import MaskFile
from data.mask_files import read_codes, unpacked
from data.masks import read_mask
from tests.data.test_images import png, tiff

IDS = np.array([[0, 1, 2, 2], [1, 0, 2, 2], [0, 0, 1, 1]], np.uint8)
COLORS = np.array([(0, 0, 0), (200, 30, 60), (20, 160, 220)], np.uint8)
RGB = COLORS[IDS]
RGBA = np.dstack([RGB, np.full(IDS.shape, 255, np.uint8)])
LABELS = LabelMap(
    classes=tuple(
        ClassLabel(name=str(i), values=(i,), colors=(tuple(color),)) for i, color in enumerate(COLORS.tolist())
    )
)

Read = Callable[[str, bytes], np.ndarray]


@pytest.fixture
def read(tmp_path: Path, files) -> Read:
    """The class ids of a mask file with the given name and content."""

    def read(name: str, content: bytes) -> np.ndarray:
        (tmp_path / name).write_bytes(content)
        return read_mask(MaskFile(str(tmp_path / name)), LABELS, IDS.shape, files)

    return read


@pytest.fixture
def reason(read: Read) -> Callable[[str, bytes], str]:
    """Why a mask file is refused."""

    def reason(name: str, content: bytes) -> str:
        with pytest.raises(DataError) as caught:
            read(name, content)
        return str(caught.value)

    return reason


def saved(pixels: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def indexed(pixels: np.ndarray = IDS) -> Image.Image:
    image = Image.fromarray(pixels).convert("P")
    image.putdata(pixels.ravel().tolist())
    image.putpalette(COLORS.ravel().tolist())
    return image


def wide_png(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, RGB or RGBA."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return png(pixels.shape[1], pixels.shape[0], 16, {3: 2, 4: 6}[pixels.shape[2]], rows)


def npy(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def mat(**variables: object) -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, variables, do_compression=True)
    return buffer.getvalue()


def grid(text: str) -> bytes:
    return text.encode()


READ = {
    "opaque RGBA": ("m.png", saved(RGBA, "PNG")),
    "opaque RGBA of 16 bits": ("m.png", wide_png(RGBA.astype(np.uint16) * 257)),
    "RGB of 16 bits, its low bytes empty": ("m.png", wide_png(RGB.astype(np.uint16) * 256)),
    "opaque gray with alpha": ("m.png", saved(Image.fromarray(IDS).convert("LA"), "PNG")),
    "palette": ("m.png", saved(indexed(), "PNG")),
    "palette with alpha": ("m.png", saved(indexed(), "PNG", transparency=bytes([0, 255, 128]))),
    "gray": ("m.png", saved(IDS, "PNG")),
    "gray of 16 bits": ("m.png", saved(IDS.astype(np.uint16), "PNG")),
    "gray of 2 bits": ("m.png", png(4, 3, 2, 0, b"\0\x1a\0\x4a\0\x05")),
    "integers of 32 bits": ("m.tif", saved(IDS.astype(np.int32), "TIFF")),
    "unsigned integers of 32 bits": ("m.tif", tiff(IDS.astype(np.uint32))),
    "signed integers of 16 bits": ("m.tif", tiff(IDS.astype(np.int16))),
    "BMP": ("m.bmp", saved(RGB, "BMP")),
    "BMP of 32 bits": ("m.bmp", saved(RGBA, "BMP")),
    "palette BMP": ("m.bmp", saved(indexed(), "BMP")),
    "GIF": ("m.gif", saved(indexed(), "GIF")),
    "lossless WebP": ("m.webp", saved(RGB, "WEBP", lossless=True)),
    "TIFF": ("m.tif", saved(RGB, "TIFF", compression="tiff_lzw")),
    "TIFF with alpha": ("m.tif", saved(RGBA, "TIFF")),
    "BigTIFF": ("m.tif", saved(RGB, "TIFF", big_tiff=True)),
    "tiled TIFF": ("m.tif", tiff(IDS, tile=16)),
    "tiled RGB TIFF": ("m.tiff", tiff(RGB, tile=16)),
    "planar TIFF": ("m.tif", tiff(RGB, planar=True)),
    "tiled planar TIFF": ("m.tif", tiff(RGB, planar=True, tile=16)),
    "NumPy": ("m.npy", npy(IDS.astype(np.int64))),
    "NumPy in Fortran order": ("m.npy", npy(np.asfortranarray(IDS.astype(">u2")))),
    "whole floats of NumPy": ("m.npy", npy(IDS.astype(np.float32))),
    "MATLAB": ("m.mat", mat(groundTruth=IDS, note="text", version=np.array([[3.0]]))),
    "MATLAB's struct": ("m.mat", mat(groundTruth={"Segmentation": IDS, "Boundaries": 1 - IDS})),
    "MATLAB's double": ("m.mat", mat(labels=IDS.astype(np.float64))),
    "text": ("m.txt", grid("0 1 2 2\n1 0 2 2\n0 0 1 1\n")),
    "text with commas": ("m.txt", grid("0,1,2,2\r\n1,0,2,2\r\n0,0,1,1")),
    "text with tabs": ("m.TXT", grid("0\t1\t2\t2\n1\t0\t2\t2\n0\t0\t1\t1")),
}

REFUSED = {
    "transparent pixels": (
        "m.png",
        saved(np.dstack([RGB, IDS * 100]), "PNG"),
        "unsupported mask: mode RGBA, and 12 of 12 pixels are transparent",
    ),
    "colours of 16 bits": ("m.png", wide_png(RGB.astype(np.uint16) * 256 + 7), "unsupported mask: 16-bit colours that"),
    "16-bit TIFF": ("m.tif", tiff(RGB.astype(np.uint16)), "unsupported mask: more than 8 bits a channel"),
    "planar 16-bit TIFF": (
        "m.tif",
        tiff(RGB.astype(np.uint16) * 257, planar=True),
        "unsupported mask: more than 8 bits a channel (TIFF with 3 bands of 16 bits)",
    ),
    "fourth band": ("m.tif", tiff(RGBA, extra=0), "unsupported mask: the TIFF has 4 bands; save one band, or RGB"),
    "signed bytes": ("m.tif", tiff(IDS.astype(np.int8)), "unsupported mask: signed 8-bit numbers in a TIFF"),
    "negative numbers": (
        "m.tif",
        tiff(IDS.astype(np.int16) - 1),
        "label outside the label map: -1 (4 pixels); allowed: 0-2",
    ),
    "animation": (
        "m.gif",
        saved(indexed(), "GIF", save_all=True, append_images=[indexed(2 - IDS)]),
        "unsupported mask: an animation or a stack of 2 images",
    ),
    "pickled array": ("m.npy", npy(np.array([[None, 1]]), allow_pickle=True), "unsupported mask: the array has shape"),
    "volume": ("m.npy", npy(RGB), "unsupported mask: the array has shape (3, 4, 3) and type uint8"),
    "probabilities": ("m.npy", npy(IDS / 3), "unsupported mask: numbers that are not whole"),
    "array of another size": ("m.npy", npy(np.zeros((9, 9), int)), "size mismatch: image 4x3, mask 9x9"),
    "cut array": ("m.npy", npy(IDS)[:-2], "unreadable mask: no NumPy array, or a damaged one"),
    "no array": ("m.npy", b"PK", "unreadable mask: no NumPy array"),
    "two arrays": (
        "m.mat",
        mat(labels=IDS, depth=IDS.astype(np.float64)),
        "unsupported mask: a .mat file must hold one 2-D array of numbers, but this one holds 2: labels (uint8, 3x4), "
        "depth (double, 3x4)",
    ),
    "struct without labels": (
        "m.mat",
        mat(gt={"Boundaries": IDS, "Depth": IDS}),
        "unsupported mask: gt of this .mat file has the 2-D arrays Boundaries, Depth, and which holds the labels",
    ),
    "no MATLAB file": ("m.mat", b"notes", "unreadable mask: no MATLAB file"),
    "MATLAB 7.3": (
        "m.mat",
        b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\x02IM",
        "unsupported mask: a MATLAB 7.3 file; save it with",
    ),
    "words": ("m.txt", b"a b c d\n" * 3, "unreadable mask: no grid of whole numbers"),
    "grid of another size": ("m.txt", b"0 1\n2 3\n", "size mismatch: image 4x3, mask 2x2"),
    "ragged grid": ("m.txt", b"0 1 2 2\n1\n0 0 1 1\n", "unreadable mask: no grid of whole numbers"),
}


@pytest.mark.parametrize(("name", "content"), READ.values(), ids=READ)
def test_masks_are_read_as_they_come(read: Read, name: str, content: bytes) -> None:
    ids = read(name, content)
    assert ids.dtype == np.uint8
    assert ids.tolist() == IDS.tolist()


@pytest.mark.parametrize(("name", "content", "text"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_rightly_is_refused(
    reason: Callable[..., str], name: str, content: bytes, text: str
) -> None:
    assert reason(name, content).startswith(text)


def test_ids_of_32_bits_keep_their_value(tmp_path: Path, files) -> None:
    (tmp_path / "m.tif").write_bytes(tiff(np.array([[1, 70_000], [2**31 + 5, 2**32 - 1]], np.uint32)))
    codes = read_codes(str(tmp_path / "m.tif"), files, lambda size: None).codes
    assert codes.tolist() == [[1, 70_000], [2**31 + 5, 2**32 - 1]]


def test_one_bit_masks_hold_zero_and_one(read: Read) -> None:
    assert read("m.tif", saved(IDS > 0, "TIFF", compression="group4")).tolist() == (IDS > 0).tolist()


def test_what_a_file_holds_as_colours_and_values(tmp_path: Path, files) -> None:
    """A palette mask holds both: the index of each pixel, and the colour of each index."""
    (tmp_path / "m.png").write_bytes(saved(indexed(), "PNG"))
    found = read_codes(str(tmp_path / "m.png"), files, lambda size: None)
    assert found.codes.tolist() == IDS.tolist() and not found.are_colors and not found.continuous
    assert found.colors is not None and unpacked(int(found.colors[0, 2])) == (20, 160, 220)


def test_arrays_are_refused_by_their_header_before_they_take_memory(tmp_path: Path, files) -> None:
    """The header announces a terabyte, of which the file has nothing."""
    header = npy(IDS)[:128].replace(b"'shape': (3, 4), }".ljust(30), b"'shape': (999999, 999999), }".ljust(30))
    (tmp_path / "m.npy").write_bytes(header)
    with pytest.raises(DataError, match="size mismatch: image 4x3, mask 999999x999999"):
        read_mask(MaskFile(str(tmp_path / "m.npy")), LABELS, IDS.shape, files)
