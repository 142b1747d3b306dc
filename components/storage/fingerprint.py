"""The fingerprint of a data folder, which is part of ExampleGen's cache key."""

import hashlib

from data.files import FileSystem, walk


def fingerprint(folder: str, files: FileSystem) -> str:
    """A short string that changes when a file below the folder is added, removed, renamed, resized or rewritten.

    Litter (`data.files.is_litter`) does not count, and a link is what it leads to. As in TFX's own fingerprint, names,
    sizes and times of change decide, so that no image is read. The digests of the files are summed: the sum does not
    depend on the order of the listing, and needs no memory for it.
    """
    total, count = 0, 0
    for path, size, changed in walk(folder, files):
        digest = hashlib.sha256(f"{path}\0{size}\0{changed!r}".encode(errors="surrogateescape")).digest()
        total = (total + int.from_bytes(digest, "big")) % 2**256
        count += 1
    return f"files:{count},digest:{total:064x}"
