"""The common parts of the command lines: options, error handling, and silencing of libraries.

Nothing slow is imported here or at the top of any command, so that `--help` responds immediately: TensorFlow and TFX
take many seconds to import, so a command imports them when it runs.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data.console import capture_output
from data.errors import ProjectError, exit_status, explain

if TYPE_CHECKING:
    from pipeline.sections.workspace import MetadataConfig

WorkspaceOption = Annotated[Path, typer.Option("--workspace", help="Folder of metadata, artifacts and models.")]
ConfigOption = Annotated[
    list[Path] | None,
    typer.Option("--config", help="YAML file of differences from the defaults; of several the later ones win."),
]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, as section.key.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Show what the libraries print.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Name of the model, where several are pushed.")]
ServingOption = Annotated[
    str | None,
    typer.Option(
        "--serving", metavar="DIR", help="Folder of <model>/<version>: local, gs:// or s3://; else the workspace's."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable.")]

DEFAULT_WORKSPACE = Path("workspace")


def application(description: str) -> typer.Typer:
    """An empty command line; `description` is the heading of its `--help`."""
    return typer.Typer(
        help=description,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        add_completion=False,
    )


def answer(app: typer.Typer) -> None:
    """Runs the command line: an error that the user can act on is printed as one message, without a stack trace.

    Exit codes besides 0: 1 for a lasting error, `data.errors.TEMPORARY` for a transient one, 130 when interrupted.
    """
    try:
        with home():
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
def home() -> Iterator[None]:
    """Gives libraries an empty home folder for a time where the user has none, as in a container under any user number.

    They would else put their settings and caches into a folder called `~`.
    """
    if os.path.isabs(os.path.expanduser("~")):
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HOME"] = folder
        yield


@contextmanager
def quietly(verbose: bool = False) -> Iterator[None]:
    """Hides the output of libraries while they are imported and used, unless the user asks for it."""
    if verbose:
        yield
        return
    with capture_output(None):
        yield


def serving_root(serving: str | None, workspace: Path) -> str:
    """The folder of the served versions: the given one, or that of the workspace."""
    from pipeline.workspace import Workspace

    return serving or str(Workspace(workspace.absolute()).serving)


def metadata_section(config: Sequence[Path], overrides: Sequence[str]) -> "MetadataConfig | None":
    """Section `metadata` of the configuration that a command was given; None if it was given none."""
    if not config and not overrides:
        return None
    from pipeline.config import load_section
    from pipeline.sections.workspace import MetadataConfig

    return load_section(config, overrides, MetadataConfig)
