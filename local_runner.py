"""The command line for this machine: look at data, run the pipeline, use and inspect what it made.

TensorFlow and TFX take many seconds to import, so each command imports what it needs when it runs.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.application import answer, application

app = application("Train, judge and publish DeepLabV3+ models from labelled images.")

WorkspaceOption = Annotated[Path, typer.Option("--workspace", help="Folder that holds metadata, artifacts, models.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML file of differences from the defaults.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, as section.key.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Show what the libraries print.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Name of the model, where several are pushed.")]
ServingOption = Annotated[
    str | None,
    typer.Option(
        "--serving", metavar="DIR", help="Holds <model>/<version>: a folder, gs:// or s3://; else the workspace's."
    ),
]

DEFAULT_WORKSPACE = Path("workspace")


@app.command()
def run(
    config: ConfigOption = None,
    set_: SetOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    from_: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="First stage to run.")] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="STAGE", help="Last stage to run.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run and why; run nothing.")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Run the pipeline: from labelled images to a published model."""
    from pipeline.cli.local import run_command

    run_command(config, set_ or [], workspace, (from_, to), dry_run=dry_run, verbose=verbose)


@app.command()
def demo(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE, set_: SetOption = None, verbose: VerboseOption = False
) -> None:
    """Write the sample dataset and run the whole pipeline on it."""
    from pipeline.cli.local import demo_command

    demo_command(workspace, set_ or [], verbose=verbose)


@app.command()
def inspect(
    data: Annotated[str, typer.Argument(metavar="DIR", help="Folder with images and masks.")],
    layout: Annotated[str, typer.Option("--layout", help="Name of the layout; auto recognises it.")] = "auto",
    config: ConfigOption = None,
    write_config: Annotated[
        Path | None, typer.Option("--write-config", help="Write a configuration with the label map to this file.")
    ] = None,
    page: Annotated[Path, typer.Option("--page", help="Where the page with pictures goes.")] = Path("inspection.html"),
    limit: Annotated[int, typer.Option("--limit", min=1, help="Images whose pixels are read.")] = 500,
) -> None:
    """Look at a dataset before training on it."""
    from pipeline.cli.local import inspect_command

    inspect_command(data, layout, config, write_config, page, limit)


@app.command()
def predict(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...", help="Pictures, videos, folders of pictures, quoted patterns; also s3://, gs://."
        ),
    ],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder or URI for masks and overlays.")],
    probability: Annotated[
        bool, typer.Option("--probability", help="Write how probable each pixel's class is, too.")
    ] = False,
    max_pixels: Annotated[
        int, typer.Option("--max-pixels", min=1, help="Pictures with more are set aside.")
    ] = 25_000_000,
    every: Annotated[int, typer.Option("--every", min=1, metavar="N", help="Every N-th frame of a video.")] = 1,
    overlay_video: Annotated[
        bool, typer.Option("--overlay-video", help="Join the overlays of a video's frames to a video, too.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on with pictures that come later.")] = False,
    beam: Annotated[
        bool, typer.Option("--beam", help="Share the work as section beam of the configuration says: no videos.")
    ] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
    model: ModelOption = None,
    serving: ServingOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    verbose: VerboseOption = False,
) -> None:
    """Segment pictures with the pushed model; what was done before is not done again."""
    from pipeline.cli.predict import Request, predict_command, predict_on_beam_command

    request = Request(images, out, probability, max_pixels, every, overlay_video)
    root = serving_root(serving, workspace)
    if watch and (beam or overlay_video):
        raise typer.BadParameter("--watch goes neither with --beam nor with --overlay-video")
    if beam:
        predict_on_beam_command(request, root, model, (config, set_ or []), verbose=verbose)
        return
    if config or set_:
        raise typer.BadParameter("--config and --set go with --beam, whose workers they name")
    predict_command(request, root, model, watch=watch, verbose=verbose)


@app.command()
def status(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    last: Annotated[int, typer.Option("--last", min=1, help="Number of runs shown.")] = 10,
    json_: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Show the last runs and what is being served."""
    from pipeline.cli.local import status_command

    status_command(workspace, last, as_json=json_)


@app.command()
def report(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Name of the run; else the newest.")] = None,
    compare: Annotated[
        str | None, typer.Option("--compare", metavar="RUN", help="Write a page of the run beside this other one.")
    ] = None,
    index: Annotated[bool, typer.Option("--index", help="Write the page of all runs instead.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    verbose: VerboseOption = False,
) -> None:
    """Write a run's report again, or compare two runs, or list all, and say where the page is."""
    from pipeline.cli.local import index_command, report_command

    if index:
        if run or compare:
            raise typer.BadParameter("--index is of all runs; give no RUN and no --compare")
        index_command(workspace, verbose=verbose)
        return
    report_command(run, compare, workspace, verbose=verbose)


@app.command()
def lineage(
    version: Annotated[int | None, typer.Argument(metavar="VERSION", help="A version that was pushed.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FILE", help="Say which versions came from this image instead.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Name of the model, where several are pushed.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
    set_: SetOption = None,
    json_: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Show what stands behind a pushed version: data, code, hyperparameters, judgement."""
    from pipeline.cli.local import lineage_command

    given = [value for value in (version, data) if value is not None]
    if len(given) != 1:
        raise typer.BadParameter("give a VERSION, or --data FILE")
    lineage_command(given[0], model, workspace, config, set_ or [], as_json=json_)


@app.command()
def rollback(
    to: Annotated[
        int | None, typer.Option("--to", metavar="VERSION", help="What comes back; else the newest other model.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; goes on record.")] = "",
    model: ModelOption = None,
    serving: ServingOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Serve an earlier version again; the one served now is not pushed again by itself."""
    from pipeline.rollback import rollback_command

    rollback_command(serving_root(serving, workspace), model, to, reason)


@app.command()
def readmit(
    version: Annotated[int, typer.Argument(metavar="VERSION", help="A version that was rolled back.")],
    model: ModelOption = None,
    serving: ServingOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Let a model that was rolled back be pushed again."""
    from pipeline.rollback import readmit_command

    readmit_command(serving_root(serving, workspace), model, version)


@app.command()
def pin(
    version: Annotated[int, typer.Argument(metavar="VERSION", help="A version in the serving directory.")],
    model: ModelOption = None,
    serving: ServingOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Keep a version, and what stands behind it, whatever push.keep and section retention say."""
    from pipeline.rollback import pin_command

    pin_command(serving_root(serving, workspace), model, version)


@app.command()
def unpin(
    version: Annotated[int, typer.Argument(metavar="VERSION", help="A version that was pinned.")],
    model: ModelOption = None,
    serving: ServingOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Let a pinned version be removed when its time has come."""
    from pipeline.rollback import unpin_command

    unpin_command(serving_root(serving, workspace), model, version)


def serving_root(serving: str | None, workspace: Path) -> str:
    """Where the versions are: as told, or in the workspace."""
    from pipeline.workspace import Workspace

    return serving or str(Workspace(workspace.absolute()).serving)


@app.command()
def beam_workers(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen at.")] = 50000,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at; whoever reaches it can run code.")
    ] = "127.0.0.1",
) -> None:
    """Start Beam workers as a job server asks for them; runs until it is interrupted."""
    from pipeline.cli.local import beam_workers_command

    beam_workers_command(host, port)


@app.command()
def serve(
    model: ModelOption = None,
    serving: ServingOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen at; 0 takes a free one.")
    ] = 8501,
    token_env: Annotated[
        str | None,
        typer.Option("--token-env", metavar="NAME", help="Environment variable with the token that clients must send."),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Answer requests with the pushed model, and with every later one, until it is stopped."""
    from pipeline.cli.serve import serve_command

    serve_command(serving_root(serving, workspace), model, (host, port), token_env, (config, set_ or []))


@app.command()
def schedule(
    cron: Annotated[str | None, typer.Option("--cron", metavar="EXPR", help="When to run, as '0 3 * * *'.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Run whenever there are new data.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Run once, now: for a cron that is there already.")] = False,
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
    """Run the pipeline again and again: by the clock, on new data, or both."""
    from pipeline.cli.schedule import schedule_command, schedule_status_command
    from pipeline.schedule.scheduler import Request

    if status_:
        schedule_status_command(workspace, last, as_json=json_)
        return
    if once == bool(cron or watch):
        raise typer.BadParameter("give --cron, --watch or both; or --once alone")
    settings = [part for setting in set_ or [] for part in ("--set", setting)]
    configured = ["--config", str(config)] if config else []
    program = [sys.executable, __file__, "run", *configured, *settings, "--workspace", str(workspace)]
    secret = os.environ.get("DEEPLAB_WEBHOOK_SECRET", "")
    request = Request(program, cron, watch, webhook_url, secret, metrics_host, metrics_port)
    sys.exit(schedule_command(request, config, set_ or [], workspace))


@app.command()
def doctor(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out what takes more than a second.")] = False,
    restore: Annotated[
        bool, typer.Option("--restore", help="Put the newest good backup of damaged ML Metadata back; check nothing.")
    ] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Check this machine, and say what to do about what is wrong."""
    from pipeline.cli.local import doctor_command

    if restore:
        from pipeline.metadata.backup import restore_command

        restore_command(workspace)
        return

    doctor_command(workspace, config, set_ or [], quick=quick)


@app.command()
def schema(
    out: Annotated[Path, typer.Option("--out", help="File to write.")] = Path("config.schema.json"),
) -> None:
    """Write a JSON schema of the configuration, for editors."""
    from pipeline.cli.local import schema_command

    schema_command(out)


if __name__ == "__main__":
    answer(app)
