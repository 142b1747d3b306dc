"""Atomic writing to local disks and object stores: a killed process leaves nothing half written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from components.storage.file_systems import is_local, read_file


def read_small(path: str) -> bytes | None:
    """The content of a small file or object; None if it is absent."""
    try:
        return read_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def write_small(path: str, content: bytes) -> None:
    """Writes a small file, atomically: whenever the process is killed, the whole file is there or none of it."""
    if not is_local(path):
        with create(path) as file:
            file.write(content)
        return
    new = f"{path}.new"
    try:
        with annotate_errors(path):
            with create(new) as file:
                file.write(content)
            flush(new)
            os.replace(new, path)
    except BaseException:
        with suppress(OSError):  # The file may be absent, and the first error is the one to report.
            os.unlink(new)
        raise
    flush(Path(path).parent)


@contextmanager
def annotate_errors(path: str) -> Iterator[None]:
    """Adds the name of a file or folder to an OSError that names none; one raised by a write does not."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = path
        raise


def create(path: str) -> BinaryIO:
    """Opens a new file or object for writing; makes its folder."""
    if is_local(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return open(path, "wb")
    from components.storage.beam_files import BeamFiles  # takes seconds

    return BeamFiles().create(path)


def remove(path: str) -> None:
    """Removes a file or object if it is there."""
    if is_local(path):
        Path(path).unlink(missing_ok=True)
        return
    from components.storage.beam_files import BeamFiles  # takes seconds

    BeamFiles().delete(path)  # Object stores report success if it is absent.


def flush(path: str | Path) -> None:
    """Waits until the content of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
