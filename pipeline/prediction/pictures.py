"""A picture: where it lies, what its outputs are called, and how it is read."""

import os
import posixpath
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict

from components.storage.file_systems import file_system
from data.errors import DataError
from data.files import UNSAFE, read_bytes, relative_path

#: Videos are looked for by name and pattern alone: a folder of pictures may hold some that nobody means.
VIDEO_ENDINGS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts")


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


def picture_at(path: str, relative: str, state: State | None) -> Picture:
    """A picture named by its path below some folder; one with a problem if that is no name that outputs can have."""
    name = posixpath.splitext(relative)[0]
    try:
        name = relative_path(name)
    except DataError as error:
        return unusable(path, name, str(error))
    if UNSAFE.search(path):
        return unusable(path, name, f"invalid path: {path!r} has characters that no journal can hold; rename it")
    return Picture(path, name, state)


def unusable(path: str, name: str, problem: str) -> Picture:
    """A picture that nobody needs to try to read; what cannot be printed of its names is escaped."""
    path, name = (UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text) for text in (path, name))
    return Picture(path, name, None, problem)
