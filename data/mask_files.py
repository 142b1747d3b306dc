"""Mask files as codes: the label values or RGB colours that a file holds, of every format in which masks are kept."""

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, TiffImagePlugin

from data.errors import DataError
from data.files import FileSystem, read_bytes
from data.images import FORMATS, LARGEST_IMAGE, Size, check_tiff, decode, opened, raw_mode

#: Pillow spreads gray of 2 and 4 bits over 0..255; the stored label is the quotient.
SPREAD = {"L;2": 85, "L;4": 17}

#: Longest number in a grid of text, with its separator.
LONGEST_NUMBER = 16


@dataclass(frozen=True, slots=True)
class MaskCodes:
    """What a mask file holds in each pixel."""

    codes: np.ndarray
    """(height, width): label values, any integer dtype; where `are_colors`, uint32 colours as `packed` makes them."""
    are_colors: bool = False
    palette: np.ndarray | None = None
    """(256,) uint32: the packed colour of each 8-bit label value, for palette and gray; None for other values."""
    continuous: bool = False
    """Whether a code may be a little off its class's, by compression or resizing: RGB and 8-bit gray, no indices."""

    @property
    def colors(self) -> np.ndarray | None:
        """(height, width) uint32 packed colours; None if the file holds values without colours."""
        if self.are_colors:
            return self.codes
        return None if self.palette is None else self.palette[self.codes]


def packed(rgb: np.ndarray) -> np.ndarray:
    """RGB in the last axis -> uint32 R + 256 G + 65536 B, which is also how COCO's panoptic masks store segment ids."""
    channels = rgb.astype(np.uint32)
    return channels[..., 0] | channels[..., 1] << 8 | channels[..., 2] << 16


def unpacked(code: int) -> tuple[int, int, int]:
    """The RGB colour of a packed code."""
    return code & 255, code >> 8 & 255, code >> 16


def read_codes(path: str, files: FileSystem, check_size: Callable[[Size], None]) -> MaskCodes:
    """Reads a mask file: PNG, BMP, GIF, JPEG, WebP, TIFF, NumPy's .npy, MATLAB's .mat, or a grid of numbers as .txt.

    Args:
        path: the mask; the ending of its name matters for .npy, .mat and .txt alone.
        files: opens it.
        check_size: called with the mask's (height, width) before anything is decoded; raises DataError to refuse it.

    Raises:
        DataError: the reason why the mask cannot be used, beginning with a stable category.
    """
    encoded = read_bytes(path, files, "mask")
    for ending, read in ARRAYS.items():
        if path.lower().endswith(ending):
            array = read(encoded, check_size)
            check_size(array.shape)
            return MaskCodes(array)
    return _image_codes(encoded, check_size)


def _image_codes(encoded: bytes, check_size: Callable[[Size], None]) -> MaskCodes:
    with opened(encoded, "mask", formats=(*FORMATS, "GIF")) as image:
        check_size(image.size[::-1])
        check_tiff(image, "mask")
        raw = "" if image.format == "GIF" else raw_mode(image)
        unsigned = image.format == "TIFF" and image.tag_v2.get(TiffImagePlugin.SAMPLEFORMAT, (1,)) == (1,)  # type: ignore[attr-defined]
        orientation = decode(encoded, image, "mask")
        if orientation != 1:
            raise DataError(
                f"rotated by EXIF: the mask has orientation {orientation}, which labelling tools do not follow; "
                "turn its pixels as the image is, and remove the tag (mogrify -auto-orient)"
            )
        if image.mode == "1":
            return MaskCodes(np.asarray(image).astype(np.uint8), palette=_GRAY)
        if image.mode == "L":
            return MaskCodes(np.asarray(image) // np.uint8(SPREAD.get(raw, 1)), palette=_GRAY, continuous=raw == "L")
        if image.mode == "P":
            colors = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
            palette = np.zeros(256, np.uint32)
            palette[: len(colors)] = packed(colors)
            return MaskCodes(np.asarray(image), palette=palette)
        if image.mode.startswith("I"):
            values = np.asarray(image)
            # Pillow has no unsigned 32-bit integers.
            return MaskCodes(values.view(np.uint32) if unsigned and values.dtype == np.int32 else values)
        if image.mode in ("RGB", "RGBA", "LA") and raw != "LA;16B":
            _check_opaque(image)
            if ";16" in raw:
                _check_low_bytes(encoded, raw)
            if image.mode == "LA":
                return MaskCodes(np.asarray(image.getchannel("L")), palette=_GRAY, continuous=True)
            # Pillow holds RGB as RGBX: its bytes are packed codes already, but for the fourth.
            codes = np.asarray(image.convert("RGBA")).view("<u4")[:, :, 0] & 0xFFFFFF
            return MaskCodes(codes, are_colors=True, continuous=True)
    raise DataError(f"unsupported mask: mode {image.mode} ({raw}); save it as palette, gray or RGB, not transparent")


def _check_opaque(image: Image.Image) -> None:
    if not image.has_transparency_data:
        return
    alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    if clear := np.count_nonzero(alpha != 255):
        raise DataError(
            f"unsupported mask: mode {image.mode}, and {clear} of {alpha.size} pixels are transparent, which "
            "says nothing of their class; flatten the mask onto the colour that they stand for"
        )


def _check_low_bytes(encoded: bytes, raw: str) -> None:
    """Refuses 16-bit colours that are not 8-bit ones in wider numbers; Pillow reads their high bytes alone."""
    with opened(encoded, "mask") as image:
        high = np.asarray(image.copy())
    with opened(encoded, "mask") as image:
        image.tile = [tile._replace(args=raw.replace("16B", "16L")) for tile in image.tile]  # type: ignore[attr-defined]
        image.load()
        low = np.asarray(image)
    if not np.array_equal(low, high) and low[..., :3].any():
        raise DataError("unsupported mask: 16-bit colours that are no 8-bit colours; save it with 8 bits a channel")


def _npy(encoded: bytes, check_size: Callable[[Size], None]) -> np.ndarray:
    file = io.BytesIO(encoded)
    try:
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, _, dtype = header(file)
        _check_array("the array", shape, dtype)
        check_size((shape[0], shape[1]))
        file.seek(0)
        return _whole(np.load(file, allow_pickle=False))
    except (ValueError, KeyError, EOFError, MemoryError) as error:
        raise DataError(f"unreadable mask: no NumPy array, or a damaged one: {error}") from None


def _mat(encoded: bytes, check_size: Callable[[Size], None]) -> np.ndarray:
    import scipy.io  # A third of a second, which no command should take that only reads a configuration.

    try:
        found = scipy.io.whosmat(io.BytesIO(encoded))
        names = [name for name, shape, kind in found if len(shape) == 2 and min(shape) > 1 and kind in MATLAB_NUMBERS]
        structs = [name for name, _, kind in found if kind == "struct"]
        if not names and len(structs) == 1:
            array = _struct_field(encoded, structs[0])
            check_size(array.shape)
            return _whole(array)
        if len(names) != 1:
            listed = ", ".join(f"{name} ({kind}, {'x'.join(map(str, shape))})" for name, shape, kind in found[:20])
            raise DataError(
                f"unsupported mask: a .mat file must hold one 2-D array of numbers, but this one holds {len(names)}: "
                f"{listed or 'nothing'}; save the label array alone"
            )
        check_size(next(shape for name, shape, _ in found if name == names[0]))
        return _whole(scipy.io.loadmat(io.BytesIO(encoded), variable_names=names)[names[0]])
    except DataError:
        raise
    except NotImplementedError:
        raise DataError("unsupported mask: a MATLAB 7.3 file; save it with `save FILE -v7`") from None
    except Exception as error:  # noqa: BLE001 - scipy's reader raises nearly anything on malformed content.
        raise DataError(f"unreadable mask: no MATLAB file, or a damaged one: {error}") from None


def _struct_field(encoded: bytes, name: str) -> np.ndarray:
    """The label array in a MATLAB struct, as BSDS500 and CrackForest have it: groundTruth.Segmentation."""
    import scipy.io

    # The header says how large an array is, but not what is in a struct; compressed elements may grow a thousandfold.
    position = 128
    while position + 8 <= len(encoded):
        kind, size = np.frombuffer(encoded, "<u4", 2, position)
        unpacker, left = zlib.decompressobj(), encoded[position + 8 : position + 8 + int(size)]
        unpacked_bytes = 0
        while kind == MATLAB_COMPRESSED and left and not unpacker.eof:
            unpacked_bytes += len(unpacker.decompress(left, 1 << 20))
            left = unpacker.unconsumed_tail
            if unpacked_bytes > LARGEST_STRUCT:
                raise DataError(f"mask too large: {name} has more than {LARGEST_STRUCT} bytes")
        position += 8 + int(size)
    struct = scipy.io.loadmat(io.BytesIO(encoded), variable_names=[name])[name].ravel()[0]
    fields = {
        field: struct[field]
        for field in struct.dtype.names or ()
        if isinstance(struct[field], np.ndarray) and struct[field].ndim == 2 and struct[field].dtype.kind in "buif"
    }
    named = [field for field in fields if field.lower() in LABEL_FIELDS] if len(fields) != 1 else list(fields)
    if len(named) != 1:
        raise DataError(
            f"unsupported mask: {name} of this .mat file has the 2-D arrays {', '.join(fields) or 'none'}, and which "
            f"holds the labels is not known (one of {', '.join(sorted(LABEL_FIELDS))}); save it alone"
        )
    return np.asarray(fields[named[0]])


def _grid(encoded: bytes, check_size: Callable[[Size], None]) -> np.ndarray:
    rows = encoded.count(b"\n") + 1
    if len(encoded) > LONGEST_NUMBER * LARGEST_IMAGE:
        raise DataError(f"mask too large: {len(encoded)} bytes of text")
    first = encoded.lstrip().partition(b"\n")[0]
    separator = next((mark for mark in (",", ";") if mark.encode() in first), None)
    columns = len(first.decode(errors="replace").strip(" \r\t,;").split(separator))
    check_size((rows - 1 if encoded.endswith(b"\n") else rows, columns))
    try:
        return np.loadtxt(io.BytesIO(encoded), dtype=np.int64, delimiter=separator, comments=None, ndmin=2)
    except ValueError as error:
        raise DataError(f"unreadable mask: no grid of whole numbers: {error}") from None


def _check_array(what: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if len(shape) != 2 or dtype.kind not in "buif":
        raise DataError(
            f"unsupported mask: {what} has shape {shape} and type {dtype}; it must be (height, width) of whole numbers"
        )


def _whole(array: np.ndarray) -> np.ndarray:
    """An array of whole numbers, whatever its dtype, as integers."""
    _check_array("the array", array.shape, array.dtype)
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind == "f":
        whole = np.where(np.isfinite(array), array, 0.5)
        if not (whole == np.rint(whole)).all() or np.abs(whole).max(initial=0) > 2**53:
            raise DataError("unsupported mask: numbers that are not whole; a mask holds one label value in each pixel")
    if array.dtype.kind == "f" or array.dtype.itemsize == 8:
        return array.astype(np.int64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


#: MATLAB's numeric classes.
#: Names, in lower case, of the field of a MATLAB struct that holds the labels.
LABEL_FIELDS = frozenset({"segmentation", "seg", "label", "labels", "labelmap", "mask", "groundtruth", "gt"})
#: Data type of a compressed element of a MATLAB file ("MAT-File Format", level 5: miCOMPRESSED).
MATLAB_COMPRESSED = 15
#: The unpacked bytes of a struct may not be more.
LARGEST_STRUCT = 1 << 28

MATLAB_NUMBERS = (
    *("logical", "double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
)

#: Endings of masks that are arrays, not images -> their readers.
ARRAYS = {".npy": _npy, ".mat": _mat, ".txt": _grid}

#: Gray as colours.
_GRAY = packed(np.repeat(np.arange(256)[:, None], 3, axis=1))
