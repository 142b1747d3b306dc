"""`submit` and `schedule`: a compiled pipeline on a Kubeflow Pipelines server."""

from __future__ import annotations

import enum
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from data.errors import ConfigError
from pipeline.cli.application import quietly

if TYPE_CHECKING:
    import kfp_server_api as api

    from pipeline.kubeflow.recurring import ScheduleKey
    from pipeline.kubeflow.submission import Submission

HostOption = Annotated[str, typer.Option("--host", metavar="URL", help="Server, such as https://kubeflow/pipeline.")]
SpecOption = Annotated[Path, typer.Option("--spec", help="Compiled pipeline.")]
ParameterOption = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Run parameter.")]
ExperimentOption = Annotated[str, typer.Option("--experiment", help="By default the pipeline's name.")]
NameOption = Annotated[str, typer.Option("--name", help="By default the pipeline's name; for a run, with the time.")]
AccountOption = Annotated[
    str, typer.Option("--service-account", help="Account of the run's pods; by default kubeflow.service_account.")
]
NamespaceOption = Annotated[str, typer.Option("--namespace", help="Namespace of the user, on a multi-user server.")]
TokenOption = Annotated[
    Path | None, typer.Option("--token-file", help="File with the token; without it, DEEPLAB_KFP_TOKEN is read.")
]
InClusterOption = Annotated[bool, typer.Option("--in-cluster", help="Use the token of this pod's service account.")]
AuthorityOption = Annotated[Path | None, typer.Option("--ca-file", help="Certificates of a private authority.")]
AnswerOption = Annotated[float, typer.Option("--request-timeout", min=1, help="Seconds to wait for an answer.")]

DEFAULT_SPEC = Path("pipeline.yaml")

TIME_ZONE = (
    "the server's time zone (UTC, unless CRON_SCHEDULE_TIMEZONE of its scheduled-workflow controller says other)"
)
#: Exit code of `submit --wait` by the state in which the run ended, and where it has not ended in time.
EXIT_CODES = {"SUCCEEDED": 0, "SKIPPED": 0, "FAILED": 3, "CANCELED": 4}
UNFINISHED = 5


@dataclass(frozen=True)
class SubmitOptions:
    """What the command line says about a run or a schedule. Empty text stands for the default."""

    spec: Path
    """The compiled pipeline."""
    settings: Sequence[str] = ()
    """`parameter=value`."""
    experiment: str = ""
    """By default the pipeline's name."""
    name: str = ""
    """Name of the run or the schedule; by default the pipeline's name, for a run with the time."""
    service_account: str = ""
    """Service account of the run's pods; by default the one that was compiled."""

    def submission(self, default_name: str = "{pipeline}") -> Submission:
        """The compiled pipeline with its parameters, checked by the server's rules.

        Raises:
            SpecError: The server would refuse the pipeline.
            ConfigError: The file or a parameter is wrong.
        """
        from pipeline.kubeflow.compiled_pipeline import CompiledPipeline
        from pipeline.kubeflow.submission import Submission

        pipeline = CompiledPipeline.read(self.spec)
        with quietly():
            from pipeline.kubeflow.rules import check_spec

            check_spec(pipeline.spec, pipeline.platforms)
        return Submission(
            pipeline,
            self.experiment or pipeline.name,
            self.name or default_name.format(pipeline=pipeline.name),
            pipeline.run_parameters(self.settings),
            self.service_account or pipeline.service_account,
        )

    def schedule_key(self) -> ScheduleKey:
        """Experiment and name of a schedule, without need of the file if both are given."""
        from pipeline.kubeflow.compiled_pipeline import CompiledPipeline
        from pipeline.kubeflow.recurring import ScheduleKey

        if self.experiment and self.name:
            return ScheduleKey(self.experiment, self.name)
        try:
            name = CompiledPipeline.read(self.spec).name
        except ConfigError as error:
            raise ConfigError(
                f"{error}\nthe schedule is not known; give --experiment and --name, or the file with --spec"
            ) from None
        return ScheduleKey(self.experiment or name, self.name or name)


def submit(
    host: HostOption,
    spec: SpecOption = DEFAULT_SPEC,
    set_: ParameterOption = None,
    experiment: ExperimentOption = "",
    name: NameOption = "",
    service_account: AccountOption = "",
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run; the exit code shows how it ended.")] = False,
    timeout: Annotated[float | None, typer.Option("--timeout", min=0, help="Longest wait, in seconds.")] = None,
    namespace: NamespaceOption = "",
    token_file: TokenOption = None,
    in_cluster: InClusterOption = False,
    ca_file: AuthorityOption = None,
    request_timeout: AnswerOption = 30,
) -> None:
    """Start a run on a cluster. With --wait: exit code 0 succeeded, 3 failed, 4 cancelled, 5 not ended in time."""
    from pipeline.kubeflow.client import connect
    from pipeline.kubeflow.submission import Patience, RunUnfinished, failures, follow, start

    if timeout is not None and not wait:
        raise typer.BadParameter("--timeout needs --wait")
    server = connect(
        host,
        namespace=namespace,
        token_file=token_file,
        in_cluster=in_cluster,
        ca_file=ca_file,
        timeout=request_timeout,
    )
    options = SubmitOptions(spec, set_ or [], experiment, name, service_account)
    console = _console()
    submission = options.submission(default_name=f"{{pipeline}} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}")
    run = start(server, submission)
    console.print(f"run         {submission.name}, id {run.run_id}, in experiment {submission.experiment}")
    _show_parameters(console, submission)
    console.print(f"page        {server.connection.link('runs', run.run_id)}")
    if not wait:
        return
    try:
        patience = Patience(limit=timeout)
        ended = follow(server, run.run_id, patience, lambda state: console.print(f"state       {state}"))
    except RunUnfinished as unfinished:
        console.print(str(unfinished))
        raise typer.Exit(UNFINISHED) from None
    for line in failures(ended):
        console.print(f"            {line}")
    raise typer.Exit(EXIT_CODES[ended.state])


class ScheduleAction(enum.StrEnum):
    """What `schedule` does."""

    REPLACE = enum.auto()
    CREATE = enum.auto()
    LIST = enum.auto()
    PAUSE = enum.auto()
    RESUME = enum.auto()
    DELETE = enum.auto()


def schedule(
    host: HostOption,
    action: Annotated[
        ScheduleAction,
        typer.Argument(help="replace creates it, instead of one of that name; create fails if there is one."),
    ] = ScheduleAction.REPLACE,
    cron: Annotated[
        str, typer.Option("--cron", help="Minute, hour, day of month, month, day of week, in the server's time zone.")
    ] = "",
    spec: SpecOption = DEFAULT_SPEC,
    set_: ParameterOption = None,
    experiment: ExperimentOption = "",
    name: NameOption = "",
    service_account: AccountOption = "",
    namespace: NamespaceOption = "",
    token_file: TokenOption = None,
    in_cluster: InClusterOption = False,
    ca_file: AuthorityOption = None,
    request_timeout: AnswerOption = 30,
) -> None:
    """Start runs on a cluster at the times of a cron expression, such as --cron "0 3 * * *"."""
    from pipeline.kubeflow import recurring
    from pipeline.kubeflow.client import connect

    make = {ScheduleAction.CREATE: recurring.create, ScheduleAction.REPLACE: recurring.replace}
    change = {
        ScheduleAction.PAUSE: (recurring.pause, "is paused; a run under way continues"),
        ScheduleAction.RESUME: (recurring.resume, "is enabled"),
        ScheduleAction.DELETE: (recurring.delete, "is deleted; its runs stay"),
    }
    server = connect(
        host,
        namespace=namespace,
        token_file=token_file,
        in_cluster=in_cluster,
        ca_file=ca_file,
        timeout=request_timeout,
    )
    if bool(cron) != (action in make):
        needs = "needs --cron 'minute hour day-of-month month day-of-week'" if action in make else "takes no --cron"
        raise ConfigError(f"schedule {action}: {needs}; allowed with --cron: {', '.join(make)}")
    options = SubmitOptions(spec, set_ or [], experiment, name, service_account)
    console = _console()
    if action == ScheduleAction.LIST:
        found = server.find_experiment(experiment) if experiment else None
        schedules = [] if experiment and not found else server.recurring_runs(found, None)
        console.print(_table(schedules))
    elif action in make:
        submission = options.submission()
        made = make[action](server, submission, cron)
        console.print(
            f"schedule    {submission.name}, id {made.recurring_run_id}, in experiment {submission.experiment}"
        )
        console.print(
            f"times       {cron} in {TIME_ZONE}; one run at a time, missed times are not caught up one by one"
        )
        _show_parameters(console, submission)
        console.print(f"page        {server.connection.link('recurringrun', made.recurring_run_id)}")
    else:
        apply, done = change[action]
        key = options.schedule_key()
        apply(server, key)
        console.print(f"{key} {done}")


def _console() -> Console:
    """A console that does not wrap lines: they contain addresses and ids to copy. A file or pipe has no width."""
    width = None if sys.stdout.isatty() else 200
    return Console(width=width, soft_wrap=True, highlight=False, markup=False)


def _show_parameters(console: Console, submission: Submission) -> None:
    for name, value in submission.parameters.items():
        console.print(f"parameter   {name}={value}")


def _table(schedules: list[api.V2beta1RecurringRun]) -> Table:
    from pipeline.kubeflow.recurring import ENABLED

    table = Table("name", "state", "cron (seconds first)", "made", "id", title=f"times are in {TIME_ZONE}")
    for each in schedules:
        state = "enabled" if each.mode == ENABLED else "paused"
        cron = each.trigger.cron_schedule if each.trigger else None
        made = f"{each.created_at:%Y-%m-%d %H:%M}" if each.created_at else ""
        table.add_row(each.display_name, state, cron.cron if cron else "at intervals", made, each.recurring_run_id)
    return table
