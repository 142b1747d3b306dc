"""A pipeline that is a script of a few lines, and a schedule of it, in this process or as one of its own."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.config import Config, load_config
from pipeline.schedule.state import ScheduleState, schedule_state
from pipeline.workspace import Workspace

ROOT = Path(__file__).resolve().parents[3]

#: Behaves like `run`: holds the workspace's lock, writes a summary, ends with a status. What it is to do stands in
#: `script.json`, a list of [exit status, seconds, changes of the summary], one for each start, the last one for ever.
PIPELINE = """
import fcntl, json, os, signal, sys, time
root = sys.argv[1]
with open(root + "/.lock", "a") as lock, open(root + "/.lock-owner", "a") as owner:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("error: the workspace is taken", file=sys.stderr)
        sys.exit(75)
    fcntl.flock(owner, fcntl.LOCK_EX)
    with open(root + "/calls", "a") as calls:
        calls.write(f"{time.time()} {'DEEPLAB_WEBHOOK_SECRET' in os.environ}\\n")
    number = len(open(root + "/calls").readlines())
    script = json.load(open(root + "/script.json"))
    status, seconds, changes = script[min(number, len(script)) - 1]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        time.sleep(seconds)
    except KeyboardInterrupt:
        open(root + "/interrupted", "w").close()
        sys.exit(130)
    if status < 0:
        os.kill(os.getpid(), -status)
    if changes is not None:
        summary = {"run_id": f"r{number}", "status": "failed" if status else "succeeded", "config": {}, **changes}
        os.makedirs(f"{root}/runs/r{number}")
        with open(f"{root}/runs/r{number}/summary.json", "w") as file:
            json.dump(summary, file)
        if os.path.lexists(root + "/runs/latest"):
            os.unlink(root + "/runs/latest")
        os.symlink(f"r{number}", root + "/runs/latest")
    if status:
        print(f"Traceback\\nerror: attempt {number} failed\\nits record is elsewhere", file=sys.stderr)
    sys.exit(status)
"""

STARTER = """
import json, sys
from pathlib import Path
from data.errors import ProjectError
from pipeline.cli.schedule import run_schedule
from pipeline.schedule.scheduler import ScheduleOptions
arguments = json.loads(sys.argv[1])
options = ScheduleOptions(**arguments["options"])
try:
    sys.exit(run_schedule(options, [], arguments["settings"], Path(arguments["workspace"])))
except ProjectError as error:
    print(error, file=sys.stderr)
    sys.exit(75 if error.transient else 1)
"""

YEARLY = "0 3 1 1 *"

METRICS = {"pixel_accuracy": 0.9, "frequency_weighted_iou": 0.8, "iou": {}, "slices": {}, "confusion_matrix": []}
PUSHED = {
    "blessed": True,
    "pushed_version": 7,
    "metrics": {"mean_iou": 0.625, **METRICS},
    "data": {"images": {"train": 8, "val": 3, "test": 4}, "quarantined": 2, "reasons": {"size": 2}, "spans": [0]},
    "reasons": ["good enough"],
}
REFUSED = {**PUSHED, "blessed": False, "pushed_version": None, "reasons": ["worse"]}


def failure(kind: str) -> dict[str, object]:
    """The part of a summary that says why a run failed."""
    return {"failure": {"stage": "Trainer", "kind": kind, "message": f"bad {kind}"}}


@dataclass
class ScheduledWorkspace:
    """A workspace whose pipeline is the script."""

    root: Path
    config: Config
    settings: list[str]
    started: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.root)

    @property
    def state(self) -> ScheduleState:
        return schedule_state(self.workspace)

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-S", "-c", PIPELINE, str(self.root)]

    @property
    def calls(self) -> list[str]:
        file = self.root / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def script(self, *steps: tuple[int, float, object]) -> None:
        """What the pipeline does at each start."""
        (self.root / "script.json").write_text(json.dumps(steps))

    def start(self, **options: object) -> "subprocess.Popen[bytes]":
        """A schedule in a process of its own; its log goes to `log.txt`."""
        arguments = {
            "options": {"command": self.command, **options},
            "settings": self.settings,
            "workspace": str(self.root),
        }
        with (self.root / "log.txt").open("ab") as log:
            command = [sys.executable, "-c", STARTER, json.dumps(arguments)]
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        self.started.append(process)
        return process

    @property
    def log(self) -> str:
        return (self.root / "log.txt").read_text()


def wait_for(condition: Callable[[], object], what: str, seconds: float = 300) -> None:
    """Returns once a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.02)


@pytest.fixture
def scheduled(tmp_path: Path) -> Iterator[ScheduledWorkspace]:
    """A workspace with data, quick in all it does."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "image.png").write_bytes(b"image")
    root = tmp_path / "workspace"
    root.mkdir()
    settings = [f"data.path={tmp_path / 'data'}", "push.model_name=tiny"]
    quick = {
        "backoff_seconds": 0.01,
        "debounce_seconds": 0.4,
        "poll_seconds": 0.1,
        "busy_wait_seconds": 60,
        "stop_seconds": 10,
        "webhook_timeout_seconds": 5,
    }
    settings += [f"schedule.{key}={value}" for key, value in quick.items()]
    scheduled = ScheduledWorkspace(root, load_config([], settings), settings)
    scheduled.script((0, 0, PUSHED))
    yield scheduled
    for process in scheduled.started:
        process.kill()
        process.wait()


@dataclass
class Receiver:
    """A web server that takes events; it first answers with `statuses`, then with 200."""

    url: str
    statuses: list[int]
    requests: list[tuple[dict[str, str], bytes]]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """On loopback."""
    statuses: list[int] = []
    requests: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append((dict(self.headers), body))
            self.send_response(statuses.pop(0) if statuses else 200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Receiver(f"http://127.0.0.1:{server.server_port}/hook/token-4711", statuses, requests)
        server.shutdown()
        thread.join()


@pytest.fixture
def dripping() -> Iterator[str]:
    """The URL of a web server on loopback that answers a line of headers every tenth of a second, without end."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            with suppress(OSError):
                while not ended.wait(0.1):
                    self.send_header("X-Still", "here")
                    self.flush_headers()

        def log_message(self, *arguments: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook"
        ended.set()
        server.shutdown()
        thread.join()
