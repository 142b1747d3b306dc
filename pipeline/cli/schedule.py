"""What the command `schedule` of `local_runner.py` does and prints."""

import json
import logging
import signal
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.errors import TEMPORARY, WorkspaceBusy, WorkspaceError
from pipeline.config import load_config
from pipeline.schedule.scheduler import ENDING, Request, Schedule, describe, schedule_lock, schedule_state
from pipeline.schedule.state import ScheduledRun
from pipeline.workspace import Held, Workspace

#: Log more than anyone wants to read, the last one with the URLs that it asks. What APScheduler warns of, the schedule
#: says in its own words.
_QUIET = {"apscheduler": logging.ERROR, "watchfiles": logging.WARNING, "httpx": logging.WARNING}


def schedule_command(request: Request, config_path: Path | None, overrides: Sequence[str], workspace: Path) -> int:
    """`schedule`: runs the pipeline by the clock and on new data, or, without either, once.

    Returns:
        Exit status. Of a schedule that was stopped: 0. Of a single run: 0 where it came to its end, whatever the
        verdict; 1 where the same would fail again; TEMPORARY where it may pass, or another run was in the way.

    Raises:
        ConfigError: A key, the cron expression or the webhook is wrong.
        WorkspaceBusy: Another schedule runs in this workspace.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)
    config, places = load_config(config_path, overrides), Workspace(workspace.absolute())
    try:
        with schedule_lock(places).held():
            schedule = Schedule(config, places, request)
            if request.cron or request.watch:
                schedule.serve()
                return 0
            return exit_status(schedule.run_once())
    except Held as held:
        raise WorkspaceBusy(f"{places.root}: {held} schedules this workspace already") from None


def exit_status(run: ScheduledRun) -> int:
    """What a single run says to the cron that began it."""
    if run.succeeded:
        return 0
    if run.result == "interrupted":
        return 130
    return TEMPORARY if run.transient or run.result == "skipped" else 1


def schedule_status_command(workspace: Path, last: int, *, as_json: bool) -> None:
    """`schedule --status`: the plan, and what the last runs came to."""
    places = Workspace(workspace.absolute())
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
    table = Table(title=str(workspace))
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
