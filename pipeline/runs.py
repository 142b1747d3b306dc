"""One local run from beginning to end: lock, stages, record."""

import traceback
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

from components.trainer import TENSORBOARD
from data.errors import ProjectError
from pipeline.config import Config
from pipeline.judgement import summarize
from pipeline.local import Span, compile_pipeline, metadata_config, run_options, run_pipeline, stage_names
from pipeline.quiet import output_to
from pipeline.records import StageRecord, read_run
from pipeline.report.page import TRIALS, write_report
from pipeline.summary import SUMMARY_FILE, Summary
from pipeline.workspace import Workspace

LOG_FILE = "log.txt"
CONFIG_FILE = "config.json"


class RunFailed(ProjectError):
    """A run ended with an error; its record and log are in its folder."""

    def __init__(self, message: str, folder: Path):
        super().__init__(message)
        self.folder = folder


def new_run_id(now: datetime) -> str:
    """A name that sorts by time."""
    return now.strftime("%Y%m%d-%H%M%S-%f")[:-3]


def run(
    config: Config, workspace: Workspace, span: Span, verbose: bool, on_stage: Callable[[str], None]
) -> tuple[Summary, Path]:
    """Runs the pipeline once.

    Args:
        config: Resolved (`pipeline.config.resolve`).
        workspace: The caller holds its lock.
        span: Which stages run.
        verbose: Leave what libraries print on the terminal instead of leading it into the log.
        on_stage: Told the name of each stage as it begins.

    Returns:
        The summary, and the run's folder.

    Raises:
        ConfigError: There is no such stage.
        RunFailed: A stage failed; what it could do is recorded all the same.
    """
    run_id = new_run_id(datetime.now(UTC))
    compiled = compile_pipeline(config, workspace, run_id)
    options = run_options(span, stage_names(compiled))
    folder = workspace.start_run(run_id)
    (folder / CONFIG_FILE).write_text(config.model_dump_json(indent=2), encoding="utf-8")
    error = ""
    try:
        with nullcontext() if verbose else output_to(folder / LOG_FILE):
            run_pipeline(compiled, options, on_stage)
    except ProjectError as failure:
        error = str(failure)
    except Exception as failure:  # noqa: BLE001  # whatever a library raises, the run is recorded
        error = _unexpected(failure, folder)
    summary = record(run_id, config, workspace, folder, error)
    if error:
        raise RunFailed(error, folder)
    return summary, folder


def _unexpected(failure: Exception, folder: Path) -> str:
    with (folder / LOG_FILE).open("a", encoding="utf-8") as log:
        traceback.print_exception(failure, file=log)
    first_line = (str(failure).splitlines() or [""])[0]
    return f"{type(failure).__name__}: {first_line} (the stack trace is at the end of {folder / LOG_FILE})"


def record(run_id: str, config: Config, workspace: Workspace, folder: Path, error: str) -> Summary:
    """Writes a run's summary and report, and points to its TensorBoard logs."""
    stages = read_run(metadata_config(workspace), config.name, run_id)
    summary = summarize(run_id, config, stages, error)
    (folder / SUMMARY_FILE).write_text(summary.model_dump_json(indent=2), encoding="utf-8")
    _link_tensorboard(stages, folder)
    write_report(summary, stages, folder, config.report)
    return summary


def _link_tensorboard(stages: dict[str, StageRecord], folder: Path) -> None:
    for link, stage, key in ((TENSORBOARD, "Trainer", "model_run"), (TRIALS, "Tuner", "tuner_results")):
        if stage in stages and key in stages[stage].outputs:
            (folder / link).symlink_to(Path(stages[stage].outputs[key][0].uri).resolve() / TENSORBOARD)
