"""Files wherever they lie: local paths are read directly, gs:// and s3:// through Beam's file systems."""

from data.files import FileSystem, LocalFiles


def is_local(path: str) -> bool:
    """Whether a path is on this machine's file system, and no URI."""
    return "://" not in path


def file_system(path: str) -> FileSystem:
    """Access to what lies at or below a path. Only a URI imports Beam, which takes seconds."""
    if is_local(path):
        return LocalFiles()
    from components.storage.beam_files import BeamFiles

    return BeamFiles()
