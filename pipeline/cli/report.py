"""`report`: writes a run's report again, a comparison of two runs, or the page of all runs."""

from typing import Annotated

import typer
from rich.console import Console

from pipeline.cli.application import DEFAULT_WORKSPACE, VerboseOption, WorkspaceOption, quietly


def report(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Name of the run; else the newest.")] = None,
    compare: Annotated[
        str | None, typer.Option("--compare", metavar="RUN", help="Write a page of the run beside this other one.")
    ] = None,
    index: Annotated[bool, typer.Option("--index", help="Write the page of all runs instead.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    verbose: VerboseOption = False,
) -> None:
    """Write a run's report again, or compare two runs, or list all, and print the path of the page."""
    if index and (run or compare):
        raise typer.BadParameter("--index cannot be combined with RUN or --compare")
    from pipeline.workspace import Workspace

    places = Workspace(workspace.absolute())
    with quietly(verbose):
        if index:
            from pipeline.report.index import write_index

            kind, path = "index", write_index(places)
        else:
            from pipeline.report.compare import write_comparison
            from pipeline.report.page import write_report
            from pipeline.report.runs import read_run_record

            record = read_run_record(places, run)
            if compare is None:
                kind, path = "report", write_report(record)
            else:
                kind, path = "comparison", write_comparison(record, read_run_record(places, compare))
    Console().print(f"{kind:<13} {path}", markup=False, soft_wrap=True)
