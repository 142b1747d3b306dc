"""A MariaDB server of one's own, on loopback, with its data in a folder that is thrown away."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.sections.workspace import MetadataConfig

USER, PASSWORD = "deeplab", "open-sesame-4711"


@dataclass(frozen=True)
class Server:
    """A running server."""

    socket: Path
    port: int

    def run(self, statement: str) -> str:
        """Executes SQL as the administrator; gives what it prints."""
        return self.client("mariadb", "--skip-column-names", "--execute", statement)

    def client(self, program: str, *arguments: str) -> str:
        """Runs one of MariaDB's programs against the server as the administrator."""
        command = [program, "--no-defaults", f"--socket={self.socket}", "--user=root", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    def database(self, name: str) -> MetadataConfig:
        """A new database that the account may use; how to connect to it."""
        self.run(f"CREATE DATABASE {name}; GRANT ALL ON {name}.* TO '{USER}'@'%'")
        return MetadataConfig(backend="mysql", port=self.port, database=name, user=USER)


@contextmanager
def mysql_server(folder: Path) -> Iterator[Server]:
    """Starts a server; skips the test where it was not asked for."""
    if os.environ.get("DEEPLAB_TEST_MYSQL") != "1":
        pytest.skip("DEEPLAB_TEST_MYSQL is not 1: no MariaDB server is started")
    data = folder / "data"
    account = ["--user=root"] if os.geteuid() == 0 else []
    install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal"]
    subprocess.run([*install, "--skip-test-db", *account], capture_output=True, timeout=120, check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Server(folder / "server.sock", port)
    program = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin") or "mariadbd"
    start = [program, "--no-defaults", f"--datadir={data}", "--bind-address=127.0.0.1", f"--port={port}"]
    # Nothing needs to outlive the test: waiting for the disk would take seconds for each new database.
    start += [
        f"--socket={server.socket}",
        "--innodb-flush-method=nosync",
        "--innodb-flush-log-at-trx-commit=0",
        *account,
    ]
    with (folder / "log.txt").open("wb") as log, subprocess.Popen(start, stdout=log, stderr=log) as process:
        try:
            _wait_for(server, process, folder / "log.txt")
            server.run(f"CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}'")
            yield server
        finally:
            process.terminate()


def _wait_for(server: Server, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(240):
        if process.poll() is not None:
            break
        try:
            server.run("SELECT 1")
        except subprocess.CalledProcessError:
            time.sleep(0.25)
        else:
            return
    raise AssertionError(f"the server does not answer:\n{log.read_text(errors='replace')}")
