"""An input image: its path, the name of its outputs, and how it is read."""

import os
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict

from components.storage.file_systems import file_system
from data.errors import DataError
from data.files import read_bytes

#: Videos are found only by name and pattern: a folder of images may contain videos that are not meant to be predicted.
VIDEO_ENDINGS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts")


class FileState(BaseModel):
    """The state of a file when it was found."""

    model_config = ConfigDict(frozen=True)

    size: int
    """Size in bytes."""
    modified: int
    """Modification time in nanoseconds since 1970."""

    @classmethod
    def of(cls, path: str) -> Self | None:
        """The current state of a local file; None if it cannot be read."""
        try:
            status = os.stat(path)
        except OSError:
            return None
        return cls(size=status.st_size, modified=status.st_mtime_ns)


@dataclass(frozen=True)
class InputImage:
    """One image, or a video, which `pipeline.prediction.video` splits into frames."""

    path: str
    """Absolute path or URI; for a frame, that of the video, followed by `#` and the frame's number."""
    name: str
    """Name of its outputs without suffix: its path relative to the given folder, or to a pattern's fixed part."""
    state: FileState | None
    """The state of the file; None if it could not be read."""
    problem: str = ""
    """Why it cannot be read, if that is known in advance; empty otherwise."""

    @property
    def is_video(self) -> bool:
        """Whether it is a video, by its suffix."""
        return not self.problem and self.path.lower().endswith(VIDEO_ENDINGS)

    def read(self, max_bytes: int) -> bytes:
        """Reads the encoded image.

        Raises:
            DataError: It cannot be read, or its file is larger than allowed.
        """
        if self.problem:
            raise DataError(self.problem)
        if self.state and self.state.size > max_bytes:
            raise DataError(f"image too large: the file has {self.state.size} bytes, more than the allowed {max_bytes}")
        return read_bytes(self.path, file_system(self.path), "image")
