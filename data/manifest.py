"""The manifest of examples: which image files are in them, by content, so that a renamed file is found again.

`manifest/<first hexadecimal digit of the digest>.jsonl.gz`, one `ImageFile` a line, sorted by digest.
"""

import gzip
import hashlib
import re
from collections.abc import Iterable, Iterator

from pydantic import BaseModel, ConfigDict

from data.errors import DataError
from data.files import FileSystem
from data.images import LARGEST_IMAGE, read_image

FOLDER = "manifest"
_ENDING = ".jsonl.gz"


class ImageFile(BaseModel):
    """One image in the examples."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    """Digest of the encoded image in the examples, which is that of the file unless `data.images` had to convert it."""
    key: str
    """Path relative to the dataset's root when it was read."""
    size: int
    """Size of the encoded image, in bytes."""
    split: str


def image_file(encoded: bytes, key: str, split: str) -> ImageFile:
    """The entry of an image that the examples hold as `encoded`."""
    return ImageFile(sha256=hashlib.sha256(encoded).hexdigest(), key=key, size=len(encoded), split=split)


def part_name(part: str) -> str:
    """Path, relative to the examples, of the part whose digests begin with a hexadecimal digit."""
    return f"{FOLDER}/{part}{_ENDING}"


def pack_part(entries: Iterable[ImageFile]) -> bytes:
    """The content of a part; equal for equal entries in any order."""
    lines = sorted(entry.model_dump_json() + "\n" for entry in entries)  # The digest comes first in a line.
    return gzip.compress("".join(lines).encode(), mtime=0)


def read_manifest(examples: str, files: FileSystem) -> Iterator[ImageFile]:
    """Streams the image files in examples.

    Args:
        examples: folder or URI of the examples.
        files: file system of that folder.

    Raises:
        FileNotFoundError: the examples have no manifest, or no longer exist.
    """
    folder = files.join(examples, FOLDER)
    parts = sorted(name for name in files.list(folder) if re.fullmatch(r"[0-9a-f]" + re.escape(_ENDING), name))
    if not parts:
        raise FileNotFoundError(folder)
    for name in parts:
        with files.open(files.join(folder, name)) as file, gzip.open(file) as lines:
            yield from map(ImageFile.model_validate_json, lines)


def digests(content: bytes) -> set[str]:
    """The digests under which a file may stand in a manifest: its own, and that of its converted image."""
    found = {hashlib.sha256(content).hexdigest()}
    try:
        encoded, _ = read_image(content, LARGEST_IMAGE)
    except DataError:  # Not an image, or a damaged one: only the same bytes can be found.
        return found
    return found | {hashlib.sha256(encoded).hexdigest()}
