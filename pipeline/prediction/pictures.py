"""Which pictures a person means by folders, patterns and names."""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.errors import DataError
from data.layouts.base import IMAGE_ENDINGS


@dataclass(frozen=True)
class Picture:
    """One picture."""

    path: Path
    name: str
    """Of its outputs, without suffix: for a picture in a folder that was named, its path in there."""


def find_pictures(arguments: Sequence[str], out: Path, *, allow_none: bool = False) -> list[Picture]:
    """The pictures that the arguments name, in their order, each once.

    Args:
        arguments: Files, folders with all that is below them, and patterns with `*`, `?`, `[...]` and `**`.
        out: Folder of the outputs, in which no pictures are looked for.
        allow_none: Whether a folder or pattern may match none yet.

    Raises:
        DataError: An argument names nothing.
    """
    found: dict[Path, Picture] = {}
    for argument in arguments:
        pictures = list(_named(argument, out.resolve()))
        if not pictures and not (allow_none and (Path(argument).is_dir() or glob.has_magic(argument))):
            raise DataError(
                f"{argument}: no picture there; a folder or pattern may hold files that end in "
                f"{', '.join(IMAGE_ENDINGS)}"
            )
        for picture in pictures:
            found.setdefault(picture.path.resolve(), picture)
    return list(found.values())


def _named(argument: str, out: Path) -> Iterator[Picture]:
    path = Path(argument)
    if path.is_dir():
        for file in _pictures(path.rglob("*"), out):
            yield Picture(file, file.relative_to(path).with_suffix("").as_posix())
    elif path.is_file():
        yield Picture(path, path.stem)
    elif glob.has_magic(argument):
        for file in _pictures((Path(match) for match in glob.iglob(argument, recursive=True)), out):
            yield Picture(file, file.stem)


def _pictures(paths: Iterator[Path], out: Path) -> Iterator[Path]:
    for path in sorted(paths):
        if path.suffix.lower() in IMAGE_ENDINGS and path.is_file() and not path.resolve().is_relative_to(out):
            yield path
