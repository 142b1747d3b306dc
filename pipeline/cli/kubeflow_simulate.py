"""`simulate`: a compiled pipeline, or the one of a configuration, rehearsed on this machine."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.errors import ProjectError
from pipeline.cli.application import ConfigOption, quietly
from pipeline.cli.kubeflow_compile import compile_to, resolved_config
from pipeline.cli.kubeflow_server import ParameterOption
from pipeline.stages import Stage

#: Stands for the image, which no step needs here.
IMAGE = "simulated"


def simulate(
    config: ConfigOption = None,
    spec: Annotated[Path | None, typer.Option("--spec", help="Compiled pipeline, instead of --config.")] = None,
    set_: ParameterOption = None,
    store: Annotated[
        Path, typer.Option("--store", help="Folder in place of the object store; keeps what can be reused.")
    ] = Path("workspace/simulation"),
) -> None:
    """Rehearse the compiled pipeline on this machine, under the rules of the open-source server."""
    if config and spec is not None:
        raise typer.BadParameter("--config and --spec exclude each other")
    from pipeline.kubeflow.simulation.driver import DEFAULT_ROOT, FAILED
    from pipeline.kubeflow.simulation.driver import simulate as simulate_run
    from pipeline.workspace import REPORT_FILE, check_artifact_path

    store = store.absolute()
    check_artifact_path("--store", str(store))
    if spec is None:
        from pipeline.config import load_config

        read = load_config(config or [])
        with quietly():
            from pipeline.kubeflow.compiler import absolute_paths
        spec = store / ".simulation" / "pipeline.yaml"
        spec.parent.mkdir(parents=True, exist_ok=True)
        compile_to(
            spec,
            resolved_config(config or [], absolute_paths(read)),
            image=IMAGE,
            pipeline_root=DEFAULT_ROOT,
            serving=str(store / "serving"),
            checkpoints=str(store / "checkpoints"),
            verbose=False,
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the running step ends, too
    console = Console()
    run = simulate_run(
        spec,
        store=store,
        settings=set_ or [],
        on_step=lambda step: console.print(f"{step.name}: {step.state}", style="dim"),
    )
    table = Table("step", "state", "attempts", "seconds", "why")
    for step in run.steps:
        table.add_row(step.name, step.state, str(step.attempts or ""), f"{step.seconds:.1f}", escape(step.reason))
    console.print(table)
    console.print(f"logs: {run.logs}", markup=False, highlight=False, soft_wrap=True)
    if Stage.RUN_REPORTER in run.outputs:
        page = run.store.path(run.outputs[Stage.RUN_REPORTER].artifacts["record"]["uri"]) / REPORT_FILE
        console.print(f"report: {page}", markup=False, highlight=False, soft_wrap=True)
    if not run.succeeded:
        raise ProjectError(f"the run failed: {', '.join(s.name for s in run.steps if s.state == FAILED)}")
