"""The schedule itself: APScheduler decides when, one thread runs the pipeline, another sends notifications."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, JobSubmissionEvent
from apscheduler.executors.pool import BasePoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from prometheus_client import start_http_server

from data.errors import ConfigError
from pipeline.config import Config
from pipeline.cron import CronTrigger
from pipeline.schedule.events import Event, pushed_versions
from pipeline.schedule.metrics import registry
from pipeline.schedule.notice import Webhook
from pipeline.schedule.process import RunProcess
from pipeline.schedule.retraining import Retraining
from pipeline.schedule.state import Cause, Plan, ScheduledRun, State
from pipeline.schedule.watch import Watcher
from pipeline.workspace import OwnedLock, Workspace

#: Seconds between two checks of the clock. APScheduler sleeps until the next run by a clock that stops while the
#: machine is suspended.
_TICK = 60

_CRON = "cron"

#: Signals that stop a schedule besides Ctrl-C: from a service manager, and from a closed terminal.
ENDING = (signal.SIGTERM, signal.SIGHUP)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """The options of the command line."""

    command: list[str]
    """The command that runs the pipeline once."""
    cron: str | None = None
    watch: bool = False
    webhook_url: str | None = field(default=None, repr=False)
    webhook_secret: str = field(default="", repr=False)
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    """TCP port of the metrics; None serves no metrics; 0 chooses a free port, which is logged."""


def schedule_state(workspace: Workspace) -> State:
    """The schedule's state in a workspace."""
    return State(workspace.schedule / "state.sqlite")


def schedule_lock(workspace: Workspace) -> OwnedLock:
    """The lock that the only schedule of a workspace holds."""
    return OwnedLock(workspace.schedule / ".lock")


class _Threads(BasePoolExecutor):
    """A thread pool that the scheduler does not shut down: it would wait for it under a lock that its jobs need."""

    def __init__(self, pool: ThreadPoolExecutor):
        super().__init__(pool)

    def shutdown(self, wait: bool = True) -> None:
        """Called by the scheduler when it ends; does nothing."""


class Schedule:
    """Runs the pipeline for as long as the process lives.

    Args:
        config: The unresolved configuration; each run resolves it again.
        workspace: The workspace, whose `schedule_lock` the caller holds.
        request: The options of the command line.

    Raises:
        ConfigError: The webhook cannot be used.
    """

    def __init__(self, config: Config, workspace: Workspace, request: Request):
        self._config = config
        self._workspace = workspace
        self._request = request
        self._stop = threading.Event()
        self._webhook = (
            Webhook(request.webhook_url, request.webhook_secret, config.schedule, self._stop)
            if request.webhook_url
            else None
        )
        self._state = schedule_state(workspace)
        output = workspace.schedule / "output.txt"
        self._process = RunProcess(request.command, output, config.schedule.stop_seconds)
        self._missed = self._state.close_interrupted()
        if self._state.told is None:
            self._state.told = max(pushed_versions(self._serving), default=0)
        # Each of the two works in order of arrival, and neither waits for the other.
        self._threads = {"default": ThreadPoolExecutor(1, "runs"), "notices": ThreadPoolExecutor(1, "notices")}
        self._scheduler = BackgroundScheduler(
            timezone=config.schedule.timezone,
            executors={name: _Threads(pool) for name, pool in self._threads.items()},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._scheduler.add_listener(self._on_left_out, EVENT_JOB_MAX_INSTANCES)

    @property
    def _serving(self) -> str:
        return str(self._workspace.serving / self._config.push.model_name)

    def run_once(self) -> ScheduledRun:
        """Performs one run now; its events are delivered before this returns."""
        retraining = self._retraining(self._send, watched=False)
        with ThreadPoolExecutor(1) as thread:
            future = thread.submit(retraining.run, retraining.begin("once"))
            with self._stopping(), suppress(KeyboardInterrupt):
                wait([future])
            return future.result()

    def serve(self) -> None:
        """Runs until the process is interrupted (SIGINT, SIGTERM, SIGHUP).

        Raises:
            ConfigError: The cron expression is invalid, or the port of the metrics is in use.
        """
        request = self._request
        plan = Plan(cron=request.cron, timezone=self._config.schedule.timezone, watch=request.watch)
        retraining = self._retraining(self._tell, watched=request.watch)
        if plan.cron is not None:
            self._add_cron(plan.cron, plan, retraining)
        self._scheduler.add_job(self._remember, "interval", [plan], seconds=_TICK, executor="notices")
        with self._metrics(), self._stopping(), suppress(KeyboardInterrupt):
            self._scheduler.start()
            self._remember(plan)
            if request.watch:
                self._watcher(retraining).start()
            logger.info("the schedule begins: %s", describe(self._state.plan or plan))
            self._stop.wait()

    def _retraining(self, tell: Callable[[Event], None], *, watched: bool) -> Retraining:
        return Retraining(self._config, self._workspace, self._state, self._process, watched, tell, self._stop)

    def _add_cron(self, expression: str, plan: Plan, retraining: Retraining) -> None:
        """Plans the runs of a cron expression; runs missed since the schedule last ran are replaced by one run now."""
        section, before, now = self._config.schedule, self._state.plan, datetime.now(UTC)
        trigger = CronTrigger(expression, section.timezone, section.jitter_seconds)
        if before is not None and before.next_run is not None and before.next_run <= now:
            self._missed = True
        first = {"next_run_time": now} if self._missed else {}
        self._scheduler.add_job(self._on_cron, trigger, [plan, retraining], id=_CRON, **first)

    def _on_cron(self, plan: Plan, retraining: Retraining) -> None:
        cause: Cause = "missed" if self._missed else "cron"
        self._missed = False
        run = retraining.begin(cause)
        self._remember(plan)  # Only now: after a crash before this, the run is made up for.
        retraining.run(run)

    def _on_left_out(self, event: JobSubmissionEvent) -> None:
        if event.job_id == _CRON:
            logger.warning("cron falls due while a run that it began is under way: left out")

    def _remember(self, plan: Plan) -> None:
        job = self._scheduler.get_job(_CRON)
        self._state.plan = plan.model_copy(update={"next_run": job.next_run_time if job else None})

    def _watcher(self, retraining: Retraining) -> Watcher:
        def on_change() -> None:
            logger.info("to be dealt with: new data in %s, or a new configuration", self._config.data.path)
            self._threads["default"].submit(self._on_data, retraining).result()

        return Watcher(self._config.data, self._config.schedule, retraining.due, on_change, self._stop)

    def _on_data(self, retraining: Retraining) -> None:
        """Runs, unless a run that was in progress when the data were noticed has handled them."""
        if not self._stop.is_set() and retraining.due() is not None:
            retraining.run(retraining.begin("data"))

    def _tell(self, event: Event) -> None:
        def sent(future: "Future[None]") -> None:
            if future.cancelled():
                logger.error("event %s (%s) was not sent: the schedule ends", event.id, event.kind)
            elif error := future.exception():
                logger.error("event %s (%s) was not sent: %s", event.id, event.kind, type(error).__name__)

        self._threads["notices"].submit(self._send, event).add_done_callback(sent)

    def _send(self, event: Event) -> None:
        logger.info("event: %s", event.kind)
        if self._webhook is not None:
            self._webhook.send(event)

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """Ends the run in progress and the threads, however the block ends."""
        try:
            yield
        finally:
            for number in (signal.SIGINT, *ENDING):
                signal.signal(number, signal.SIG_IGN)
            logger.info("the schedule ends")
            self._stop.set()
            self._process.stop()
            if self._scheduler.running:
                self._scheduler.shutdown(wait=False)
            self._threads["default"].shutdown()
            notices = self._threads["notices"]
            wait([notices.submit(lambda: None)], timeout=self._config.schedule.webhook_timeout_seconds)
            notices.shutdown(cancel_futures=True)  # A delivery in progress has a time limit, too.

    @contextmanager
    def _metrics(self) -> Iterator[None]:
        request = self._request
        if request.metrics_port is None:
            yield
            return
        metrics = registry(self._state, self._serving)
        try:
            server, thread = start_http_server(request.metrics_port, request.metrics_host, metrics)
        except OSError as error:
            raise ConfigError(
                f"--metrics-port {request.metrics_port} at {request.metrics_host}: cannot listen: {error.strerror}"
            ) from None
        logger.info("metrics: http://%s:%d/metrics", request.metrics_host, server.server_port)
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def describe(plan: Plan) -> str:
    """Describes a plan in one line."""
    parts = [f"cron '{plan.cron}' in {plan.timezone}"] if plan.cron else []
    parts += ["new data"] if plan.watch else []
    parts += [f"next run {plan.next_run.isoformat(timespec='seconds')}"] if plan.next_run else []
    return ", ".join(parts)
