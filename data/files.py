"""Reading files: the operations that layouts need, the local disk, and paths that must stay in the dataset's folder."""

import json
import os
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from data.errors import DataError

#: Characters that no file of a dataset may have in its name: control characters, and bytes that are not UTF-8.
UNSAFE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


class FileSystem(Protocol):
    """The file operations that readers need; a caller passes an implementation for local disk, gs:// or s3://."""

    def open(self, path: str) -> BinaryIO:
        """Opens a file for reading; raises FileNotFoundError."""

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""

    def list(self, folder: str) -> Iterator[str]:
        """Names (not paths) of files and folders directly in a folder, streamed, in no order; empty if it is absent."""

    def join(self, base: str, *parts: str) -> str:
        """A path below `base`."""

    def stats(self, folder: str) -> Iterator[tuple[str, int, float]]:
        """Relative path, size in bytes and time of change in seconds of every file below a folder, streamed."""


class LocalFiles:
    """A `FileSystem` of the local disk."""

    def open(self, path: str) -> BinaryIO:
        """Opens a file for reading; raises FileNotFoundError."""
        return Path(path).open("rb")

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        return Path(path).exists()

    def list(self, folder: str) -> Iterator[str]:
        """Names in a folder, one at a time: a folder may hold millions."""
        try:
            entries = os.scandir(folder)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise DataError(f"unreadable folder: {folder}: {error}") from error
        with entries:
            for entry in entries:
                yield entry.name

    def join(self, base: str, *parts: str) -> str:
        """A path below `base`."""
        return str(Path(base, *parts))

    def stats(self, folder: str) -> Iterator[tuple[str, int, float]]:
        """Relative path, size in bytes and time of change in seconds of every file below a folder, streamed."""
        for parent, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(parent, name)
                status = os.stat(path) if os.path.exists(path) else os.lstat(path)  # A link may lead nowhere.
                yield os.path.relpath(path, folder), status.st_size, status.st_mtime


def relative_path(text: str) -> str:
    """A path found in a list or annotation file, normalised to `a/b/c`.

    Raises:
        DataError: the path is empty, absolute or a URI, or leaves the folder that it is relative to.
    """
    if "://" in text or re.match(r"[A-Za-z]:[\\/]", text) or text.startswith(("/", "\\")):
        raise DataError(f"path outside the dataset: {text!r} is absolute; it must be relative to the dataset's folder")
    path = posixpath.normpath(text.strip().replace("\\", "/"))
    if path == ".." or path.startswith("../"):
        raise DataError(f"path outside the dataset: {text!r} leaves the dataset's folder")
    if path == ".":
        raise DataError(f"invalid path: {text!r} does not name a file")
    if UNSAFE.search(path):
        raise DataError(f"invalid path: {text!r} has control characters or is not UTF-8; rename the file")
    return path


def inside(root: str, relative: str, files: FileSystem) -> str:
    """Joins a path that came from a list or annotation file to the dataset's folder.

    URIs (gs://, s3://) are checked by their text; local paths also after following symbolic links.

    Raises:
        DataError: the path leaves the folder.
    """
    path = files.join(root, *relative_path(relative).split("/"))
    if "://" in root:
        return path
    folder, target = os.path.realpath(root), os.path.realpath(path)
    if os.path.commonpath([folder, target]) != folder:
        raise DataError(
            f"path outside the dataset: {relative!r} is a symbolic link to {target}, which is not in {folder}; "
            "copy the linked files into the dataset's folder"
        )
    return path


def read_bytes(path: str, files: FileSystem, what: str = "file") -> bytes:
    """The whole content of a file; `what` ('image', 'mask') names its kind in the error if it cannot be read.

    Raises:
        DataError: the file does not exist or cannot be read.
    """
    with _opened(path, files, what) as file:
        return file.read()


@contextmanager
def _opened(path: str, files: FileSystem, what: str) -> Iterator[BinaryIO]:
    try:
        with files.open(path) as file:
            yield file
    except FileNotFoundError:
        raise DataError(f"{what} missing: no file {path}") from None
    except OSError as error:
        raise DataError(f"unreadable {what}: {path}: {error}") from error


def read_lines(path: str, files: FileSystem) -> Iterator[tuple[int, str]]:
    """Streams (line number, text) of a text file's lines that are not blank, without surrounding white space.

    Bytes that are not UTF-8 become backslash escapes, so that a file with such a name is reported as missing.

    Raises:
        DataError: the file does not exist or cannot be read.
    """
    with _opened(path, files, "list") as file:
        for number, line in enumerate(file, start=1):
            text = line.decode("utf-8", errors="backslashreplace").removeprefix("\ufeff").strip()
            if text:
                yield number, text


def read_json(path: str, files: FileSystem) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: the file is missing or not JSON; the text names the file and the position.
    """
    content = read_bytes(path, files, "annotation file")
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise DataError(f"invalid JSON: {path}, line {error.lineno}, column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"invalid JSON: {path}, byte {error.start}: {error.reason}") from None
    except RecursionError:
        raise DataError(f"invalid JSON: {path}: nested too deeply") from None
