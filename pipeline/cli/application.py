"""What the command lines have in common: options, errors, and quiet libraries.

Nothing heavy is imported here or at the top of any command, so that `--help` answers at once: TensorFlow and TFX take
many seconds, and a command imports what it needs when it runs.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data.console import capture_output
from data.errors import ProjectError, exit_status, explain

if TYPE_CHECKING:
    from pipeline.sections.workspace import MetadataConfig

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
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable.")]

DEFAULT_WORKSPACE = Path("workspace")


def application(description: str) -> typer.Typer:
    """An empty command line; `description` heads its `--help`."""
    return typer.Typer(
        help=description,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        add_completion=False,
    )


def answer(app: typer.Typer) -> None:
    """Runs the command line: errors that a person can act on end in one message, without a stack trace.

    Exit codes besides 0: 1 for an error that stays, `data.errors.TEMPORARY` for one that a later try may not meet,
    130 when interrupted.
    """
    try:
        app()
    except (ProjectError, OSError) as error:
        if not (explanation := explain(error)):
            raise
        typer.echo(f"error: {explanation}", err=True)
        sys.exit(exit_status(error))
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)


@contextmanager
def quietly(verbose: bool = False) -> Iterator[None]:
    """Hides what libraries print while they are imported and used, unless a person wants to see it."""
    if verbose:
        yield
        return
    with capture_output(None):
        yield


def serving_root(serving: str | None, workspace: Path) -> str:
    """Where the versions are: as told, or in the workspace."""
    from pipeline.workspace import Workspace

    return serving or str(Workspace(workspace.absolute()).serving)


def metadata_section(config: Path | None, overrides: Sequence[str]) -> "MetadataConfig | None":
    """Section `metadata` of what a command was given; None if it was given nothing."""
    if not config and not overrides:
        return None
    from pipeline.config import load_section
    from pipeline.sections.workspace import MetadataConfig

    return load_section(config, overrides, MetadataConfig)
