"""The command `simulate` of `kubeflow_runner.py`."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.errors import ProjectError
from pipeline.cli.kubeflow_compile import compile_to, resolved_config
from pipeline.config import load_config
from pipeline.kubeflow.places import on_this_machine
from pipeline.kubeflow.simulation.driver import DEFAULT_ROOT, FAILED, simulate
from pipeline.stages import Stage
from pipeline.workspace import REPORT_FILE

#: Placeholder for the image, which a simulated step does not need.
IMAGE = "simulated"


def simulate_command(config: Path | None, spec: Path | None, settings: Sequence[str], store: Path) -> None:
    """`simulate`: runs a compiled pipeline, or that of a configuration, on this machine."""
    store = store.absolute()
    if spec is None:
        spec = store / ".simulation" / "pipeline.yaml"
        spec.parent.mkdir(parents=True, exist_ok=True)
        compile_to(
            spec,
            resolved_config(config, on_this_machine(load_config(config))),
            image=IMAGE,
            pipeline_root=DEFAULT_ROOT,
            serving=str(store / "serving"),
            checkpoints=str(store / "checkpoints"),
            verbose=False,
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the step in progress ends, too
    console = Console()
    run = simulate(
        spec,
        store=store,
        settings=settings,
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
