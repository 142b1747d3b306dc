"""`schedule`: runs the pipeline repeatedly, at fixed times, on new data, or both."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.errors import TEMPORARY, WorkspaceBusy, WorkspaceError
from pipeline.cli.application import DEFAULT_WORKSPACE, ConfigOption, SetOption, WorkspaceOption

if TYPE_CHECKING:
    from pipeline.schedule.scheduler import ScheduleOptions
    from pipeline.schedule.state import ScheduledRun
    from pipeline.workspace import Workspace

#: The command that the schedule starts as a separate process for each run.
RUNNER = Path(__file__).resolve().parents[2] / "local_runner.py"

#: Loggers that log too much, the last one including the URLs that it requests. The schedule reports in its own words
#: what APScheduler warns of.
_QUIET = {"apscheduler": logging.ERROR, "watchfiles": logging.WARNING, "httpx": logging.WARNING}


def schedule(
    cron: Annotated[str | None, typer.Option("--cron", metavar="EXPR", help="When to run, as '0 3 * * *'.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Run whenever there are new data.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Run once, now, for an existing cron.")] = False,
    status_: Annotated[bool, typer.Option("--status", help="Show the next run and the last ones.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="With --status: machine-readable.")] = False,
    last: Annotated[int, typer.Option("--last", min=1, help="With --status: number of runs shown.")] = 10,
    config: ConfigOption = None,
    set_: SetOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    webhook_url: Annotated[
        str | None,
        typer.Option(
            "--webhook-url",
            metavar="URL",
            envvar="DEEPLAB_WEBHOOK_URL",
            help="Events go there, signed with the secret in DEEPLAB_WEBHOOK_SECRET.",
        ),
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", min=0, max=65535, help="Serve Prometheus metrics there.")
    ] = None,
    metrics_host: Annotated[str, typer.Option("--metrics-host", help="Address of the metrics.")] = "127.0.0.1",
) -> None:
    """Run the pipeline repeatedly: at fixed times, on new data, or both.

    A single run exits with 0 if it completed, whether or not its model was blessed; with 1 if the same would fail
    again; and with 75 after a transient error, or if another run was in progress.
    """
    if status_:
        if cron or watch or once or config or set_:
            raise typer.BadParameter("--status can only be combined with --last, --json and --workspace")
        from pipeline.workspace import Workspace

        show_status(Workspace(workspace.absolute()), last, as_json=json_)
        return
    if once == bool(cron or watch):
        raise typer.BadParameter("give --cron, --watch or both; or --once alone")
    from pipeline.schedule.scheduler import ScheduleOptions

    settings = [part for setting in set_ or [] for part in ("--set", setting)]
    configured = [part for path in config or [] for part in ("--config", str(path))]
    program = [sys.executable, str(RUNNER), "run", *configured, *settings, "--workspace", str(workspace)]
    secret = os.environ.get("DEEPLAB_WEBHOOK_SECRET", "")
    options = ScheduleOptions(program, cron, watch, webhook_url, secret, metrics_host, metrics_port)
    sys.exit(run_schedule(options, config or [], set_ or [], workspace))


def run_schedule(options: ScheduleOptions, configs: Sequence[Path], overrides: Sequence[str], workspace: Path) -> int:
    """Runs the schedule, or, without cron and watch, the pipeline once.

    Returns:
        The exit status. For a schedule that was stopped: 0. For a single run: 0 if it completed, whether or not its
        model was blessed; 1 after a lasting error; TEMPORARY after a transient error, or if another run was in
        progress.

    Raises:
        ConfigError: A key, the cron expression or the webhook is invalid.
        WorkspaceBusy: Another schedule is running in this workspace.
    """
    from pipeline.config import load_config
    from pipeline.schedule.scheduler import ENDING, Scheduler
    from pipeline.schedule.state import schedule_lock
    from pipeline.workspace import Held, Workspace, check_artifact_path

    check_artifact_path("--workspace", str(workspace.absolute()))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # SIGHUP is ignored, as under nohup
            signal.signal(number, signal.default_int_handler)
    config, places = load_config(configs, overrides), Workspace(workspace.absolute())
    try:
        with schedule_lock(places).held():
            scheduler = Scheduler(config, places, options)
            if options.cron or options.watch:
                scheduler.serve()
                return 0
            return exit_status(scheduler.run_once())
    except Held as held:
        raise WorkspaceBusy(f"{places.root}: {held} schedules this workspace already") from None


def exit_status(run: ScheduledRun) -> int:
    """The exit status of a single run, for the cron job that started it."""
    if run.succeeded:
        return 0
    if run.result == "interrupted":
        return 130
    return TEMPORARY if run.transient or run.result == "skipped" else 1


def show_status(places: Workspace, last: int, *, as_json: bool) -> None:
    """Prints the plan, and the results of the last runs."""
    from pipeline.schedule.scheduler import describe
    from pipeline.schedule.state import schedule_lock, schedule_state

    if not places.schedule.is_dir():
        raise WorkspaceError(f"{places.root}: nothing has been scheduled in this workspace yet")
    state, lock = schedule_state(places), schedule_lock(places)
    plan, runs, holder = state.plan, state.last(last), lock.holder()
    if as_json:
        shown = {
            "alive": bool(holder),
            "plan": plan.model_dump(mode="json") if plan else None,
            "runs": [run.model_dump(mode="json") for run in runs],
        }
        Console().print_json(json.dumps(shown))
        return
    console = Console()
    table = Table(title=str(places.root))
    for heading in ("run", "began (UTC)", "cause", "result", "seconds", "tries", "mean IoU"):
        table.add_column(heading, no_wrap=True)
    for run in runs:
        table.add_row(*(escape(text) for text in _cells(run)))
    console.print(table)
    for run in runs:
        if note := run.failure.message if run.failure else "; ".join(run.reasons):
            console.print(f"run {run.id}: {note}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{holder} schedules this workspace" if holder else "no schedule runs", markup=False)
    if plan:
        console.print(f"plan: {describe(plan)}", markup=False)


def _cells(run: ScheduledRun) -> list[str]:
    return [
        str(run.id),
        f"{run.started.astimezone(UTC):%Y-%m-%d %H:%M}",
        run.cause,
        f"{run.result} {run.version}" if run.result == "pushed" else run.result,
        f"{run.seconds:.0f}" if run.seconds is not None else "",
        str(run.attempts),
        f"{run.mean_iou:.4f}" if run.mean_iou is not None else "",
    ]
