"""The local folders to which Kubeflow Pipelines' launcher mirrors the objects at artifact URIs.

It downloads inputs to these folders before a step starts and uploads outputs from them after it has ended; a step
that used the URI itself would need access to the object store, and most of TFX does not support `s3://` or
`minio://`.

Source: `LocalPathForURI` in kubeflow/pipelines 2.17, backend/src/v2/component/launcher_v2.go.
"""

from dataclasses import dataclass

from data.errors import ConfigError

#: Scheme of a URI -> folder in which the launcher mirrors the buckets of that scheme.
FOLDERS = {"gs": "gcs", "s3": "s3", "minio": "minio"}

#: An output that the launcher adds and writes itself; TFX does not know its type.
EXECUTOR_LOGS = "executor-logs"

#: Environment variable with the folder that holds `gcs`, `s3` and `minio`, for a simulation without a cluster.
ROOT_VARIABLE = "DEEPLAB_MOUNT_ROOT"


@dataclass(frozen=True)
class Mounts:
    """Maps artifact URIs to local paths and back.

    `uri(path(x)) == x` for every URI of a known scheme.
    """

    root: str = "/"
    """Folder that holds the folders of `FOLDERS`; "/" in a container."""

    def path(self, uri: str) -> str:
        """The local path of a URI's content.

        Raises:
            ConfigError: The scheme is unknown, no bucket is named, or `..` leads out of the bucket.
        """
        scheme, separator, key = uri.partition("://")
        if not separator or scheme not in FOLDERS:
            allowed = ", ".join(f"{known}://" for known in FOLDERS)
            raise ConfigError(
                f"{uri!r}: the launcher does not mirror such a URI; a pipeline root begins with one of {allowed}"
            )
        if key.startswith("/") or not key or ".." in key.split("/"):
            raise ConfigError(f"{uri!r}: expected {scheme}://BUCKET/KEY without '..'")
        return self._folder(scheme) + key

    def uri(self, path: str) -> str:
        """The URI of the content at a local path; any other text is returned unchanged."""
        for scheme in FOLDERS:
            folder = self._folder(scheme)
            if path.startswith(folder):
                return f"{scheme}://{path.removeprefix(folder)}"
        return path

    def _folder(self, scheme: str) -> str:
        return f"{self.root.rstrip('/')}/{FOLDERS[scheme]}/"
