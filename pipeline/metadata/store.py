"""The connection to ML Metadata: the one that every reader and writer on this machine uses.

It does not import TFX, so it imports quickly.
"""

import json
import os
import socket
from pathlib import Path

from ml_metadata import errors
from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from data.errors import MetadataError, WorkspaceError
from pipeline.metadata.backup import DamagedMetadata, backups, remedy, require_whole
from pipeline.sections.workspace import MetadataConfig
from pipeline.workspace import CONFIG_FILE, Workspace

#: Environment variable that holds the password of the MySQL account.
PASSWORD = "DEEPLAB_METADATA_PASSWORD"  # noqa: S105  # the name of a variable

#: Environment variable in which the MySQL client library looks for a password that it is not given.
_CLIENT_PASSWORD = "MYSQL_PWD"  # noqa: S105

#: How long a server may take to accept a connection, in seconds.
_PATIENCE = 10


def metadata_config(workspace: Workspace, config: MetadataConfig) -> metadata_store_pb2.ConnectionConfig:
    """The connection config of a workspace's ML Metadata.

    The password of a MySQL account is never part of it, because TFX writes connections to its log. The client library
    takes the password from the environment of the process.
    """
    if config.backend == "sqlite":
        return metadata_store_pb2.ConnectionConfig(
            sqlite=metadata_store_pb2.SqliteMetadataSourceConfig(
                filename_uri=str(workspace.metadata),
                connection_mode=metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE,
            )
        )
    if PASSWORD in os.environ:
        os.environ[_CLIENT_PASSWORD] = os.environ[PASSWORD]
    return metadata_store_pb2.ConnectionConfig(
        mysql=metadata_store_pb2.MySQLDatabaseConfig(
            # The client library interprets 'localhost' as a Unix socket.
            host="127.0.0.1" if config.host == "localhost" else config.host,
            port=config.port,
            database=config.database,
            user=config.user,
        )
    )


def recorded_config(workspace: Workspace) -> MetadataConfig:
    """Section `metadata` of the newest run in a workspace; the default if nothing has run yet.

    Raises:
        WorkspaceError: The run's configuration is damaged.
    """
    path = workspace.runs / "latest" / CONFIG_FILE
    if not path.exists():
        return MetadataConfig()
    try:
        return MetadataConfig.model_validate(json.loads(path.read_bytes()).get("metadata", {}))
    except ValueError as error:
        raise WorkspaceError(
            f"{path}: damaged configuration of a run: {str(error).splitlines()[0]}. Restore the file, or say with "
            "--config or --set where ML Metadata are"
        ) from None


def existing_store(workspace: Workspace, config: MetadataConfig) -> MetadataStore:
    """Opens a store to read what runs have left in it.

    Raises:
        WorkspaceError: Nothing has run in this workspace yet.
        MetadataError: The store cannot be opened, or is damaged or gone.
    """
    if config.backend == "sqlite" and not require_whole(workspace):
        if backups(workspace):
            raise DamagedMetadata(f"ML Metadata: {workspace.metadata} is gone; {remedy(workspace)}")
        raise WorkspaceError(f"{workspace.root}: nothing has run in this workspace yet")
    return open_store(metadata_config(workspace, config))


def open_store(connection: metadata_store_pb2.ConnectionConfig) -> MetadataStore:
    """Opens the store; creates its tables if it is new.

    Raises:
        MetadataError: The store cannot be opened; the error states which one, why, and what to check.
    """
    is_server = connection.HasField("mysql")
    if is_server:
        _check_reachable(connection.mysql)
    try:
        return MetadataStore(connection)
    except (RuntimeError, errors.StatusError) as error:
        if is_server:
            raise MetadataError(_refused(connection.mysql, str(error))) from None
        path = connection.sqlite.filename_uri
        doctor = f"python local_runner.py doctor {Workspace(Path(path).parent).option}"
        raise MetadataError(f"ML Metadata: {path} cannot be opened: {error}; `{doctor}` examines it") from None


def server_name(server: metadata_store_pb2.MySQLDatabaseConfig) -> str:
    """The name of a MySQL database for messages."""
    return f"MySQL database {server.database} at {server.host}:{server.port}"


def _check_reachable(server: metadata_store_pb2.MySQLDatabaseConfig) -> None:
    """Distinguishes an unreachable server from one that refuses the login, which the client library does not do."""
    try:
        socket.create_connection((server.host, server.port), timeout=_PATIENCE).close()
    except OSError as error:
        raise MetadataError(
            f"ML Metadata: {server_name(server)}: no server answers: {error.strerror or error}; check metadata.host "
            "and metadata.port, and that the server runs"
        ) from None


def _refused(server: metadata_store_pb2.MySQLDatabaseConfig, error: str) -> str:
    text = f"ML Metadata: {server_name(server)} refuses user {server.user}"
    if "denied" in error or "mysql_query" in error:
        return f"{text}: {error.rpartition('error: ')[2]}"
    password = "is set" if os.environ.get(PASSWORD) else "is not set"
    return (
        f"{text}: check metadata.user and the password in {PASSWORD}, which {password}; the account must use the "
        "plugin mysql_native_password, the only one that ML Metadata's client knows"
    )
