"""The connection to ML Metadata: SQLite by default, a MySQL server if configured, and its password nowhere."""

import json
import socket
from pathlib import Path

import pytest

from data.errors import ConfigError, MetadataError, WorkspaceError
from pipeline.config import load_config
from pipeline.doctor.workspace import check_metadata_server
from pipeline.metadata.store import PASSWORD as PASSWORD_VARIABLE
from pipeline.metadata.store import metadata_config, open_store, recorded_config
from pipeline.sections.workspace import MetadataConfig
from pipeline.workspace import Workspace
from tests.pipeline.conftest import command_line, overrides, run_arguments
from tests.pipeline.mysql_server import PASSWORD, USER, Server


def connect(config: MetadataConfig, folder: Path) -> None:
    open_store(metadata_config(Workspace(folder), config))


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Sets the right password, and undoes what `metadata_config` does to the environment."""
    monkeypatch.setenv("MYSQL_PWD", "")
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    return monkeypatch


def test_the_default_is_a_file_in_the_workspace(tmp_path: Path) -> None:
    connect(MetadataConfig(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["metadata.sqlite"]


def test_the_password_is_no_part_of_the_connection(password: pytest.MonkeyPatch, tmp_path: Path) -> None:
    connection = metadata_config(Workspace(tmp_path), MetadataConfig(backend="mysql", host="localhost"))
    assert PASSWORD not in str(connection)
    assert connection.mysql.host == "127.0.0.1", "'localhost' would be a Unix socket"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("metadata.password=abc", "unknown key metadata.password; allowed: backend, host, port, database, user"),
        ("metadata.backend=postgres", "Input should be 'sqlite' or 'mysql'"),
        ("metadata.database=a;b", "metadata.database='a;b'"),
        ("metadata.port=70000", "less than or equal to 65535"),
    ],
)
def test_a_mistake_in_the_section_is_named(setting: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config([], ["data.path=x", setting])
    assert message in str(error.value)
    assert "abc" not in str(error.value)


def test_a_server_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(MetadataError, match=f"mlmd at 127.0.0.1:{port}: no server answers: Connection refused"):
        connect(MetadataConfig(backend="mysql", port=port), tmp_path)


def test_a_database_that_is_none_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "metadata.sqlite").write_bytes(b"this is no database, and never was one" * 100)
    with pytest.raises(
        MetadataError, match=r"metadata\.sqlite cannot be opened: .*`python local_runner.py doctor --workspace "
    ):
        connect(MetadataConfig(), tmp_path)


def test_the_connection_of_the_newest_run_is_remembered(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert recorded_config(workspace) == MetadataConfig()
    config = MetadataConfig(backend="mysql", host="db", port=3307)
    folder = workspace.start_run("run-1")
    (folder / "config.json").write_text(json.dumps({"metadata": config.model_dump()}))
    assert recorded_config(workspace) == config


@pytest.mark.parametrize("content", ['{"metadata": {"backend"', '{"metadata": {"backend": "oracle"}}'])
def test_a_damaged_configuration_of_the_newest_run_is_named(tmp_path: Path, content: str) -> None:
    folder = Workspace(tmp_path).start_run("run-1")
    (folder / "config.json").write_text(content)
    with pytest.raises(WorkspaceError, match=r"runs/latest/config.json: damaged configuration of a run: "):
        recorded_config(Workspace(tmp_path))


def test_a_wrong_password_is_refused_without_being_shown(
    mysql: Server, password: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = mysql.database("refusal")
    password.setenv(PASSWORD_VARIABLE, "wrong-password")
    with pytest.raises(MetadataError, match=f"refuses user {USER}: .*{PASSWORD_VARIABLE}, which is set") as error:
        connect(config, tmp_path)
    assert "wrong-password" not in str(error.value)
    password.setenv(PASSWORD_VARIABLE, PASSWORD)
    with pytest.raises(MetadataError, match="Access denied for user .* to database 'elsewhere'"):
        connect(config.model_copy(update={"database": "elsewhere"}), tmp_path)


def test_the_doctor_says_whether_the_server_lets_one_in(
    mysql: Server, password: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = mysql.database("examined")
    check = check_metadata_server(tmp_path, config)
    assert (check.status, check.detail) == ("ok", f"MySQL database examined at 127.0.0.1:{mysql.port}: 0 runs recorded")
    check = check_metadata_server(tmp_path, config.model_copy(update={"user": "nobody"}))
    assert check.status == "fail"
    assert "refuses user nobody" in check.detail


def test_a_run_keeps_its_metadata_on_the_server_and_the_password_nowhere(
    mysql: Server, password: pytest.MonkeyPatch, tiny_dataset: Path, tmp_path: Path
) -> None:
    config = mysql.database("runs")
    settings = [f"metadata.{name}={value}" for name, value in config.model_dump().items()]
    arguments = run_arguments(tmp_path, [*overrides(tiny_dataset), *settings])
    result = command_line(*arguments, "--to", "ImageExampleGen")
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "metadata.sqlite").exists()
    states = mysql.run("SELECT t.name, e.last_known_state FROM runs.Execution e JOIN runs.Type t ON t.id = e.type_id")
    assert "components.ingest.example_gen.ImageExampleGen\t3" in states
    summary = json.loads((tmp_path / "runs/latest/summary.json").read_text())
    assert summary["data"]["images"] == {"train": 8, "val": 3, "test": 4}
    assert PASSWORD not in mysql.client("mariadb-dump", "runs")
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path
    log = (tmp_path / "runs/latest/log.txt").read_text()
    assert 'database: "runs"' in log, "TFX logs the connection, which is why the password is no part of it"
