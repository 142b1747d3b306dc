"""Which pictures a person means by folders, patterns and names, on this machine or in an object store."""

import glob
import os
import posixpath
import re
import stat
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from components.storage.file_systems import file_system, is_local
from data.errors import DataError
from data.layouts.base import IMAGE_ENDINGS
from pipeline.prediction.own_outputs import OwnOutputs
from pipeline.prediction.pictures import VIDEO_ENDINGS, Picture, State, picture_at, unusable

#: What is wrong with an argument that names no picture.
NOTHING_THERE = (
    f"no picture there; a folder or pattern may hold files that end in {', '.join(IMAGE_ENDINGS)}. Videos are taken "
    "where a name or a pattern such as '*.mp4' means them, and not out of a folder. What this command wrote, and what "
    "lies in a folder of its outputs, is passed over"
)


def find_pictures(arguments: Sequence[str], out: str, *, allow_none: bool = False) -> list[Picture]:
    """The pictures that the arguments name, in their order, each once under one name.

    Args:
        arguments: Files, folders with all that is below them, and patterns with `*`, `?`, `[...]` and `**`.
        out: Folder of the outputs, in which no pictures are looked for unless an argument is in it.
        allow_none: Whether a folder or pattern may match none yet.

    Raises:
        DataError: An argument names nothing, or all of them together only what this command wrote.
    """
    found: dict[Picture, None] = {}
    own = OwnOutputs()
    for argument in arguments:
        pictures = sorted(list_pictures(argument, out, own), key=lambda picture: picture.path)
        may_come = os.path.isdir(argument) or glob.has_magic(argument) or not is_local(argument)
        if not pictures and not (allow_none and may_come) and not names_output(argument, own):
            raise DataError(f"{argument}: {NOTHING_THERE}")
        found |= dict.fromkeys(pictures)
    if not found and not allow_none:
        raise DataError(f"{arguments[0]}: {NOTHING_THERE}")
    return list(found)


def names_output(argument: str, own: OwnOutputs) -> bool:
    """Whether an argument is a file that this command wrote: a shell puts those in the place of a pattern, too."""
    if is_local(argument):
        argument = str(Path(argument).absolute())
    return own.hold(*posixpath.split(argument))


def list_pictures(argument: str, out: str, own: OwnOutputs) -> Iterator[Picture]:
    """What one argument names and this command did not write, streamed, in no order; see `find_pictures`.

    Raises:
        DataError: No file system is known for it.
    """
    file = _local_file if is_local(argument) else _remote_file
    picture = file(argument)
    if picture:
        if not own.hold(*posixpath.split(picture.path)):
            yield picture
        return
    base = _fixed_part(argument)
    apart = not _is_below(base, out)
    for picture in _local_below(argument) if is_local(argument) else _remote_below(argument, own):
        relative = posixpath.relpath(picture.path, base)
        in_outputs = (apart and _is_below(picture.path, out)) or own.surround(base, relative)
        if not in_outputs and not own.hold(base, relative):
            yield picture


def _fixed_part(argument: str) -> str:
    """The folder below which an argument's pictures lie."""
    if not is_local(argument):
        return split_pattern(argument.rstrip("/"))[0]
    path = str(Path(argument).absolute())
    return path if os.path.isdir(path) else split_pattern(path)[0]


def _is_below(path: str, folder: str) -> bool:
    """Whether a path is a folder, or below it."""
    if is_local(path):
        path, folder = os.path.realpath(path), os.path.realpath(folder)
    return f"{path}/".startswith(folder.rstrip("/") + "/")


def _local_file(argument: str) -> Picture | None:
    path = str(Path(argument).absolute())
    return _local_picture(path, posixpath.basename(path)) if os.path.lexists(path) and not os.path.isdir(path) else None


def _local_picture(path: str, relative: str) -> Picture:
    """What is no file is a picture with a problem: to open a pipe would wait for whoever writes to it."""
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        what = "a link that leads to no file" if os.path.islink(path) else "cannot be looked at"
        return unusable(path, relative, f"{what}: {error.strerror}")
    if not regular:
        return unusable(path, relative, "no regular file: a pipe, a socket or a device")
    return picture_at(path, relative, State.of(path))


def _local_below(argument: str) -> Iterator[Picture]:
    path = str(Path(argument).absolute())
    if os.path.isdir(path):
        yield from _walk(path)
        return
    base, pattern = split_pattern(path)
    for match in Path(base).glob(pattern) if pattern else ():  # Unlike glob.glob it follows no links in circles.
        if _has_ending(match.name, VIDEO_ENDINGS) and not match.is_dir():
            yield _local_picture(str(match), match.relative_to(base).as_posix())


def _walk(folder: str) -> Iterator[Picture]:
    """The pictures below a folder. Links to folders are not followed: they may lead in circles."""
    unreadable: list[OSError] = []
    for parent, _, names in os.walk(folder, onerror=unreadable.append):
        for name in filter(_has_ending, names):
            path = os.path.join(parent, name)
            yield _local_picture(path, os.path.relpath(path, folder))
    for error in unreadable:
        yield unusable(str(error.filename), str(error.filename), f"unreadable folder: {error.strerror}")


def _remote_file(argument: str) -> Picture | None:
    from apache_beam.io.filesystems import FileSystems  # takes seconds

    import components.storage.beam_files  # noqa: F401  # sets Beam's file systems up

    try:
        FileSystems.get_filesystem(argument)
    except ValueError as error:  # There is no such scheme, or its package is not installed.
        raise DataError(f"{argument}: {error}") from None
    if glob.has_magic(argument):
        return None
    for entry in FileSystems.match([argument])[0].metadata_list:
        state = _remote_state(entry.size_in_bytes, entry.last_updated_in_seconds)
        return picture_at(entry.path, posixpath.basename(entry.path), state)
    return None


def _remote_below(argument: str, own: OwnOutputs) -> Iterator[Picture]:
    base, pattern = split_pattern(argument.rstrip("/"))
    endings = VIDEO_ENDINGS if pattern else ()
    entries = list(file_system(base).stats(base))
    own.learn(base, (relative for relative, _, _ in entries))
    for relative, size, seconds in entries:
        parts = relative.split("/")
        if _has_ending(parts[-1], endings) and (not pattern or matches(parts, pattern.split("/"))):
            yield picture_at(f"{base}/{relative}", relative, _remote_state(size, seconds))


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
