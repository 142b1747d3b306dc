"""An image: where it lies, what its outputs are called, and how it is read."""

import os
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict

from components.storage.file_systems import file_system
from data.errors import DataError
from data.files import read_bytes

#: Videos are looked for by name and pattern alone: a folder of images may hold some that nobody means.
VIDEO_ENDINGS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts")


class FileState(BaseModel):
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
class InputImage:
    """One image, or a video, which `pipeline.prediction.video` takes apart."""

    path: str
    """Absolute path or URI; of a frame, that of the video, `#` and the frame's number."""
    name: str
    """Of its outputs, without suffix: its path below the folder that was named, or below a pattern's fixed part."""
    state: FileState | None
    """None if the file could not be looked at."""
    problem: str = ""
    """Why it cannot be read, where that is known before anybody tries."""

    @property
    def is_video(self) -> bool:
        """Whether it is a video, by its ending."""
        return not self.problem and self.path.lower().endswith(VIDEO_ENDINGS)

    def read(self, max_bytes: int) -> bytes:
        """The encoded image.

        Raises:
            DataError: It cannot be read, or its file is larger than allowed.
        """
        if self.problem:
            raise DataError(self.problem)
        if self.state and self.state.size > max_bytes:
            raise DataError(f"image too large: the file has {self.state.size} bytes, more than the allowed {max_bytes}")
        return read_bytes(self.path, file_system(self.path), "image")
