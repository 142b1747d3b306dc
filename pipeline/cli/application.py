"""What the command lines have in common. Imports nothing heavy: `--help` answers at once."""

import errno
import sys

import typer

from data.errors import TEMPORARY, ProjectError

#: Of the disk and its owner, no fault of the program: what may pass, and what stays.
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
_STAYING = {errno.EROFS, errno.EACCES, errno.EPERM}


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
    except ProjectError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(TEMPORARY if error.transient else 1)
    except OSError as error:
        if error.errno not in _PASSING | _STAYING:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        typer.echo(f"error: {where}{error.strerror}", err=True)
        sys.exit(TEMPORARY if error.errno in _PASSING else 1)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
