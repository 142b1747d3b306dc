"""A folder in place of the object store: `minio://bucket/key` is the file `<folder>/bucket/key`.

Rules: v2/objectstore/object_store.go (`UploadBlob`, `DownloadBlob`): of a folder, each file becomes an object, so
empty folders vanish; a download brings all objects under a key, and is content with none.

Not simulated: credentials and sessions; several stores (all schemes share the folder).
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.kubeflow.mounts import Mounts

DEFAULT_ROOT = "minio://mlpipeline/v2/artifacts"
"""Pipeline root of a server, unless the run or its configuration say otherwise: v2/config/env.go."""


@dataclass(frozen=True)
class ObjectStore:
    """Holds objects as files."""

    folder: Path

    def path(self, uri: str) -> Path:
        """The file, or folder of files, of a URI; refuses what the launcher cannot mirror, as `Mounts.path` does."""
        Mounts().path(uri)
        return self.folder / uri.partition("://")[2]

    def upload(self, local: str, uri: str) -> None:
        """Copies a file, or each file of a folder."""
        _copy(Path(local), self.path(uri))

    def download(self, uri: str, local: str) -> None:
        """Copies what lies at a URI, if anything does."""
        _copy(self.path(uri), Path(local))


def _copy(source: Path, target: Path) -> None:
    for file in [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]:
        to = target / file.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, to)
