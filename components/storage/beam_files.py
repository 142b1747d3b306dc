"""File access through Beam's file systems, for gs:// and s3://; see `components.storage.file_systems.file_system`."""

from collections.abc import Iterator
from typing import BinaryIO, cast

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.value_provider import RuntimeValueProvider

if RuntimeValueProvider.runtime_options is None:
    # Outside a pipeline Beam's s3 file system has no options and refuses to work; those of a pipeline come first.
    RuntimeValueProvider.set_runtime_options({})


class BeamFiles:
    """The `data.files.FileSystem` of object stores, which can also write."""

    def open(self, path: str) -> BinaryIO:
        """Opens a file for reading, as it is stored; raises FileNotFoundError."""
        if not FileSystems.exists(path):
            raise FileNotFoundError(path)
        return cast(BinaryIO, FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED))

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there; in an object store a folder is there if an object lies below it."""
        below = FileSystems.match([path.rstrip("/") + "/**"], limits=[1])[0].metadata_list
        return bool(below) or FileSystems.exists(path)

    def list(self, folder: str) -> Iterator[str]:
        """Names of the files and folders directly in a folder, streamed; empty if it is absent."""
        seen: set[str] = set()
        for path, _, _ in self.stats(folder):
            name = path.split("/", 1)[0]
            if name and name not in seen:
                seen.add(name)
                yield name

    def join(self, base: str, *parts: str) -> str:
        """A path below `base`."""
        return cast(str, FileSystems.join(base, *parts))

    def stats(self, folder: str) -> Iterator[tuple[str, int, float]]:
        """Relative path, size in bytes and time of change in seconds of every file below a folder, streamed."""
        prefix = folder.rstrip("/") + "/"
        for match in FileSystems.match([prefix + "**"]):
            for entry in match.metadata_list:
                yield entry.path[len(prefix) :], entry.size_in_bytes, entry.last_updated_in_seconds

    def create(self, path: str) -> BinaryIO:
        """Opens a new object for writing; it appears when the file is closed."""
        return cast(BinaryIO, FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED))

    def delete(self, path: str) -> None:
        """Removes an object, or all below a folder where the path ends with a slash."""
        FileSystems.delete([path])
