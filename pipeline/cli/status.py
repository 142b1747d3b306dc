"""`status`: the last runs, and the versions being served."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline.cli.application import DEFAULT_WORKSPACE, JsonOption, WorkspaceOption, quietly


def status(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    last: Annotated[int, typer.Option("--last", min=1, help="Number of runs shown.")] = 10,
    json_: JsonOption = False,
) -> None:
    """Show the last runs and what is being served."""
    from pipeline.workspace import Workspace

    console = Console()
    with quietly():
        from pipeline.records.status import read_status

        found = read_status(Workspace(workspace.absolute()), last)
    if json_:
        console.print_json(found.model_dump_json())
        return
    table = Table("run", "status", "mean IoU", "blessed", "pushed", "seconds", title=str(workspace))
    for run in found.runs:
        score = f"{run.mean_iou:.4f}" if run.mean_iou is not None else ""
        blessed = {True: "yes", False: "no", None: ""}[run.blessed]
        pushed = f"version {run.pushed_version}" if run.pushed_version is not None else ""
        table.add_row(run.run_id, run.status, score, blessed, pushed, f"{run.seconds:.0f}")
    console.print(table)
    for name, versions in found.serving.items():
        console.print(f"model {name}: serves version {versions[-1]}; kept: {', '.join(map(str, versions))}")
    for error in found.damaged:
        console.print(error, markup=False, soft_wrap=True)
    if found.running:
        console.print(f"running now: {found.running}")
