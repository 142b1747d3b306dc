"""The command line for this machine: look at data, run the pipeline, use and inspect what it made.

TensorFlow and TFX take many seconds to import, so each command imports what it needs when it runs.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from data.errors import ProjectError

app = typer.Typer(
    help="Train, judge and publish DeepLabV3+ models from labelled images.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)

WorkspaceOption = Annotated[Path, typer.Option("--workspace", help="Folder that holds metadata, artifacts, models.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="YAML file of differences from the defaults.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, as section.key.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Show what the libraries print.")]

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
    from pipeline.commands import run_command

    run_command(config, set_ or [], workspace, (from_, to), dry_run=dry_run, verbose=verbose)


@app.command()
def demo(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE, set_: SetOption = None, verbose: VerboseOption = False
) -> None:
    """Write the sample dataset and run the whole pipeline on it."""
    from pipeline.commands import demo_command

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
    from pipeline.commands import inspect_command

    inspect_command(data, layout, config, write_config, page, limit)


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures of any size.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for masks and overlays.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    model: Annotated[str | None, typer.Option("--model", help="Name of the model, where several are pushed.")] = None,
    verbose: VerboseOption = False,
) -> None:
    """Segment pictures with the pushed model."""
    from pipeline.commands import predict_command

    predict_command(images, out, workspace, model, verbose=verbose)


@app.command()
def status(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    last: Annotated[int, typer.Option("--last", min=1, help="Number of runs shown.")] = 10,
    json_: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Show the last runs and what is being served."""
    from pipeline.commands import status_command

    status_command(workspace, last, as_json=json_)


@app.command()
def report(workspace: WorkspaceOption = DEFAULT_WORKSPACE, verbose: VerboseOption = False) -> None:
    """Write the newest run's report again and say where it is."""
    from pipeline.commands import report_command

    report_command(workspace, verbose=verbose)


@app.command()
def doctor(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out what takes more than a second.")] = False,
) -> None:
    """Check this machine, and say what to do about what is wrong."""
    from pipeline.commands import doctor_command

    doctor_command(workspace, quick=quick)


@app.command()
def schema(
    out: Annotated[Path, typer.Option("--out", help="File to write.")] = Path("config.schema.json"),
) -> None:
    """Write a JSON schema of the configuration, for editors."""
    from pipeline.commands import schema_command

    schema_command(out)


def main() -> None:
    """Entry point: errors that a person can act on end in one message, without a stack trace."""
    try:
        app()
    except ProjectError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
