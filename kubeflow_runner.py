"""The command line for Kubeflow Pipelines: compile the pipeline, simulate it here, run it on a cluster.

TensorFlow and TFX take many seconds to import, so each command imports what it needs when it runs.
"""

import enum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.application import answer, application

app = application("Run the pipeline on open-source Kubeflow Pipelines v2.")

ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML file of differences from the defaults.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, as section.key.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Show what the libraries print.")]
ImageOption = Annotated[str, typer.Option("--image", envvar="DEEPLAB_IMAGE", help="Container image of every step.")]
HostOption = Annotated[str, typer.Option("--host", metavar="URL", help="Server, such as https://kubeflow/pipeline.")]
SpecOption = Annotated[Path, typer.Option("--spec", help="Compiled pipeline.")]
ParameterOption = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Run parameter.")]
ExperimentOption = Annotated[str, typer.Option("--experiment", help="By default the pipeline's name.")]
NameOption = Annotated[str, typer.Option("--name", help="By default the pipeline's name; for a run, with the time.")]
AccountOption = Annotated[
    str, typer.Option("--service-account", help="Of the run's pods; by default kubeflow.service_account.")
]
NamespaceOption = Annotated[str, typer.Option("--namespace", help="Of the user, on a server for several.")]
TokenOption = Annotated[
    Path | None, typer.Option("--token-file", help="Holds the token; without it, DEEPLAB_KFP_TOKEN does.")
]
InClusterOption = Annotated[bool, typer.Option("--in-cluster", help="Use the token of this pod's service account.")]
AuthorityOption = Annotated[Path | None, typer.Option("--ca-file", help="Certificates of a private authority.")]
AnswerOption = Annotated[float, typer.Option("--request-timeout", min=1, help="Seconds to wait for an answer.")]

DEFAULT_SPEC = Path("pipeline.yaml")
DEFAULT_CHECKPOINTS = "/tmp/checkpoints"  # noqa: S108  # in a container, whose files go with it


@app.command("compile")
def compile_(
    image: ImageOption,
    pipeline_root: Annotated[
        str,
        typer.Option("--pipeline-root", envvar="DEEPLAB_PIPELINE_ROOT", help="gs://, s3:// or minio:// of artifacts."),
    ],
    serving: Annotated[
        str, typer.Option("--serving", help="Serving directory: gs://, s3://, or a folder on a mounted volume.")
    ],
    config: ConfigOption = None,
    set_: SetOption = None,
    checkpoints: Annotated[
        str, typer.Option("--checkpoints", help="Folder of checkpoints; on a mounted volume it outlives the pod.")
    ] = DEFAULT_CHECKPOINTS,
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write.")] = Path("pipeline.yaml"),
    verbose: VerboseOption = False,
) -> None:
    """Compile the pipeline to a spec for Kubeflow Pipelines, with its Kubernetes settings."""
    from pipeline.cli.kubeflow_compile import compile_command

    compile_command(
        config,
        set_ or [],
        out,
        image=image,
        pipeline_root=pipeline_root,
        serving=serving,
        checkpoints=checkpoints,
        verbose=verbose,
    )


@app.command()
def tfjob(
    image: ImageOption,
    examples: Annotated[str, typer.Option("--examples", help="Folder of Transform's transformed examples.")],
    model: Annotated[str, typer.Option("--model", help="Folder for the trained model.")],
    checkpoints: Annotated[str, typer.Option("--checkpoints", help="Folder that all pods share.")],
    config: ConfigOption = None,
    set_: SetOption = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write.")] = Path("tfjob.yaml"),
    verbose: VerboseOption = False,
) -> None:
    """Render a Training Operator job that trains on several pods (never run on a cluster)."""
    from pipeline.cli.kubeflow_compile import tfjob_command

    tfjob_command(
        config,
        set_ or [],
        out,
        image=image,
        examples=examples,
        model=model,
        checkpoints=checkpoints,
        verbose=verbose,
    )


@app.command()
def simulate(
    config: ConfigOption = None,
    spec: Annotated[Path | None, typer.Option("--spec", help="Compiled pipeline, instead of --config.")] = None,
    set_: ParameterOption = None,
    store: Annotated[
        Path, typer.Option("--store", help="Folder in place of the object store; keeps what may be used again.")
    ] = Path("workspace/simulation"),
) -> None:
    """Rehearse the compiled pipeline on this machine, under the rules of the open-source server."""
    from pipeline.cli.kubeflow_simulate import simulate_command

    if config is not None and spec is not None:
        raise typer.BadParameter("--config and --spec exclude each other")
    simulate_command(config, spec, set_ or [], store)


@app.command()
def submit(
    host: HostOption,
    spec: SpecOption = DEFAULT_SPEC,
    set_: ParameterOption = None,
    experiment: ExperimentOption = "",
    name: NameOption = "",
    service_account: AccountOption = "",
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run; the exit code says how it ended.")] = False,
    timeout: Annotated[float | None, typer.Option("--timeout", min=0, help="Longest wait, in seconds.")] = None,
    namespace: NamespaceOption = "",
    token_file: TokenOption = None,
    in_cluster: InClusterOption = False,
    ca_file: AuthorityOption = None,
    request_timeout: AnswerOption = 30,
) -> None:
    """Start a run on a cluster. With --wait: exit code 0 succeeded, 3 failed, 4 cancelled, 5 not ended in time."""
    from pipeline.cli.kubeflow_server import Request, submit_command
    from pipeline.kubeflow.client import connect
    from pipeline.kubeflow.submit import Patience

    if timeout is not None and not wait:
        raise typer.BadParameter("--timeout goes with --wait")
    server = connect(
        host,
        namespace=namespace,
        token_file=token_file,
        in_cluster=in_cluster,
        ca_file=ca_file,
        timeout=request_timeout,
    )
    request = Request(spec, set_ or [], experiment, name, service_account)
    raise typer.Exit(submit_command(server, request, Patience(limit=timeout) if wait else None))


class Action(enum.StrEnum):
    """What `schedule` does."""

    REPLACE = enum.auto()
    CREATE = enum.auto()
    LIST = enum.auto()
    PAUSE = enum.auto()
    RESUME = enum.auto()
    DELETE = enum.auto()


@app.command()
def schedule(
    host: HostOption,
    action: Annotated[
        Action,
        typer.Argument(help="replace makes it, in the place of one by that name; create refuses if there is one."),
    ] = Action.REPLACE,
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
    from pipeline.cli.kubeflow_server import Request, schedule_command
    from pipeline.kubeflow.client import connect

    server = connect(
        host,
        namespace=namespace,
        token_file=token_file,
        in_cluster=in_cluster,
        ca_file=ca_file,
        timeout=request_timeout,
    )
    schedule_command(server, action.value, Request(spec, set_ or [], experiment, name, service_account), cron)


if __name__ == "__main__":
    answer(app)
