"""How long a Matroska or WebM file says that it is."""

import os
from typing import BinaryIO

#: IDs of the two elements that a file is made of (RFC 8794, section 11.2.1; RFC 9559, section 5.1).
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def missing_bytes(file: BinaryIO) -> int:
    """How many bytes a file, open at its beginning, is shorter than it says; 0 if it is whole or does not say.

    FFmpeg reads what is there of a file that was cut off, and calls that its end. What writes where it cannot go back,
    as browsers do when they record, does not say how long it is. Other formats are not looked at.
    """
    declared = _declared_bytes(file)
    file.seek(0, os.SEEK_END)
    return max(0, declared - file.tell())


def _declared_bytes(file: BinaryIO) -> int:
    if file.read(len(EBML)) != EBML or (head := _size(file)) is None:
        return 0
    file.seek(head, 1)
    if file.read(len(SEGMENT)) != SEGMENT or (body := _size(file)) is None:
        return 0
    return file.tell() + body


def _size(file: BinaryIO) -> int | None:
    """The size of an element's content, a variable-size integer (RFC 8794, section 4); None if it is unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    bits = 7 * length
    value = int.from_bytes(first + file.read(length - 1)) & ((1 << bits) - 1)
    return None if value == (1 << bits) - 1 else value
