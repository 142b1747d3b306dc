"""What the commands of `local_runner.py` do and print.

Importing this module must stay cheap. What imports TensorFlow or TFX is imported inside the functions, under `quietly`.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from data.console import terminal
from data.errors import ProjectError
from pipeline.capture_output import output_to
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.config import MetadataConfig
    from pipeline.records.summary import MetricsSummary, Summary

DEMO_CONFIG = Path(__file__).parents[1] / "configs" / "demo.yaml"


@contextmanager
def quietly(verbose: bool) -> Iterator[None]:
    """Hides what libraries print while they are imported and used."""
    if verbose:
        yield
        return
    with output_to(None):
        yield


def run_command(
    config_path: Path | None,
    overrides: Sequence[str],
    workspace: Path,
    stages: tuple[str | None, str | None],
    *,
    dry_run: bool,
    verbose: bool,
) -> None:
    """`run`: one run of the pipeline, or a look at what it would do."""
    from components.storage.file_systems import file_system
    from pipeline.config import load_config, resolve
    from pipeline.metadata.lease import run_lease

    places = Workspace(workspace.absolute())
    config = load_config(config_path, overrides)
    config = resolve(config, file_system(config.data.path))
    if dry_run:
        with quietly(verbose):
            from pipeline.dry_run import plan

            planned = plan(config, places)
        planned.show(Console())
        return
    config.beam.require_servers()
    # A service manager ends a run as Ctrl-C does: the lock and the lease are given free, the exit status says so.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with places.locked(), run_lease(config.metadata, config.name), quietly(verbose):
        from pipeline.local import StageRange
        from pipeline.run import run

        console = terminal()
        summary, folder = run(config, places, StageRange(*stages), verbose, lambda stage: show_stage(console, stage))
    show_summary(summary, folder, Console())


def demo_command(workspace: Path, overrides: Sequence[str], *, verbose: bool) -> None:
    """`demo`: the sample dataset, then the pipeline on it."""
    from data.synthetic import write_dataset

    console = terminal()
    sample = workspace.absolute() / "sample"
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("writing the sample dataset", total=None)
        write_dataset(sample, progress=lambda done, total: bar.update(task, completed=done, total=total))
    run_command(
        DEMO_CONFIG, [f"data.path={sample}", *overrides], workspace, (None, None), dry_run=False, verbose=verbose
    )


def status_command(workspace: Path, last: int, *, as_json: bool) -> None:
    """`status`: the last runs, and what is being served."""
    console = Console()
    with quietly(verbose=False):
        from pipeline.records.status import read_status

        status = read_status(Workspace(workspace.absolute()), last)
    if as_json:
        console.print_json(status.model_dump_json())
        return
    table = Table("run", "status", "mean IoU", "blessed", "pushed", "seconds", title=str(workspace))
    for run in status.runs:
        score = f"{run.mean_iou:.4f}" if run.mean_iou is not None else ""
        blessed = {True: "yes", False: "no", None: ""}[run.blessed]
        pushed = f"version {run.pushed_version}" if run.pushed_version is not None else ""
        table.add_row(run.run_id, run.status, score, blessed, pushed, f"{run.seconds:.0f}")
    console.print(table)
    for name, versions in status.serving.items():
        console.print(f"model {name}: serves version {versions[-1]}; kept: {', '.join(map(str, versions))}")
    for error in status.damaged:
        console.print(error, markup=False, soft_wrap=True)
    if status.running:
        console.print(f"running now: {status.running}")


def lineage_command(
    of: int | Path,
    model: str | None,
    workspace: Path,
    config_path: Path | None,
    overrides: Sequence[str],
    *,
    as_json: bool,
) -> None:
    """`lineage`: what stands behind a version, or which versions came from a file."""
    places = Workspace(workspace.absolute())
    with quietly(verbose=False):
        from pipeline.metadata.data_lineage import file_uses, with_restored
        from pipeline.metadata.lineage import find_push, lineage, pushes, restoration
        from pipeline.metadata.lineage_tree import lineage_tree, uses_tree
        from pipeline.metadata.store import existing_store, recorded_config
        from pipeline.rollback import restored_version

        store = existing_store(places, metadata_section(config_path, overrides) or recorded_config(places))
        if isinstance(of, Path):
            uses = with_restored(file_uses(store, of), places.serving)
            text, tree = uses.model_dump_json(), uses_tree(uses)
        else:
            again = restored_version(places.serving, model, of)
            pushed = again.record.first_version if again else of
            found = lineage(store, find_push(pushes(store), pushed, model, places.serving))
            found = found.model_copy(update={"restoration": restoration(again) if again else None})
            text, tree = found.model_dump_json(), lineage_tree(found)
    Console().print_json(text) if as_json else Console().print(tree)


def metadata_section(config_path: Path | None, overrides: Sequence[str]) -> MetadataConfig | None:
    """Section `metadata` of what a command was given; None if it was given nothing."""
    if not config_path and not overrides:
        return None
    from pipeline.config import MetadataConfig, load_section

    return load_section(config_path, overrides, MetadataConfig)


def report_command(run: str | None, compare: str | None, workspace: Path, *, verbose: bool) -> None:
    """`report`: a run's report, written again, or its page beside another run."""
    places = Workspace(workspace.absolute())
    with quietly(verbose):
        from pipeline.report.compare import write_comparison
        from pipeline.report.page import read_record, write_report

        record = read_record(places, run)
        path = write_report(record) if compare is None else write_comparison(record, read_record(places, compare))
    Console().print(f"{'comparison' if compare else 'report':<13} {path}", markup=False, soft_wrap=True)


def index_command(workspace: Path, *, verbose: bool) -> None:
    """`report --index`: the page of all runs."""
    with quietly(verbose):
        from pipeline.report.index import write_index

        path = write_index(Workspace(workspace.absolute()))
    Console().print(f"index         {path}", markup=False, soft_wrap=True)


def inspect_command(
    data: str, layout: str, config_file: Path | None, write_to: Path | None, page: Path, limit: int
) -> None:
    """`inspect`: what a dataset looks like, and a configuration to start from."""
    from components.storage.file_systems import file_system
    from data.dataset import DataConfig
    from pipeline.config import load_section

    # One folder, even where the configuration takes the data from many.
    settings = [f"data.path={json.dumps(data)}", "data.spans={}", "data.evaluation=fixed"]
    settings += [] if layout == "auto" else [f"data.layout={layout}"]
    config = load_section(config_file, settings, DataConfig)
    with quietly(verbose=False):
        from pipeline.inspection.config_writer import write_config
        from pipeline.inspection.console import show_inspection
        from pipeline.inspection.dataset import inspect_dataset

        with Progress(console=terminal(), transient=True) as bar:
            task = bar.add_task("looking at images", total=None)
            found = inspect_dataset(
                config,
                file_system(config.path),
                limit=limit,
                out=page,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    console = Console()
    show_inspection(found, console)
    console.print(f"page with pictures: {page}", markup=False)
    if write_to:
        write_config(found, write_to)
        console.print(f"configuration: {write_to}", markup=False)
    found.require_label_map(written=write_to is not None)


def doctor_command(workspace: Path, config_path: Path | None, overrides: Sequence[str], *, quick: bool) -> None:
    """`doctor`: checks of the machine; a failed one makes the command fail."""
    from pipeline.doctor.examination import has_failures, run_checks

    console = Console()
    table = Table("check", "", "found", "what to do")
    metadata = metadata_section(config_path, overrides)
    with quietly(verbose=False):
        checks = run_checks(workspace.absolute(), quick, metadata)
    for check in checks:
        table.add_row(check.name, check.status, escape(check.detail), escape(check.remedy))
    console.print(table)
    if has_failures(checks):
        failed = ", ".join(check.name for check in checks if check.status == "fail")
        raise ProjectError(f"this machine is not ready: {failed}")


def beam_workers_command(host: str, port: int) -> None:
    """`beam-workers`: a pool of Beam workers, until it is interrupted."""
    from components.beam_workers import WorkerPool

    pool = WorkerPool(host, port)
    Console().print(f"Beam workers start at {pool.address}; Ctrl-C ends", markup=False)
    with suppress(KeyboardInterrupt):
        pool.wait()


def schema_command(out: Path) -> None:
    """`schema`: the JSON schema of the configuration."""
    with quietly(verbose=False):
        from pipeline.config import Config

    out.write_text(json.dumps(Config.model_json_schema(), indent=2) + "\n", encoding="utf-8")
    Console().print(f"wrote {out}; in an editor: # yaml-language-server: $schema={out}")


def show_stage(console: Console, stage: str) -> None:
    """One line as a stage begins."""
    console.print(f"[bold]{escape(stage)}[/bold]")


def _interval(metrics: MetricsSummary) -> str:
    if metrics.mean_iou_interval is None:
        return ""
    lower, upper = metrics.mean_iou_interval
    return f" (confidence interval {lower:.4f} to {upper:.4f})"


def show_summary(summary: Summary, folder: Path, console: Console) -> None:
    """Timings, scores, verdict, and where everything is."""
    table = Table("stage", "seconds", "")
    for stage, seconds in summary.timings.items():
        table.add_row(stage, f"{seconds:.1f}", "cached" if stage in summary.cached else "")
    console.print(table)
    if summary.data:
        images = ", ".join(f"{count} {split}" for split, count in summary.data.images.items())
        console.print(f"images        {images}; {summary.data.quarantined} set aside")
    if summary.model and summary.model.started_from is not None:
        console.print(f"started from  served version {summary.model.started_from}")
    if summary.metrics:
        console.print(f"mean IoU      {summary.metrics.mean_iou:.4f} on the test split{_interval(summary.metrics)}")
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
