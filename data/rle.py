"""Run-length encodings of regions, as COCO, CVAT and Label Studio write them."""

from collections.abc import Sequence

import numpy as np

from data.errors import DataError


def decoded_runs(runs: Sequence[int], pixels: int) -> np.ndarray:
    """Run lengths that alternate, beginning with zeros -> (pixels,) bool.

    Raises:
        DataError: the run lengths are not natural numbers that add up to `pixels`.
    """
    if not all(type(run) is int and run >= 0 for run in runs) or sum(runs) != pixels:
        raise DataError(f"malformed run-length encoding: the runs do not add up to {pixels} pixels")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def coco_runs(counts: object) -> Sequence[int]:
    """Run lengths from COCO's `counts`: a list, or a text of 5 bits a character, low bits first; from the third on,
    differences two back.

    Reference: `rleFrString` in cocoapi/common/maskApi.c. The run lengths of a list are returned unchecked.

    Raises:
        DataError: it is neither a text nor a list.
    """
    if isinstance(counts, list):
        return counts
    if not isinstance(counts, str | bytes):
        raise DataError(f"malformed run-length encoding: counts must be a text or a list, not {type(counts).__name__}")
    runs: list[int] = []
    value, shift = 0, 0
    for code in map(ord, counts) if isinstance(counts, str) else counts:
        bits = code - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value, shift = 0, 0
    return runs


def label_studio_values(encoded: bytes, number: int) -> np.ndarray:
    """The values of Label Studio's encoding of a brush -> (number,) uint8.

    The encoding is a stream of bits: the number of values (32 bits), the width of a value less 1 (5 bits), and four
    widths of run lengths less 1 (4 bits each). Then follow runs: one bit, 1 for one value that is repeated and 0 for
    values one by one; two bits that choose the width of the run length; the run length less 1; the values.
    Reference: `thi.ng/rle-pack`, which Label Studio's front end uses.

    Args:
        encoded: the stream.
        number: the number of values that the stream must have; it is checked before anything is decoded.

    Raises:
        DataError: the stream is malformed, or has another number of values.
    """
    bits = np.unpackbits(np.frombuffer(encoded, np.uint8))
    position = 0

    def take(width: int, count: int = 1) -> np.ndarray:
        nonlocal position
        chunk = bits[position : position + width * count]
        position += width * count
        if chunk.size < width * count:
            raise DataError("truncated run-length encoding: the bits of a brush end before its pixels")
        return chunk.reshape(count, width) @ (1 << np.arange(width - 1, -1, -1, dtype=np.int64))  # (count,)

    stated, width = take(32)[0], take(5)[0] + 1
    if stated != number or width != 8:
        raise DataError(
            f"malformed run-length encoding: a brush has {stated} values of {width} bits, not {number} of 8"
        )
    lengths = take(4, 4) + 1
    values = np.zeros(number, np.uint8)
    done = 0
    while done < number:
        repeated, choice = take(1)[0], take(2)[0]
        end = done + take(int(lengths[choice]))[0] + 1
        if end > number:
            raise DataError(f"malformed run-length encoding: a brush has more than {number} values")
        values[done:end] = take(8) if repeated else take(8, end - done)
        done = end
    return values
