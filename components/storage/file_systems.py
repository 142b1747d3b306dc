"""Files wherever they lie: local paths are read directly, gs:// and s3:// through Beam's file systems."""

from data.files import FileSystem, LocalFiles


def is_local(path: str) -> bool:
    """Whether a path is on this machine's file system, rather than a URI."""
    return "://" not in path


def file_system(path: str) -> FileSystem:
    """Access to what lies at or below a path. Only a URI imports Beam, which takes seconds."""
    if is_local(path):
        return LocalFiles()
    from components.storage.beam_files import BeamFiles

    return BeamFiles()


def read_file(path: str) -> bytes:
    """The whole content of a file.

    Raises:
        OSError: It is not there, or it cannot be read.
    """
    with file_system(path).open(path) as file:
        return file.read()
