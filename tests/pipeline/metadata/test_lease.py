"""The lease on a MySQL server; several processes are several connections."""

import signal
import threading
from contextlib import closing
from pathlib import Path

import pytest

from data.errors import MetadataError, WorkspaceBusy
from pipeline.config import load_config
from pipeline.metadata import lease as module
from pipeline.metadata.lease import holder, run_lease
from pipeline.metadata.store import PASSWORD
from pipeline.sections.workspace import MetadataConfig
from pipeline.workspace import Workspace
from tests.pipeline.mysql_server import PASSWORD as SECRET
from tests.pipeline.mysql_server import Server
from tests.pipeline.schedule.conftest import wait_for

pytestmark = pytest.mark.long


@pytest.fixture
def metadata(mysql: Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> MetadataConfig:
    """A database of one's own."""
    monkeypatch.setenv(PASSWORD, SECRET)
    return mysql.database(f"lease_{abs(hash(request.node.name))}")


def test_without_a_server_there_is_no_lease():
    with run_lease(MetadataConfig(), "p"), run_lease(MetadataConfig(), "p"):
        pass


def test_a_server_that_is_not_there_is_named():
    away = MetadataConfig(backend="mysql", port=1)
    with pytest.raises(MetadataError, match="MySQL database mlmd at 127.0.0.1:1: the lease"), run_lease(away, "p"):
        pass


def test_one_host_at_a_time_runs_a_pipeline(metadata: MetadataConfig, tmp_path: Path):
    config = load_config([], ["data.path=synthetic"]).model_copy(update={"metadata": metadata})
    other_host = Workspace(tmp_path / "other")
    with run_lease(metadata, config.name):
        assert holder(other_host, config).startswith("a run on 127.0.0.1") or "localhost" in holder(other_host, config)
        with pytest.raises(WorkspaceBusy, match="runs this pipeline; wait for it"), run_lease(metadata, config.name):
            pass
        with run_lease(metadata, "another-pipeline"):
            pass

    assert holder(other_host, config) == ""
    with run_lease(metadata, config.name):
        pass


def kill_connections(mysql: Server) -> None:
    """As if the network had gone."""
    numbers = mysql.run("SELECT id FROM information_schema.processlist WHERE user = 'deeplab'").split()
    for number in numbers:
        mysql.run(f"KILL {number}")


def lock_holder(mysql: Server, metadata: MetadataConfig) -> str:
    """The number of the connection that holds the lease."""
    return mysql.run(f"SELECT IS_USED_LOCK('{module._lock_name(metadata, 'p')}')").strip()


def test_a_lost_connection_is_made_again(mysql: Server, metadata: MetadataConfig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "HEARTBEAT", 0.1)
    with run_lease(metadata, "p"):
        before = lock_holder(mysql, metadata)
        kill_connections(mysql)
        wait_for(lambda: lock_holder(mysql, metadata) not in (before, "NULL"), "the lease is held again", 30)


def steal(mysql: Server, metadata: MetadataConfig) -> None:
    """Takes the lease before its holder shows the next sign of life, and keeps it until that has noticed."""
    kill_connections(mysql)
    with closing(module._connect(metadata)) as thief, thief.cursor() as cursor:
        cursor.execute("SELECT GET_LOCK(%s, 5)", (module._lock_name(metadata, "p"),))
        threading.Event().wait(60)


def test_a_run_whose_lease_went_to_another_host_ends(
    mysql: Server, metadata: MetadataConfig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "HEARTBEAT", 3.0)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(MetadataError, match="the lease went to a run on"), run_lease(metadata, "p"):
            steal(mysql, metadata)
    finally:
        signal.signal(signal.SIGTERM, before)
