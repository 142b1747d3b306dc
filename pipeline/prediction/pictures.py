"""Which pictures a person means by folders, patterns and names, on this machine or in an object store."""

import glob
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from components.files import file_system, is_local
from data.errors import DataError
from data.files import UNSAFE, read_bytes, relative_path
from data.layouts.base import IMAGE_ENDINGS

#: Videos are looked for by name and pattern alone: a folder of pictures may hold some that nobody means.
VIDEO_ENDINGS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts")

#: What is wrong with an argument that names no picture.
NOTHING_THERE = (
    f"no picture there; a folder or pattern may hold files that end in {', '.join(IMAGE_ENDINGS)}, outside the folder "
    "of the outputs"
)


class State(BaseModel):
    """A file as it was when it was found."""

    model_config = ConfigDict(frozen=True)

    size: int
    """In bytes."""
    modified: int
    """In nanoseconds since 1970."""

    @classmethod
    def of(cls, path: str) -> Self | None:
        """The state of a local file now; None if it cannot be looked at."""
        try:
            status = os.stat(path)
        except OSError:
            return None
        return cls(size=status.st_size, modified=status.st_mtime_ns)


@dataclass(frozen=True)
class Picture:
    """One picture, or a video, which `pipeline.prediction.video` takes apart."""

    path: str
    """Absolute path or URI; of a frame, that of the video, `#` and the frame's number."""
    name: str
    """Of its outputs, without suffix: its path below the folder that was named, or below a pattern's fixed part."""
    state: State | None
    """None if the file could not be looked at."""
    problem: str = ""
    """Why it cannot be read, where that is known before anybody tries."""

    @property
    def is_video(self) -> bool:
        """Whether it is a video, by its ending."""
        return not self.problem and self.path.lower().endswith(VIDEO_ENDINGS)

    def read(self, max_bytes: int) -> bytes:
        """The encoded picture.

        Raises:
            DataError: It cannot be read, or its file is larger than allowed.
        """
        if self.problem:
            raise DataError(self.problem)
        if self.state and self.state.size > max_bytes:
            raise DataError(f"image too large: the file has {self.state.size} bytes, more than the allowed {max_bytes}")
        return read_bytes(self.path, file_system(self.path), "picture")


def find_pictures(arguments: Sequence[str], out: str, *, allow_none: bool = False) -> list[Picture]:
    """The pictures that the arguments name, in their order, each once under one name.

    Args:
        arguments: Files, folders with all that is below them, and patterns with `*`, `?`, `[...]` and `**`.
        out: Folder of the outputs, in which no pictures are looked for.
        allow_none: Whether a folder or pattern may match none yet.

    Raises:
        DataError: An argument names nothing.
    """
    found: dict[Picture, None] = {}
    for argument in arguments:
        pictures = sorted(list_pictures(argument, out), key=lambda picture: picture.path)
        may_come = os.path.isdir(argument) or glob.has_magic(argument) or not is_local(argument)
        if not pictures and not (allow_none and may_come):
            raise DataError(f"{argument}: {NOTHING_THERE}")
        found |= dict.fromkeys(pictures)
    return list(found)


def list_pictures(argument: str, out: str) -> Iterator[Picture]:
    """What one argument names, streamed, in no order; see `find_pictures`.

    Raises:
        DataError: No file system is known for it.
    """
    file, below = (_local_file, _local_below) if is_local(argument) else (_remote_file, _remote_below)
    picture = file(argument)
    if picture:
        yield picture
        return
    for picture in below(argument):
        if not _is_below(picture.path, out):
            yield picture


def _is_below(path: str, folder: str) -> bool:
    if is_local(path):
        path, folder = os.path.realpath(path), os.path.realpath(folder)
    return path.startswith(folder.rstrip("/") + "/")


def _local_file(argument: str) -> Picture | None:
    path = str(Path(argument).absolute())
    return _picture(path, posixpath.basename(path), State.of(path)) if os.path.isfile(path) else None


def _local_below(argument: str) -> Iterator[Picture]:
    path = str(Path(argument).absolute())
    if os.path.isdir(path):
        yield from _walk(path)
        return
    base, pattern = split_pattern(path)
    for match in Path(base).glob(pattern) if pattern else ():  # Unlike glob.glob it follows no links in circles.
        if _has_ending(match.name, VIDEO_ENDINGS) and os.path.isfile(match):
            yield _picture(str(match), match.relative_to(base).as_posix(), State.of(str(match)))


def _walk(folder: str) -> Iterator[Picture]:
    """The pictures below a folder. Links to folders are not followed: they may lead in circles."""
    unreadable: list[OSError] = []
    for parent, _, names in os.walk(folder, onerror=unreadable.append):
        for name in filter(_has_ending, names):
            path = os.path.join(parent, name)
            if os.path.isfile(path):
                yield _picture(path, os.path.relpath(path, folder), State.of(path))
    for error in unreadable:
        yield _unusable(str(error.filename), str(error.filename), f"unreadable folder: {error.strerror}")


def _remote_file(argument: str) -> Picture | None:
    from apache_beam.io.filesystems import FileSystems  # takes seconds

    import components.beam_files  # noqa: F401  # sets Beam's file systems up

    try:
        FileSystems.get_filesystem(argument)
    except ValueError as error:  # There is no such scheme, or its package is not installed.
        raise DataError(f"{argument}: {error}") from None
    if glob.has_magic(argument):
        return None
    for entry in FileSystems.match([argument])[0].metadata_list:
        state = _remote_state(entry.size_in_bytes, entry.last_updated_in_seconds)
        return _picture(entry.path, posixpath.basename(entry.path), state)
    return None


def _remote_below(argument: str) -> Iterator[Picture]:
    base, pattern = split_pattern(argument.rstrip("/"))
    endings = VIDEO_ENDINGS if pattern else ()
    for relative, size, seconds in file_system(base).stats(base):
        parts = relative.split("/")
        if _has_ending(parts[-1], endings) and (not pattern or matches(parts, pattern.split("/"))):
            yield _picture(f"{base}/{relative}", relative, _remote_state(size, seconds))


def _remote_state(size: int, seconds: float) -> State:
    return State(size=size, modified=int(seconds * 1e9))


def split_pattern(argument: str) -> tuple[str, str]:
    """The folder above the first `*`, `?` or `[`, and the rest, in which a last `**` means all files."""
    parts = argument.split("/")
    fixed = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    rest = [part if part == "**" else re.sub(r"\*+", "*", part) for part in parts[fixed:]]
    return "/".join(parts[:fixed]) or "/", "/".join([*rest, "*"] if rest[-1:] == ["**"] else rest)


def matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a path match those of a pattern, as `pathlib` does it: `**` is any number of folders."""
    if not pattern or not parts:
        return not pattern and not parts
    if pattern[0] == "**":
        return matches(parts, pattern[1:]) or matches(parts[1:], pattern)
    return fnmatchcase(parts[0], pattern[0]) and matches(parts[1:], pattern[1:])


def _has_ending(name: str, more: tuple[str, ...] = ()) -> bool:
    return posixpath.splitext(name)[1].lower() in (*IMAGE_ENDINGS, *more)


def _picture(path: str, relative: str, state: State | None) -> Picture:
    name = posixpath.splitext(relative)[0]
    try:
        name = relative_path(name)
    except DataError as error:
        return _unusable(path, name, str(error))
    if UNSAFE.search(path):
        return _unusable(path, name, f"invalid path: {path!r} has characters that no journal can hold; rename it")
    return Picture(path, name, state)


def _unusable(path: str, name: str, problem: str) -> Picture:
    path, name = (UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text) for text in (path, name))
    return Picture(path, name, None, problem)
