"""`doctor`: checks of the machine and of the workspace, and the way back from damaged metadata."""

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.errors import ProjectError
from pipeline.cli.application import (
    DEFAULT_WORKSPACE,
    ConfigOption,
    SetOption,
    WorkspaceOption,
    metadata_section,
    quietly,
)


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
    if restore:
        from pipeline.metadata.backup import restore_command

        restore_command(workspace)
        return
    from pipeline.doctor.examination import has_failures, run_checks

    console = Console()
    table = Table("check", "", "found", "what to do")
    metadata = metadata_section(config, set_ or [])
    with quietly():
        checks = run_checks(workspace.absolute(), quick, metadata)
    for check in checks:
        table.add_row(check.name, check.status, escape(check.detail), escape(check.remedy))
    console.print(table)
    if has_failures(checks):
        failed = ", ".join(check.name for check in checks if check.status == "fail")
        raise ProjectError(f"this machine is not ready: {failed}")
