"""File access through Beam's file systems: local folders, gs:// and s3:// alike."""

import os
from collections.abc import Iterator
from typing import BinaryIO, cast

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.value_provider import RuntimeValueProvider

from data.files import LocalFiles

if RuntimeValueProvider.runtime_options is None:
    # Outside a pipeline Beam's s3 file system has no options and refuses to work; those of a pipeline come first.
    RuntimeValueProvider.set_runtime_options({})


def is_local(path: str) -> bool:
    """Whether a path is on this machine's file system."""
    return FileSystems.get_scheme(path) is None


class BeamFiles:
    """The `data.layouts.base.FileSystem` of the pipeline."""

    def open(self, path: str) -> BinaryIO:
        """Opens a file for reading, as it is stored; raises FileNotFoundError."""
        if is_local(path):
            return LocalFiles().open(path)
        if not FileSystems.exists(path):
            raise FileNotFoundError(path)
        return cast(BinaryIO, FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED))

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there; an object store has a folder if it has an object below it."""
        if is_local(path):
            return LocalFiles().exists(path)
        below = FileSystems.match([path.rstrip("/") + "/**"], limits=[1])[0].metadata_list
        return bool(below) or FileSystems.exists(path)

    def list(self, folder: str) -> Iterator[str]:
        """Names of what is directly in a folder, streamed; empty if it is absent."""
        if is_local(folder):
            yield from LocalFiles().list(folder)
            return
        prefix = folder.rstrip("/") + "/"
        seen: set[str] = set()
        for path, _, _ in self._below(prefix):
            name = path[len(prefix) :].split("/", 1)[0]
            if name and name not in seen:
                seen.add(name)
                yield name

    def join(self, base: str, *parts: str) -> str:
        """A path below `base`."""
        return os.path.join(base, *parts) if is_local(base) else FileSystems.join(base, *parts)

    def stats(self, folder: str) -> Iterator[tuple[str, int, float]]:
        """Relative path, size in bytes and time of change in seconds of every file below a folder, streamed."""
        if not is_local(folder):
            prefix = folder.rstrip("/") + "/"
            yield from ((path[len(prefix) :], size, changed) for path, size, changed in self._below(prefix))
            return
        for parent, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(parent, name)
                status = os.stat(path) if os.path.exists(path) else os.lstat(path)  # A link may lead nowhere.
                yield os.path.relpath(path, folder), status.st_size, status.st_mtime

    def _below(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        for match in FileSystems.match([prefix + "**"]):
            for entry in match.metadata_list:
                yield entry.path, entry.size_in_bytes, entry.last_updated_in_seconds
