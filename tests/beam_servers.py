"""Job servers and workers of Apache Beam, each a process of its own, for the tests of several folders.

The Flink cluster is a job manager, a task manager and Beam's job server; its jars are fetched where DEEPLAB_TEST_FLINK
is set.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: Seconds for a server to answer; much, for the machine may be busy.
STARTUP = 300.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(log: Path, *command: str, port: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command, from the time its port answers; its output goes to a file."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)
    try:
        if port:
            wait_for(lambda: answers(port), process, log)
        yield process
    finally:
        process.terminate()
        process.wait(60)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + STARTUP
    while not ready():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)


@pytest.fixture(scope="session")
def worker_pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `local_runner.py beam-workers`, started as a person starts it."""
    port, log = free_port(), tmp_path_factory.mktemp("pool") / "log"
    with server(log, sys.executable, "local_runner.py", "beam-workers", "--port", str(port), port=port):
        yield f"localhost:{port}"


@pytest.fixture(scope="session")
def job_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of Beam's own job server, which is for tests."""
    port, log = free_port(), tmp_path_factory.mktemp("jobs") / "log"
    main = "apache_beam.runners.portability.local_job_service_main"
    with server(log, sys.executable, "-m", main, "--port", str(port), port=port):
        yield f"localhost:{port}"


@pytest.fixture(scope="session")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of Beam's job server for a Flink cluster of two slots."""
    if not os.environ.get("DEEPLAB_TEST_FLINK"):
        pytest.skip("DEEPLAB_TEST_FLINK is not set: it fetches 150 MB of jars")
    if missing := [tool for tool in ("java", "mvn") if not shutil.which(tool)]:
        pytest.skip(f"Flink needs {' and '.join(missing)}")
    jars = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "deeplab-tfx", "flink")
    subprocess.run(["deploy/flink/fetch.sh", str(jars)], cwd=ROOT, check=True)
    folder = tmp_path_factory.mktemp("flink")
    rpc, rest, jobs = free_port(), free_port(), free_port()
    ports = ["-D", f"jobmanager.rpc.port={rpc}", "-D", f"rest.port={rest}"]

    def slots() -> int:
        try:
            with urllib.request.urlopen(f"http://localhost:{rest}/overview", timeout=60) as answer:
                return int(json.load(answer)["slots-total"])
        except OSError:  # its port answers before it does
            return 0

    def start(role: str, *arguments: str, port: int | None = None) -> subprocess.Popen[bytes]:
        command = ["deploy/flink/run.sh", role, str(jars), *arguments]
        return stack.enter_context(server(folder / role, *command, port=port))

    with ExitStack() as stack:
        start("jobmanager", *ports, port=rest)
        tasks = start("taskmanager", *ports)
        wait_for(lambda: slots() == 2, tasks, folder / "taskmanager")
        addresses = ["--flink-master", f"localhost:{rest}", "--job-port", str(jobs), "--artifact-port", "0"]
        start("jobserver", *addresses, "--expansion-port", "-1", "--artifacts-dir", str(folder), port=jobs)
        yield f"localhost:{jobs}"
