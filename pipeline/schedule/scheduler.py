"""The schedule itself: APScheduler decides when, one thread runs the pipeline, another sends notifications."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, JobSubmissionEvent
from apscheduler.executors.pool import BasePoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from prometheus_client import start_http_server

from data.errors import ConfigError
from pipeline.config import Config
from pipeline.cron import CronTrigger
from pipeline.schedule.metrics import registry
from pipeline.schedule.notifications import ScheduleEvent, Webhook
from pipeline.schedule.process import RunProcess
from pipeline.schedule.retraining import Retraining, pushed_versions
from pipeline.schedule.state import RunCause, ScheduledRun, SchedulePlan, schedule_state
from pipeline.schedule.watch import DataWatcher
from pipeline.workspace import Workspace

#: Seconds between two checks of the clock. APScheduler sleeps until the next run by a clock that stops while the
#: machine is suspended.
_TICK = 60

_CRON = "cron"

#: Signals that stop a schedule besides Ctrl-C: from a service manager, and from a closed terminal.
ENDING = (signal.SIGTERM, signal.SIGHUP)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScheduleOptions:
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


class _UnstoppedPool(BasePoolExecutor):
    """A thread pool that the scheduler does not shut down: it would wait for it under a lock that its jobs need."""

    def __init__(self, pool: ThreadPoolExecutor):
        super().__init__(pool)

    def shutdown(self, wait: bool = True) -> None:
        """Called by the scheduler when it ends; does nothing."""


class Scheduler:
    """Runs the pipeline for as long as the process lives.

    Args:
        config: The unresolved configuration; each run resolves it again.
        workspace: The workspace, whose `schedule_lock` the caller holds.
        options: The options of the command line.

    Raises:
        ConfigError: The webhook cannot be used.
    """

    def __init__(self, config: Config, workspace: Workspace, options: ScheduleOptions):
        self._config = config
        self._workspace = workspace
        self._options = options
        self._serving = str(workspace.serving / config.push.model_name)
        self._stop = threading.Event()
        self._webhook = (
            Webhook(options.webhook_url, options.webhook_secret, config.schedule, self._stop)
            if options.webhook_url
            else None
        )
        self._state = schedule_state(workspace)
        output = workspace.schedule / "output.txt"
        self._process = RunProcess(options.command, output, config.schedule.stop_seconds)
        self._missed = self._state.close_interrupted()
        if self._state.announced is None:
            self._state.announced = max(pushed_versions(self._serving), default=0)
        # Each of the two works in order of arrival, and neither waits for the other.
        self._threads = {"default": ThreadPoolExecutor(1, "runs"), "notices": ThreadPoolExecutor(1, "notices")}
        self._scheduler = BackgroundScheduler(
            timezone=config.schedule.timezone,
            executors={name: _UnstoppedPool(pool) for name, pool in self._threads.items()},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._scheduler.add_listener(self._on_left_out, EVENT_JOB_MAX_INSTANCES)

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
        options, section, last_plan = self._options, self._config.schedule, self._state.plan
        plan = SchedulePlan(cron=options.cron, timezone=section.timezone, watch=options.watch)
        retraining = self._retraining(self._announce, watched=options.watch)
        if plan.cron is not None:
            # Runs missed since the schedule last ran are replaced by one run now.
            now = datetime.now(UTC)
            if last_plan is not None and last_plan.next_run is not None and last_plan.next_run <= now:
                self._missed = True
            trigger = CronTrigger(plan.cron, section.timezone, section.jitter_seconds)
            first = {"next_run_time": now} if self._missed else {}
            self._scheduler.add_job(self._on_cron, trigger, [plan, retraining], id=_CRON, **first)
        self._scheduler.add_job(self._remember, "interval", [plan], seconds=_TICK, executor="notices")
        with self._metrics(), self._stopping(), suppress(KeyboardInterrupt):
            self._scheduler.start()
            self._remember(plan)
            if options.watch:
                on_change = partial(self._on_change, retraining)
                DataWatcher(self._config.data, section, retraining.due, on_change, self._stop).start()
            logger.info("the schedule begins: %s", describe(self._state.plan or plan))
            self._stop.wait()

    def _retraining(self, announce: Callable[[ScheduleEvent], None], *, watched: bool) -> Retraining:
        return Retraining(self._config, self._workspace, self._state, self._process, watched, announce, self._stop)

    def _on_cron(self, plan: SchedulePlan, retraining: Retraining) -> None:
        cause: RunCause = "missed" if self._missed else "cron"
        self._missed = False
        run = retraining.begin(cause)
        self._remember(plan)  # Only now: after a crash before this, the run is made up for.
        retraining.run(run)

    def _on_left_out(self, event: JobSubmissionEvent) -> None:
        if event.job_id == _CRON:
            logger.warning("cron falls due while a run that it started is in progress: left out")

    def _remember(self, plan: SchedulePlan) -> None:
        job = self._scheduler.get_job(_CRON)
        self._state.plan = plan.model_copy(update={"next_run": job.next_run_time if job else None})

    def _on_change(self, retraining: Retraining) -> None:
        logger.info("to be handled: new data in %s, or a new configuration", self._config.data.path)
        self._threads["default"].submit(self._on_data, retraining).result()

    def _on_data(self, retraining: Retraining) -> None:
        """Runs, unless a run that was in progress when the data were noticed has handled them."""
        if not self._stop.is_set() and retraining.due() is not None:
            retraining.run(retraining.begin("data"))

    def _announce(self, event: ScheduleEvent) -> None:
        def sent(future: "Future[None]") -> None:
            if future.cancelled():
                logger.error("event %s (%s) was not sent: the schedule ends", event.id, event.kind)
            elif error := future.exception():
                logger.error("event %s (%s) was not sent: %s", event.id, event.kind, type(error).__name__)

        self._threads["notices"].submit(self._send, event).add_done_callback(sent)

    def _send(self, event: ScheduleEvent) -> None:
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
        options = self._options
        if options.metrics_port is None:
            yield
            return
        metrics = registry(self._state, self._serving)
        try:
            server, thread = start_http_server(options.metrics_port, options.metrics_host, metrics)
        except OSError as error:
            raise ConfigError(
                f"--metrics-port {options.metrics_port} at {options.metrics_host}: cannot listen: {error.strerror}"
            ) from None
        logger.info("metrics: http://%s:%d/metrics", options.metrics_host, server.server_port)
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def describe(plan: SchedulePlan) -> str:
    """Describes a plan in one line."""
    parts = [f"cron '{plan.cron}' in {plan.timezone}"] if plan.cron else []
    parts += ["new data"] if plan.watch else []
    parts += [f"next run {plan.next_run.isoformat(timespec='seconds')}"] if plan.next_run else []
    return ", ".join(parts)
