"""`run` and `demo`: the pipeline, from labelled images to a published model."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.console import terminal
from pipeline.cli.application import (
    DEFAULT_WORKSPACE,
    ConfigOption,
    SetOption,
    VerboseOption,
    WorkspaceOption,
    quietly,
)

if TYPE_CHECKING:
    from pipeline.records.summary import RunSummary

DEMO_CONFIG = Path(__file__).parents[1] / "configs" / "demo.yaml"


def run(
    config: ConfigOption = None,
    set_: SetOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    from_: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="First stage to run.")] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="STAGE", help="Last stage to run.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run and why; run nothing.")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Run the pipeline: from labelled images to a published model."""
    from components.storage.file_systems import file_system
    from pipeline.config import load_config, resolve
    from pipeline.metadata.lease import run_lease
    from pipeline.workspace import Workspace, check_artifact_path

    places = Workspace(workspace.absolute())
    check_artifact_path("--workspace", str(places.root))
    loaded = load_config(config or [], set_ or [])
    resolved = resolve(loaded, file_system(loaded.data.path))
    if dry_run:
        with quietly(verbose):
            from pipeline.dry_run import plan

            planned = plan(resolved, places)
        planned.show(Console())
        return
    resolved.beam.require_servers()
    # SIGTERM from a service manager has the effect of Ctrl-C: lock and lease are released, and the status shows it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with places.locked(), run_lease(resolved.metadata, resolved.name), quietly(verbose):
        from pipeline.local import StageRange
        from pipeline.run import run as run_once

        console = terminal()
        summary, folder = run_once(
            resolved,
            places,
            StageRange(from_, to),
            verbose,
            lambda stage: console.print(f"[bold]{escape(stage)}[/bold]"),
        )
    show_summary(summary, folder, Console())


def demo(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE, set_: SetOption = None, verbose: VerboseOption = False
) -> None:
    """Write the sample dataset and run the whole pipeline on it."""
    from rich.progress import Progress

    from data.synthetic import write_dataset
    from pipeline.workspace import check_artifact_path

    check_artifact_path("--workspace", str(workspace.absolute()))
    sample = workspace.absolute() / "sample"
    with Progress(console=terminal(), transient=True) as bar:
        task = bar.add_task("writing the sample dataset", total=None)
        write_dataset(sample, progress=lambda done, total: bar.update(task, completed=done, total=total))
    run([DEMO_CONFIG], [f"data.path={sample}", *(set_ or [])], workspace, verbose=verbose)


def show_summary(summary: RunSummary, folder: Path, console: Console) -> None:
    """Prints timings, scores, the verdict, and where the outputs are."""
    table = Table("stage", "seconds", "")
    for stage, seconds in summary.timings.items():
        table.add_row(stage, f"{seconds:.1f}", "cached" if stage in summary.cached else "")
    console.print(table)
    if summary.data:
        images = ", ".join(f"{count} {split}" for split, count in summary.data.images.items())
        console.print(f"images        {images}; {summary.data.quarantined} quarantined")
        for finding in summary.data.degenerate:
            console.print(f"warning       {finding}", markup=False)
    if summary.model and summary.model.started_from is not None:
        console.print(f"started from  served version {summary.model.started_from}")
    if summary.metrics:
        interval = summary.metrics.mean_iou_interval
        between = f" (confidence interval {interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
        console.print(f"mean IoU      {summary.metrics.mean_iou:.4f} on the test split{between}")
        if summary.metrics.constant_mean_iou is not None:
            always = f"{summary.metrics.constant_mean_iou:.4f} if class {summary.metrics.constant_class} were predicted"
            console.print(f"              {always} everywhere", markup=False)
    if summary.blessed is not None:
        console.print(f"blessed       {'yes' if summary.blessed else 'no'}")
    for reason in summary.reasons:
        console.print(f"              {reason}", markup=False)
    for model in summary.lite.models if summary.lite else []:
        time = f", {model.milliseconds:g} ms an image" if model.milliseconds is not None else ""
        console.print(f"LiteRT        {model.variant}: {model.reason}{time}", markup=False)
    for module in summary.hub.models if summary.hub else []:
        console.print(f"TF Hub        {module.module}: {module.reason}", markup=False)
    if summary.pushed_path:
        console.print(f"pushed        version {summary.pushed_version}: {summary.pushed_path}", markup=False)
    console.print(f"report        {folder / 'report.html'}", markup=False)
    console.print(f"summary       {folder / 'summary.json'}", markup=False)
