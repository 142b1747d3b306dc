"""The commands `submit` and `schedule` of `kubeflow_runner.py`."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import kfp_server_api as api
from rich.console import Console
from rich.table import Table

from data.errors import ConfigError
from pipeline.cli.application import quietly
from pipeline.kubeflow import recurring
from pipeline.kubeflow.client import Server
from pipeline.kubeflow.document import CompiledPipeline
from pipeline.kubeflow.recurring import Place
from pipeline.kubeflow.submission import Submission, pipeline_name, run_parameters, service_account_of
from pipeline.kubeflow.submit import Patience, RunUnfinished, failures, follow, start

_State = api.V2beta1RuntimeState
EXIT_CODES = {_State.SUCCEEDED: 0, _State.SKIPPED: 0, _State.FAILED: 3, _State.CANCELED: 4}
UNFINISHED = 5
TIME_ZONE = (
    "the server's time zone (UTC, unless CRON_SCHEDULE_TIMEZONE of its scheduled-workflow controller says other)"
)

Make = Callable[[Server, Submission, str], api.V2beta1RecurringRun]
MAKING: dict[str, Make] = {"create": recurring.create, "replace": recurring.replace}
CHANGING: dict[str, tuple[Callable[[Server, Place], None], str]] = {
    "pause": (recurring.pause, "is paused; a run under way goes on"),
    "resume": (recurring.resume, "is enabled"),
    "delete": (recurring.delete, "is deleted; its runs stay"),
}


@dataclass(frozen=True)
class Request:
    """The command line's options for a run or a schedule. An empty text stands for the default."""

    spec: Path
    """The compiled pipeline."""
    settings: Sequence[str] = ()
    """Parameters of the run, as `parameter=value`."""
    experiment: str = ""
    """Name of the experiment; by default the pipeline's name."""
    name: str = ""
    """Name of the run or the schedule; by default the pipeline's name, followed by the time in case of a run."""
    service_account: str = ""
    """Service account of the run's pods; by default the one in the compiled pipeline."""

    def submission(self, default_name: str = "{pipeline}") -> Submission:
        """The compiled pipeline with its parameters, checked against the server's rules.

        Raises:
            SpecError: The server would reject the pipeline.
            ConfigError: The file or a parameter is invalid.
        """
        pipeline = CompiledPipeline.read(self.spec)
        with quietly(verbose=False):
            from pipeline.kubeflow.rules import check_spec

            check_spec(pipeline.spec, pipeline.platforms)
        name = pipeline_name(pipeline)
        return Submission(
            pipeline,
            self.experiment or name,
            self.name or default_name.format(pipeline=name),
            run_parameters(pipeline, self.settings),
            self.service_account or service_account_of(pipeline),
        )

    def place(self) -> Place:
        """Experiment and name of a schedule; the file is not read if both are given."""
        if self.experiment and self.name:
            return Place(self.experiment, self.name)
        try:
            name = pipeline_name(CompiledPipeline.read(self.spec))
        except ConfigError as error:
            raise ConfigError(
                f"{error}\nwhich schedule? give --experiment and --name, or the file with --spec"
            ) from None
        return Place(self.experiment or name, self.name or name)


def _console() -> Console:
    """A console that never wraps lines, which hold addresses and ids to copy. A file or pipe has no width to fit."""
    width = None if sys.stdout.isatty() else 200
    return Console(width=width, soft_wrap=True, highlight=False, markup=False)


def submit_command(server: Server, request: Request, patience: Patience | None) -> int:
    """`submit`: starts a run, and follows it if `patience` is given. Returns the exit code."""
    console = _console()
    submission = request.submission(default_name=f"{{pipeline}} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}")
    run = start(server, submission)
    console.print(f"run         {submission.name}, id {run.run_id}, in experiment {submission.experiment}")
    _show_parameters(console, submission)
    console.print(f"page        {server.connection.link('runs', run.run_id)}")
    return _await(server, run, patience, console) if patience else 0


def _await(server: Server, run: api.V2beta1Run, patience: Patience, console: Console) -> int:
    try:
        ended = follow(server, run.run_id, patience, lambda state: console.print(f"state       {state}"))
    except RunUnfinished as unfinished:
        console.print(str(unfinished))
        return UNFINISHED
    for line in failures(ended):
        console.print(f"            {line}")
    return EXIT_CODES[ended.state]


def schedule_command(server: Server, action: str, request: Request, cron: str) -> None:
    """`schedule`: performs one action on a schedule, or lists the schedules."""
    if bool(cron) != (action in MAKING):
        needs = "needs --cron 'minute hour day-of-month month day-of-week'" if action in MAKING else "takes no --cron"
        raise ConfigError(f"schedule {action}: {needs}; allowed with --cron: {', '.join(MAKING)}")
    console = _console()
    if action == "list":
        console.print(_table(_listed(server, request.experiment)))
    elif action in MAKING:
        _make(server, MAKING[action], request.submission(), cron, console)
    else:
        change, done = CHANGING[action]
        place = request.place()
        change(server, place)
        console.print(f"{place} {done}")


def _make(server: Server, make: Make, submission: Submission, cron: str, console: Console) -> None:
    made = make(server, submission, cron)
    console.print(f"schedule    {submission.name}, id {made.recurring_run_id}, in experiment {submission.experiment}")
    console.print(f"times       {cron} in {TIME_ZONE}; one run at a time, missed times are not made up for one by one")
    _show_parameters(console, submission)
    console.print(f"page        {server.connection.link('recurringrun', made.recurring_run_id)}")


def _show_parameters(console: Console, submission: Submission) -> None:
    for name, value in submission.parameters.items():
        console.print(f"parameter   {name}={value}")


def _listed(server: Server, experiment: str) -> list[api.V2beta1RecurringRun]:
    if not experiment:
        return server.recurring_runs(None, None)
    found = server.find_experiment(experiment)
    return server.recurring_runs(found, None) if found else []


def _table(schedules: list[api.V2beta1RecurringRun]) -> Table:
    table = Table("name", "state", "cron (seconds first)", "made", "id", title=f"times are in {TIME_ZONE}")
    for each in schedules:
        state = "enabled" if each.mode == recurring.ENABLED else "paused"
        cron = each.trigger.cron_schedule if each.trigger else None
        made = f"{each.created_at:%Y-%m-%d %H:%M}" if each.created_at else ""
        table.add_row(each.display_name, state, cron.cron if cron else "at intervals", made, each.recurring_run_id)
    return table
