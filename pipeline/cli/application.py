"""What the command lines have in common. Imports nothing heavy: `--help` answers at once."""

import sys

import typer

from data.errors import ProjectError, exit_status, explain


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
