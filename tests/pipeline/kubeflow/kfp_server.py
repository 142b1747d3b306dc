"""A Kubeflow Pipelines server for tests: the v2beta1 REST calls of this project, with state, rules, errors and faults.

Bodies are read into and written from the models of `kfp_server_api`. Rules and error texts follow kubeflow/pipelines
2.17.0, `backend/src/apiserver` (server/run_server.go, server/job_server.go, server/api_converter.go,
template/v2_template.go, server/list_request_util.go, common/util/error.go).
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit

import kfp_server_api as api

from tests.pipeline.kubeflow import robfig

Answer = dict[str, Any]
CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13, 503: 14}
SERIALIZER = api.ApiClient()


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status

    @property
    def body(self) -> Answer:
        """As grpc-gateway writes the server's errors: the chain of causes, and among the details what users read."""
        code = CODES[self.status]
        detail = {"@type": "type.googleapis.com/google.rpc.Status", "code": code, "message": str(self)}
        return {"code": code, "message": f"InvalidInputError: outer: {self}", "details": [detail]}


@dataclass
class Fault:
    """What goes wrong, and with which requests."""

    matches: Callable[[int, str, str], bool]
    """Of the number of the request (from 1), method and path."""
    kind: str
    """error: refused before anything happens; lost: carried out, then answered with an error; cut: carried out, then
    the connection is closed without an answer; hang: no answer for as long as the server lives; html: a page instead;
    redirect: to a login page; plain: a proxy's error in plain text."""
    times: int = 1_000_000


@dataclass
class State:
    """What the server holds, and what was asked of it."""

    experiments: list[api.V2beta1Experiment] = field(default_factory=list)
    runs: list[api.V2beta1Run] = field(default_factory=list)
    recurring: list[api.V2beta1RecurringRun] = field(default_factory=list)
    progress: list[str] = field(default_factory=lambda: ["PENDING", "RUNNING", "SUCCEEDED"])
    """States of a run, one for each look; the last stays."""
    run_error: str = ""
    token: str = ""
    """Asked of every request, if not empty."""
    multi_user: bool = False
    page_size: int = 100
    """The most that a page holds."""
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[Answer] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    most_enabled: int = 0
    """The largest number of recurring runs that were enabled at one time."""
    ids: int = 0

    def enabled(self) -> list[str]:
        """Expressions of the recurring runs that are enabled."""
        return [each.trigger.cron_schedule.cron for each in self.recurring if each.mode == "ENABLE"]

    def fail(self, kind: str, *, nth: int | None = None, path: str = "", times: int = 1_000_000) -> None:
        """Lets something go wrong: with the nth request from now and those after it, or those to a path."""
        number = None if nth is None else len(self.requests) + nth
        self.faults.append(
            Fault(lambda n, method, url: (number is None or n >= number) and path in f"{method} {url}", kind, times)
        )

    def new_id(self, kind: str) -> str:
        self.ids += 1
        return f"{kind}-{self.ids}"

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.ids)


class Rules:
    """The calls, by method and path."""

    def __init__(self, state: State):
        self.state = state
        self.routes: list[tuple[str, str, Callable[..., Answer]]] = [
            ("GET", "/healthz", lambda query, body: {"multi_user": state.multi_user}),
            ("GET", "/experiments", self.list_experiments),
            ("POST", "/experiments", self.create_experiment),
            ("POST", "/runs", self.create_run),
            ("GET", "/runs/(?P<key>[^/:]+)", self.get_run),
            ("GET", "/recurringruns", self.list_recurring),
            ("POST", "/recurringruns", self.create_recurring),
            ("POST", "/recurringruns/(?P<key>[^/:]+):enable", self.enable),
            ("POST", "/recurringruns/(?P<key>[^/:]+):disable", self.disable),
            ("DELETE", "/recurringruns/(?P<key>[^/:]+)", self.delete),
        ]

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Answer:
        for verb, pattern, call in self.routes:
            match = re.fullmatch(f"/apis/v2beta1{pattern}", path)
            if match and verb == method:
                return call(query, body, **match.groupdict())
        raise Refused(404, "Not Found")

    def list_experiments(self, query: dict[str, str], body: Any) -> Answer:
        found = [each for each in self.state.experiments if (each.namespace or "") == query.get("namespace", "")]
        return {"experiments": [dump(each) for each in filtered(found, query)]}

    def create_experiment(self, query: dict[str, str], body: Any) -> Answer:
        made = load(body, "V2beta1Experiment")
        if any((e.display_name, e.namespace) == (made.display_name, made.namespace) for e in self.state.experiments):
            raise Refused(409, f"Experiment {made.display_name} already exists")
        if self.state.multi_user and not made.namespace:
            raise Refused(400, "An experiment cannot have an empty namespace in multi-user mode")
        made.experiment_id = self.state.new_id("experiment")
        self.state.experiments.append(made)
        return dump(made)

    def create_run(self, query: dict[str, str], body: Any) -> Answer:
        made = load(body, "V2beta1Run")
        if not made.display_name:
            raise Refused(400, "The run name is empty. Please specify a valid name")
        self.check_pipeline(made)
        made.run_id, made.state = self.state.new_id("run"), "PENDING"
        self.state.runs.append(made)
        return dump(made)

    def get_run(self, query: dict[str, str], body: Any, key: str) -> Answer:
        run = by_id(self.state.runs, "run_id", key, "Run")
        run.state = self.state.progress[0]
        if len(self.state.progress) > 1:
            self.state.progress.pop(0)
        if run.state == "FAILED":
            error = {"code": 2, "message": self.state.run_error}
            task = {"display_name": "Trainer", "state": "FAILED", "error": {"code": 2, "message": "out of memory"}}
            fine = {"display_name": "Transform", "state": "SUCCEEDED"}
            return {**dump(run), "error": error, "run_details": {"task_details": [fine, task]}}
        return dump(run)

    def list_recurring(self, query: dict[str, str], body: Any) -> Answer:
        found = self.state.recurring
        if "experiment_id" in query:
            by_id(self.state.experiments, "experiment_id", query["experiment_id"], "Experiment")
            found = [each for each in found if each.experiment_id == query["experiment_id"]]
        elif self.state.multi_user and not query.get("namespace"):
            raise Refused(400, "A recurring run cannot have an empty namespace in multi-user mode")
        if query.get("sort_by") != "created_at":
            found = found[::-1]
        found = filtered(found, query)
        start = int(query.get("page_token") or 0)
        size = min(int(query.get("page_size", 20)), self.state.page_size)
        more = {"next_page_token": str(start + size)} if start + size < len(found) else {}
        return {"recurringRuns": [dump(each) for each in found[start : start + size]], "total_size": len(found), **more}

    def create_recurring(self, query: dict[str, str], body: Any) -> Answer:
        made = load(body, "V2beta1RecurringRun")
        if not 1 <= int(made.max_concurrency or 0) <= 10:
            raise Refused(400, "Max concurrency of a recurring run must be at least 1 and at most 10.")
        try:
            robfig.parse(made.trigger.cron_schedule.cron)
        except ValueError as error:
            raise Refused(400, f"Schedule cron is not a supported format. Error: {error}") from None
        self.check_pipeline(made)
        made.recurring_run_id = self.state.new_id("schedule")
        made.created_at = self.state.now()
        self.state.recurring.append(made)
        return dump(made)

    def enable(self, query: dict[str, str], body: Any, key: str) -> Answer:
        by_id(self.state.recurring, "recurring_run_id", key, "Job").mode = "ENABLE"
        return {}

    def disable(self, query: dict[str, str], body: Any, key: str) -> Answer:
        by_id(self.state.recurring, "recurring_run_id", key, "Job").mode = "DISABLE"
        return {}

    def delete(self, query: dict[str, str], body: Any, key: str) -> Answer:
        self.state.recurring.remove(by_id(self.state.recurring, "recurring_run_id", key, "Job"))
        return {}

    def check_pipeline(self, made: Any) -> None:
        """The spec, and the parameters against what it declares."""
        by_id(self.state.experiments, "experiment_id", made.experiment_id, "Experiment")
        spec = made.pipeline_spec.get("pipeline_spec", made.pipeline_spec)
        if spec.get("schemaVersion") != "2.1.0":
            raise Refused(500, "KFP only supports schema version 2.1.0")
        declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        given = made.runtime_config.parameters or {}
        if extra := given.keys() - declared.keys():
            raise Refused(400, f"parameter(s) provided are not required by pipeline: {', '.join(extra)}")
        for name, definition in declared.items():
            kind = (int, float) if definition["parameterType"].startswith("NUMBER") else str
            if name in given and not isinstance(given[name], kind):
                raise Refused(400, f"input parameter {name} requires type {definition['parameterType']}")


def load(body: Any, model: str) -> Any:
    """A model from a request's body; what the model does not know is refused, as protojson does."""
    known = set(getattr(api, model).attribute_map.values())
    if not isinstance(body, dict) or body.keys() - known:
        raise Refused(400, f"unknown field in {model}")
    response = type("Response", (), {"data": json.dumps(body)})
    return SERIALIZER.deserialize(response, model)


def dump(model: Any) -> Answer:
    """A model as the server writes it."""
    text = SERIALIZER.sanitize_for_serialization(model)
    assert isinstance(text, dict)
    return text


def by_id(things: list[Any], attribute: str, key: str, kind: str) -> Any:
    for thing in things:
        if getattr(thing, attribute) == key:
            return thing
    raise Refused(404, f"{kind} {key} not found.")


def filtered(things: list[Any], query: dict[str, str]) -> list[Any]:
    """The server decodes the filter once more after the URL is decoded (`parseAPIFilter`)."""
    if not query.get("filter"):
        return things
    (predicate,) = json.loads(unquote_plus(query["filter"]))["predicates"]
    assert (predicate["operation"], predicate["key"]) == ("EQUALS", "display_name")
    return [thing for thing in things if thing.display_name == predicate["string_value"]]


class Handler(BaseHTTPRequestHandler):
    """HTTP around the rules."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        self.respond()

    def do_POST(self) -> None:
        self.respond()

    def do_DELETE(self) -> None:
        self.respond()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
        """Quiet."""

    def respond(self) -> None:
        with self.server.lock:
            self.locked_respond()

    def locked_respond(self) -> None:
        state = self.server.state
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        state.requests.append((self.command, url.path))
        state.tokens.append(self.headers.get("Authorization"))
        if body is not None:
            state.bodies.append(body)
        fault = self.due_fault(url.path)
        if fault in ("html", "redirect", "plain"):
            self.misanswer(fault)
        elif fault == "hang":
            self.server.lock.release()
            self.server.closing.wait(30)
            self.server.lock.acquire()
            self.close_connection = True
        else:
            self.carry_out(fault, url.path, dict(parse_qsl(url.query)), body)

    def due_fault(self, path: str) -> str | None:
        for fault in self.server.state.faults:
            if fault.times and fault.matches(len(self.server.state.requests), self.command, path):
                fault.times -= 1
                return fault.kind
        return None

    def carry_out(self, fault: str | None, path: str, query: dict[str, str], body: Any) -> None:
        state = self.server.state
        try:
            if state.token and self.headers.get("Authorization") != f"Bearer {state.token}":
                raise Refused(401, "Request header error: there is no user identity header.")
            if fault == "error":
                raise Refused(503, "Failed to reach the database - try again later")
            answer = Rules(state).answer(self.command, unquote(path), query, body)
            state.most_enabled = max(state.most_enabled, len(state.enabled()))
            if fault == "lost":
                raise Refused(500, "Failed to change recurring run's mode")
        except Refused as refused:
            self.send(refused.status, json.dumps(refused.body), "application/json")
            return
        if fault == "cut":
            self.close_connection = True
            return
        self.send(200, json.dumps(answer), "application/json")

    def misanswer(self, fault: str) -> None:
        if fault == "html":
            self.send(200, "<html>Log in to your account</html>", "text/html")
        elif fault == "redirect":
            self.send(302, "", "text/html", Location="https://login.example/auth?state=5ecret")
        else:
            self.send(403, "RBAC: access denied", "text/plain")

    def send(self, status: int, text: str, kind: str, **headers: str) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    """Listens on a free port of loopback."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.state = State()
        self.lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running() -> Iterator[Server]:
    """A server in a thread of its own, for the time of a `with`."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
