"""Finds the images that folders, patterns and names refer to, on this machine or in an object store."""

import glob
import os
import posixpath
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from components.storage.file_systems import file_system, is_local
from data.errors import DataError
from data.files import UNSAFE, is_litter, relative_path
from data.layouts.base import IMAGE_ENDINGS
from pipeline.prediction.input_image import VIDEO_ENDINGS, FileState, InputImage
from pipeline.prediction.journal import Journal
from pipeline.prediction.outputs import CLASSES_FILE, JOURNAL_FOLDER, LEGEND_FILE

#: The problem of an argument that does not match any image.
NOTHING_THERE = (
    f"no image there; in folders and patterns, files are read that end in {', '.join(IMAGE_ENDINGS)}. Videos are used "
    "if a name or a pattern such as '*.mp4' refers to them, but not if they are only in a folder. What this command "
    "wrote, and what is in a folder of its outputs, is ignored"
)


class OwnOutputs:
    """The files that the journals in this command's output folders record. Reads each folder once."""

    def __init__(self) -> None:
        self._folders: dict[str, bool] = {}
        self._listed: dict[str, set[str]] = {}
        self._journals: dict[str, Journal] = {}

    def learn(self, base: str, names: Iterable[str]) -> None:
        """Avoids checks of the folders below one whose whole content is known, relative to it."""
        explained, recorded = set(), set()
        for name in names:
            folder, file = posixpath.split(name)
            above, last = posixpath.split(folder)
            if file == CLASSES_FILE:
                explained.add(posixpath.join(base, folder))
            if last == JOURNAL_FOLDER:
                recorded.add(posixpath.join(base, above))
        self._listed[base] = explained & recorded

    def is_output_folder(self, folder: str) -> bool:
        """Whether outputs were written to a folder, given as a path or a URI."""
        for base, holding in self._listed.items():
            if folder.startswith(base + "/"):
                return folder in holding
        if folder not in self._folders:
            exists = file_system(folder).exists
            self._folders[folder] = exists(os.path.join(folder, CLASSES_FILE)) and exists(
                os.path.join(folder, JOURNAL_FOLDER)
            )
        return self._folders[folder]

    def contains(self, base: str, relative: str) -> bool:
        """Whether a file is one of the recorded outputs.

        Args:
            base: Folder that the user named. It, or the nearest one above it, may be an output folder.
            relative: The file's path relative to it.
        """
        folder = os.path.realpath(base) if is_local(base) else base
        path = posixpath.join(folder, relative)
        while not self.is_output_folder(folder):
            above = posixpath.dirname(folder)
            if above == folder or above.endswith(":"):  # The root, or the parent of a bucket.
                return False
            folder = above
        below = posixpath.relpath(path, folder) if is_local(path) else path.removeprefix(folder + "/")
        return below in (LEGEND_FILE, CLASSES_FILE) or self._journals.setdefault(folder, Journal(folder)).made(below)

    def encloses(self, base: str, relative: str) -> bool:
        """Whether a file is in an output folder that is below the folder that the user named."""
        folder = posixpath.dirname(relative)
        while folder:
            if self.is_output_folder(posixpath.join(base, folder)):
                return True
            folder = posixpath.dirname(folder)
        return False


def find_images(arguments: Sequence[str], out: str, *, allow_none: bool = False) -> list[InputImage]:
    """Finds the images that the arguments name, in their order, each once under one name.

    Args:
        arguments: Files, folders with everything below them, and patterns with `*`, `?`, `[...]` and `**`.
        out: Folder of the outputs, which is not searched for images unless an argument is in it.
        allow_none: Whether a folder or pattern may match nothing yet.

    Raises:
        DataError: An argument matches nothing, or all of them match only outputs of this command.
    """
    found: dict[InputImage, None] = {}
    own = OwnOutputs()
    for argument in arguments:
        images = sorted(list_images(argument, out, own), key=lambda image: image.path)
        may_come = os.path.isdir(argument) or glob.has_magic(argument) or not is_local(argument)
        if not images and not (allow_none and may_come) and not names_output(argument, own):
            raise DataError(f"{argument}: {NOTHING_THERE}")
        found |= dict.fromkeys(images)
    if not found and not allow_none:
        raise DataError(f"{arguments[0]}: {NOTHING_THERE}")
    return list(found)


def names_output(argument: str, own: OwnOutputs) -> bool:
    """Whether an argument is a file that this command wrote, which the shell may have expanded from a pattern."""
    if is_local(argument):
        argument = str(Path(argument).absolute())
    return own.contains(*posixpath.split(argument))


def list_images(argument: str, out: str, own: OwnOutputs) -> Iterator[InputImage]:
    """Yields the images of one argument that this command did not write, in arbitrary order; see `find_images`.

    Raises:
        DataError: No file system is known for the argument.
    """
    local = is_local(argument)
    path = str(Path(argument).absolute()) if local else argument
    if not local:
        image = _remote_file(argument)
    elif os.path.lexists(path) and not os.path.isdir(path):
        image = _local_image(path, posixpath.basename(path))
    else:
        image = None
    if image:
        if not own.contains(*posixpath.split(image.path)):
            yield image
        return
    base = path if local and os.path.isdir(path) else split_pattern(path if local else argument.rstrip("/"))[0]
    apart = not _is_below(base, out)
    for image in _local_below(path) if local else _remote_below(argument, own):
        relative = posixpath.relpath(image.path, base)
        in_outputs = (apart and _is_below(image.path, out)) or own.encloses(base, relative)
        if not in_outputs and not own.contains(base, relative):
            yield image


def _is_below(path: str, folder: str) -> bool:
    """Whether a path is a given folder, or below it."""
    if is_local(path):
        path, folder = os.path.realpath(path), os.path.realpath(folder)
    return f"{path}/".startswith(folder.rstrip("/") + "/")


def _local_image(path: str, relative: str) -> InputImage:
    """A local image. A path that is not a file becomes an image with a problem: opening a pipe would block."""
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        what = "a broken link" if os.path.islink(path) else "cannot be read"
        return _unusable(path, relative, f"{what}: {error.strerror}")
    if not regular:
        return _unusable(path, relative, "not a regular file: a pipe, a socket or a device")
    return _image_at(path, relative, FileState.of(path))


def _image_at(path: str, relative: str, state: FileState | None) -> InputImage:
    """An image named by its path below a folder; it has a problem if outputs cannot have that name."""
    name = posixpath.splitext(relative)[0]
    try:
        name = relative_path(name)
    except DataError as error:
        return _unusable(path, name, str(error))
    if UNSAFE.search(path):
        return _unusable(
            path, name, f"invalid path: {path!r} has characters that the journal cannot contain; rename it"
        )
    return InputImage(path, name, state)


def _unusable(path: str, name: str, problem: str) -> InputImage:
    """An image that is known to be unreadable; unprintable characters in its name are escaped."""
    path, name = (UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text) for text in (path, name))
    return InputImage(path, name, None, problem)


def _local_below(path: str) -> Iterator[InputImage]:
    """The images below a folder or matching a pattern. Links to folders are not followed: they may be cyclic."""
    if not os.path.isdir(path):
        base, pattern = split_pattern(path)
        for match in Path(base).glob(pattern) if pattern else ():  # Unlike glob.glob, it follows no cyclic links.
            relative = match.relative_to(base).as_posix()
            if _is_input(relative, VIDEO_ENDINGS) and not match.is_dir():
                yield _local_image(str(match), relative)
        return
    unreadable: list[OSError] = []
    for parent, _, names in os.walk(path, onerror=unreadable.append):
        for name in names:
            found = os.path.join(parent, name)
            relative = os.path.relpath(found, path)
            if _is_input(relative):
                yield _local_image(found, relative)
    for error in unreadable:
        yield _unusable(str(error.filename), str(error.filename), f"unreadable folder: {error.strerror}")


def _remote_file(argument: str) -> InputImage | None:
    from apache_beam.io.filesystems import FileSystems  # takes seconds

    import components.storage.beam_files  # noqa: F401  # sets Beam's file systems up

    try:
        FileSystems.get_filesystem(argument)
    except ValueError as error:  # The scheme does not exist, or its package is not installed.
        raise DataError(f"{argument}: {error}") from None
    if glob.has_magic(argument):
        return None
    for entry in FileSystems.match([argument])[0].metadata_list:
        state = FileState(size=entry.size_in_bytes, modified=int(entry.last_updated_in_seconds * 1e9))
        return _image_at(entry.path, posixpath.basename(entry.path), state)
    return None


def _remote_below(argument: str, own: OwnOutputs) -> Iterator[InputImage]:
    base, pattern = split_pattern(argument.rstrip("/"))
    endings = VIDEO_ENDINGS if pattern else ()
    entries = list(file_system(base).stats(base))
    own.learn(base, (relative for relative, _, _ in entries))
    for relative, size, seconds in entries:
        if _is_input(relative, endings) and (not pattern or matches(relative.split("/"), pattern.split("/"))):
            yield _image_at(f"{base}/{relative}", relative, FileState(size=size, modified=int(seconds * 1e9)))


def split_pattern(argument: str) -> tuple[str, str]:
    """The folder before the first `*`, `?` or `[`, and the rest, in which a final `**` matches all files."""
    parts = argument.split("/")
    fixed = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    rest = [part if part == "**" else re.sub(r"\*+", "*", part) for part in parts[fixed:]]
    return "/".join(parts[:fixed]) or "/", "/".join([*rest, "*"] if rest[-1:] == ["**"] else rest)


def matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a path match those of a pattern, as in `pathlib`: `**` matches any number of folders."""
    if not pattern or not parts:
        return not pattern and not parts
    if pattern[0] == "**":
        return matches(parts, pattern[1:]) or matches(parts[1:], pattern)
    return fnmatchcase(parts[0], pattern[0]) and matches(parts[1:], pattern[1:])


def _is_input(relative: str, more: tuple[str, ...] = ()) -> bool:
    """Whether a file in a folder is to be segmented: it ends like an image, and is no litter (`data.files`)."""
    ending = posixpath.splitext(relative)[1].lower()
    return ending in (*IMAGE_ENDINGS, *more) and not any(map(is_litter, relative.split("/")))
