"""Reading files: the operations that layouts need, the local disk, and paths that must stay in the dataset's folder."""

import json
import logging
import os
import posixpath
import re
import stat
import unicodedata
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from data.errors import DataError

#: Characters that no file of a dataset may have in its name: control characters, and bytes that are not UTF-8.
UNSAFE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


#: What operating systems, file managers, editors and notebooks leave beside people's files: names of files and folders.
_LITTER = re.compile(
    r"\.(?!incomplete$|\.?$).*|__MACOSX|thumbs\.db|ehthumbs\.db|desktop\.ini|icon\r|@eadir|\$recycle\.bin|.*~|~\$.*",
    re.IGNORECASE,
)

#: Kinds of files that are neither a regular file nor a folder.
_SPECIAL = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

_log = logging.getLogger(__name__)


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is none of a dataset's, in any layout: `.DS_Store`, `._a.jpg`, `@eaDir`."""
    return _LITTER.fullmatch(name) is not None


class FileSystem(Hashable, Protocol):
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
    """A `FileSystem` of the local disk. Links are followed, for reading and for listing alike."""

    def open(self, path: str) -> BinaryIO:
        """Opens a file for reading; raises FileNotFoundError, or OSError for a pipe, a socket or a device."""
        special = _special(os.stat(path).st_mode)
        if special:  # Opening a pipe would wait for whoever writes to it.
            raise OSError(f"it is {special}, not a file")
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
        """Relative path, size in bytes and time of change in seconds of every file below a folder, streamed.

        Folders behind links are included, but not a folder within itself. Pipes, sockets and devices are passed over.
        """
        return self._below(folder, "", ())

    def _below(self, folder: str, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, int, float]]:
        try:
            status = os.stat(folder)
            entries = os.scandir(folder)
        except OSError:  # As before for os.walk: what cannot be listed is missed where it is read.
            return
        identity = status.st_dev, status.st_ino
        if identity in above:
            entries.close()
            return
        with entries:
            for entry in entries:
                try:
                    found = entry.stat()
                except OSError:  # A link that leads nowhere.
                    found = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    yield from self._below(entry.path, f"{prefix}{entry.name}/", (*above, identity))
                    continue
                special = _special(found.st_mode)
                if special:
                    _log.warning("%s is %s, not a file; it is passed over", entry.path, special)
                else:
                    yield f"{prefix}{entry.name}", found.st_size, found.st_mtime


def _special(mode: int) -> str:
    """What a file is that is neither a regular file nor a folder; empty for these."""
    return next((name for test, name in _SPECIAL if test(mode)), "")


def walk(folder: str, files: FileSystem) -> Iterator[tuple[str, int, float]]:
    """Relative path, size and time of change of every file of a dataset: as `FileSystem.stats`, but without litter."""
    for path, size, changed in files.stats(folder):
        if not any(map(is_litter, path.split("/"))):
            yield path, size, changed


def names(folder: str, files: FileSystem) -> Iterator[str]:
    """Names of a dataset's files and folders directly in a folder, streamed, without litter; empty if it is absent."""
    return (name for name in files.list(folder) if not is_litter(name))


def same_named(folder: str, name: str, files: FileSystem) -> str | None:
    """The name in a folder that people read as this one, whatever the Unicode form (NFC, NFD) and the ending's case."""
    return _same_names(folder, files).get(_comparable(name))


@lru_cache(maxsize=8)
def _same_names(folder: str, files: FileSystem) -> dict[str, str]:
    """Comparable name -> name in the folder; kept for the next file that is sought there."""
    return {_comparable(name): name for name in sorted(files.list(folder), reverse=True)}


def _comparable(name: str) -> str:
    stem, dot, ending = unicodedata.normalize("NFC", name).rpartition(".")
    return f"{stem}{dot}{ending.lower()}" if stem else ending


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

    Links are followed wherever they lead, here as in listings: who made the folder made them. It is the text of a list
    or an annotation file that may not lead out of the folder.

    Raises:
        DataError: the path leaves the folder.
    """
    return files.join(root, *relative_path(relative).split("/"))


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
        with _open_same_named(path, files) as file:
            yield file
    except FileNotFoundError:
        raise DataError(f"{what} missing: no file {path}") from None
    except OSError as error:
        raise DataError(f"unreadable {what}: {path}: {error}") from error


def _open_same_named(path: str, files: FileSystem) -> BinaryIO:
    try:
        return files.open(path)
    except FileNotFoundError:
        folder, _, name = path.rpartition("/")
        found = same_named(folder, name, files)
        if found is None:
            raise
        return files.open(files.join(folder, found))


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
