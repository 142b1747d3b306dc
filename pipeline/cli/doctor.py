"""`doctor`: checks of the machine and of the workspace, and restoration of damaged metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.errors import ConfigError, ProjectError, WorkspaceError
from pipeline.cli.application import (
    DEFAULT_WORKSPACE,
    ConfigOption,
    SetOption,
    WorkspaceOption,
    metadata_section,
    quietly,
)

if TYPE_CHECKING:
    from pipeline.sections.workspace import MetadataConfig
    from pipeline.workspace import Workspace


def doctor(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    quick: Annotated[bool, typer.Option("--quick", help="Skip checks that take more than a second.")] = False,
    restore: Annotated[
        bool, typer.Option("--restore", help="Restore the newest intact backup of damaged ML Metadata; check nothing.")
    ] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Check this machine, and show how to fix what is wrong."""
    metadata = metadata_section(config or [], set_ or [])
    if restore:
        if quick:
            raise typer.BadParameter("--restore checks nothing, so it cannot be combined with --quick")
        from pipeline.workspace import Workspace

        restore_metadata(Workspace(workspace.absolute()), metadata)
        return
    from pipeline.doctor.checks import run_checks

    console = Console()
    table = Table("check", "", "found", "what to do")
    with quietly():
        findings = run_checks(workspace.absolute(), quick, metadata)
    for finding in findings:
        table.add_row(finding.name, finding.status, escape(finding.detail), escape(finding.remedy))
    console.print(table)
    if failed := [finding.name for finding in findings if finding.status == "fail"]:
        raise ProjectError(f"this machine is not ready: {', '.join(failed)}")


def restore_metadata(workspace: Workspace, metadata: MetadataConfig | None) -> None:
    """Restores the newest intact backup of the metadata in a workspace.

    Args:
        workspace: The workspace whose metadata are damaged or lost.
        metadata: Where ML Metadata is stored; None for the workspace.

    Raises:
        ConfigError: ML Metadata is stored on a server.
        WorkspaceError: The workspace does not exist, its metadata are intact, or there is no intact backup.
    """
    from pipeline.metadata.backup import restore

    if metadata and metadata.backend == "mysql":
        raise ConfigError(
            "metadata.backend is 'mysql': doctor --restore restores SQLite metadata, which are in the workspace; "
            f"restore database {metadata.database} at {metadata.host}:{metadata.port} from the server's own backups"
        )
    if not workspace.root.is_dir():
        raise WorkspaceError(f"{workspace.root}: no such workspace")
    with workspace.locked():
        backup, damaged = restore(workspace)
    console = Console(soft_wrap=True)
    console.print(f"restored {workspace.metadata} from {backup}", markup=False)
    if damaged:
        console.print(f"the damaged database is kept as {damaged}", markup=False)
    console.print("runs since that backup are not on record; their results are not in the cache")
