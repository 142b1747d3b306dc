"""Writing to local disks and object stores so that a killed process leaves nothing half written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from components.storage.file_systems import file_system, is_local


def read_small(path: str) -> bytes | None:
    """The content of a small file or object; None if it is not there."""
    try:
        with file_system(path).open(path) as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def write_small(path: str, content: bytes) -> None:
    """Writes a small file, which is then there as a whole or not at all, whenever the process is killed."""
    if not is_local(path):
        with create(path) as file:
            file.write(content)
        return
    new = f"{path}.new"
    try:
        with naming(path):
            with create(new) as file:
                file.write(content)
            flush(new)
            os.replace(new, path)
    except BaseException:
        with suppress(OSError):  # It may not be there, and what went wrong before is what counts.
            os.unlink(new)
        raise
    flush(Path(path).parent)


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Gives an error the name of a file or folder where it has none, as that of a write."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = path
        raise


def create(path: str) -> BinaryIO:
    """Opens a new file or object for writing; makes the folder."""
    if is_local(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return open(path, "wb")
    from components.storage.beam_files import BeamFiles  # takes seconds

    return BeamFiles().create(path)


def remove(path: str) -> None:
    """Removes a file or object, where it is there."""
    if is_local(path):
        Path(path).unlink(missing_ok=True)
        return
    from components.storage.beam_files import BeamFiles  # takes seconds

    BeamFiles().delete(path)  # Object stores call it a success if there is none.


def flush(path: str | Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
