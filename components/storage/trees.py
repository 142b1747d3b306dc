"""Whole folders on local disks and object stores: the names of their files, copies, and a fingerprint of contents."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from components.storage.atomic import create
from components.storage.file_systems import file_system, is_local, read_file

_CHUNK = 1 << 20


def file_names(folder: str) -> Iterator[str]:
    """Relative paths of all files below a folder, in no order."""
    for name, _, _ in file_system(folder).stats(folder):
        yield name


def content_fingerprint(folder: str, exclude: tuple[str, ...] = ()) -> str:
    """SHA-256 over the names and contents of a folder's files, but for those whose path begins with `exclude`."""
    digest = hashlib.sha256()
    for name in sorted(file_names(folder)):
        if not name.startswith(exclude):
            content = hashlib.sha256(read_file(os.path.join(folder, name))).hexdigest()
            digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


def copy_tree(source: str, target: str, exclude: tuple[str, ...] = (), last: str | None = None) -> None:
    """Copies a folder between any two file systems.

    Args:
        source: The folder to copy.
        target: Where its files go; made if absent.
        exclude: Files whose path begins with one of these are not copied.
        last: The file that is copied after all others.
    """
    source_files = file_system(source)
    for name in sorted(file_names(source), key=lambda name: (name == last, name)):
        if not name.startswith(exclude):
            with source_files.open(os.path.join(source, name)) as reader, create(os.path.join(target, name)) as writer:
                shutil.copyfileobj(reader, writer, _CHUNK)


@contextmanager
def local_copy(path: str) -> Iterator[str]:
    """A folder on this machine: the one that is given, or a temporary copy of it, because TensorFlow reads no s3://."""
    if is_local(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy_tree(path, folder)
        yield folder


def remove_tree(path: str) -> None:
    """Removes a folder with all that is in it, or a local file."""
    if not is_local(path):
        from components.storage.beam_files import BeamFiles  # takes seconds

        BeamFiles().delete(path + "/")
    elif os.path.isdir(path):
        shutil.rmtree(path)
    else:
        os.remove(path)
