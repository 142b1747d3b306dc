"""One local run from beginning to end: lock, stages, record."""

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from components.storage.atomic import write_small
from components.training.trainer import TENSORBOARD
from data.console import capture_output
from data.errors import ConfigError, DataError, ProjectError, WorkspaceError
from pipeline.config import Config
from pipeline.local import StageRange, compile_pipeline, run_options, run_pipeline, stage_names
from pipeline.metadata.backup import back_up, require_whole, skip_used_ids
from pipeline.metadata.store import metadata_config, open_store
from pipeline.records.executions import StageRecord, note_reasons, read_run
from pipeline.records.summarize import summarize
from pipeline.records.summary import SUMMARY_FILE, FailureRecord, RunSummary
from pipeline.report.index import write_index
from pipeline.report.model_card import write_model_card
from pipeline.report.page import TRIALS, write_report
from pipeline.report.runs import RunRecord, read_origin
from pipeline.retention import superseded
from pipeline.stages import Stage
from pipeline.workspace import CONFIG_FILE, Workspace

LOG_FILE = "log.txt"


class RunFailed(ProjectError):
    """A run ended with an error; its record and log are in its folder."""

    def __init__(self, failure: FailureRecord, folder: Path, *, transient: bool):
        super().__init__(f"{failure.message}\nthe run's record is in {folder}")
        self.failure = failure
        self.folder = folder
        self.transient = transient


class RecordUnwritten(WorkspaceError):
    """The record of a run cannot be written, for example because the disk is full."""

    transient = True


def run(
    config: Config, workspace: Workspace, stages: StageRange, verbose: bool, on_stage: Callable[[str], None]
) -> tuple[RunSummary, Path]:
    """Runs the pipeline once.

    Args:
        config: The resolved configuration (`pipeline.config.resolve`).
        workspace: The workspace, whose lock the caller holds.
        stages: The stages to run.
        verbose: Whether the output of libraries stays on the terminal instead of being redirected to the log.
        on_stage: Called with the name of each stage when it begins.

    Returns:
        The summary, and the run's folder.

    Raises:
        ConfigError: A stage does not exist.
        MetadataError: ML Metadata cannot be opened, or is damaged; no stage has been started.
        RunFailed: A stage failed; the results up to then are recorded nevertheless.
        RecordUnwritten: The record cannot be written.
    """
    _prepare_metadata(config, workspace)
    run_id = workspace.new_run_id(datetime.now(UTC))
    compiled = compile_pipeline(config, workspace, run_id)
    options = run_options(stages, stage_names(compiled))
    with _recording(workspace.runs / run_id):
        folder = workspace.start_run(run_id)
        write_small(str(folder / CONFIG_FILE), config.model_dump_json(indent=2).encode())
    error: Exception | None = None
    try:
        with nullcontext() if verbose else capture_output(folder / LOG_FILE):
            run_pipeline(compiled, options, on_stage)
    except Exception as raised:  # noqa: BLE001  # whatever a library raises, the run is recorded
        error = raised
    with _recording(folder, error):
        summary = record(run_id, config, workspace, folder, error)
    clean_up(config, workspace, folder, succeeded=error is None)
    if error is not None and summary.failure is not None:
        transient = error.transient if isinstance(error, ProjectError) else True
        raise RunFailed(summary.failure, folder, transient=transient) from error
    return summary, folder


@contextmanager
def _recording(folder: Path, failure: Exception | None = None) -> Iterator[None]:
    """Reports what cannot be written, and why the run had failed before that."""
    try:
        yield
    except OSError as error:
        before = f"; the run had failed: {failure}" if failure else ""
        raise RecordUnwritten(f"{folder}: the run's record cannot be written: {error.strerror}{before}") from failure


def _prepare_metadata(config: Config, workspace: Workspace) -> None:
    connection = metadata_config(workspace, config.metadata)
    if config.metadata.backend == "mysql":
        open_store(connection)
        return
    require_whole(workspace)
    open_store(connection)
    skip_used_ids(workspace)


def clean_up(config: Config, workspace: Workspace, folder: Path, *, succeeded: bool) -> None:
    """Removes what is superseded, updates the index of runs, and backs up the metadata.

    An error in one of these steps is written to the log in the run's folder; neither the run nor the other steps fail.
    """
    with _noting(folder, "old runs were not removed"):
        store = open_store(metadata_config(workspace, config.metadata))
        superseded(workspace, store, config.retention).remove(store)
    with _noting(folder, "runs/index.html was not written"):
        write_index(workspace)
    if succeeded and config.metadata.backend == "sqlite":
        with _noting(folder, "the metadata were not backed up"):
            back_up(workspace, config.retention.keep_backups)


@contextmanager
def _noting(folder: Path, failure: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001  # whatever it is, the trained and pushed model remains valid
        with suppress(OSError), (folder / LOG_FILE).open("a", encoding="utf-8") as log:
            log.write(f"{failure}:\n")
            traceback.print_exception(error, file=log)


def describe_failure(error: Exception, stages: Mapping[str, StageRecord], folder: Path) -> FailureRecord:
    """Where and why a run failed; the stack trace of an unexpected error is written to the run's log."""
    stage = next((stage.name for stage in stages.values() if stage.state in ("failed", "unfinished")), None)
    if isinstance(error, ProjectError):
        return FailureRecord(stage=stage, kind=_kind(error), message=str(error))
    return FailureRecord(stage=stage, kind="fault", message=_unexpected(error, folder))


def _kind(error: ProjectError) -> Literal["data", "config", "fault"]:
    if isinstance(error, DataError):
        return "data"
    return "config" if isinstance(error, ConfigError) else "fault"


def _unexpected(error: Exception, folder: Path) -> str:
    with (folder / LOG_FILE).open("a", encoding="utf-8") as log:
        traceback.print_exception(error, file=log)
    first_line = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first_line} (the stack trace is at the end of {folder / LOG_FILE})"


def record(run_id: str, config: Config, workspace: Workspace, folder: Path, error: Exception | None) -> RunSummary:
    """Writes a run's summary and report, and a link to its TensorBoard logs."""
    connection = metadata_config(workspace, config.metadata)
    stages = read_run(connection, config.name, run_id)
    failure = describe_failure(error, stages, folder) if error else None
    summary = summarize(run_id, config, stages, failure.message if failure else "")
    summary = summary.model_copy(update={"failure": failure})
    note_reasons(connection, stages, summary.reasons)
    write_small(str(folder / SUMMARY_FILE), summary.model_dump_json(indent=2).encode())
    _link_tensorboard(stages, folder)
    write_model_card(summary, stages, folder)
    write_report(RunRecord(summary, stages, folder, read_origin(open_store(connection), summary, workspace)))
    return summary


def _link_tensorboard(stages: dict[str, StageRecord], folder: Path) -> None:
    for link, stage, key in ((TENSORBOARD, Stage.TRAINER, "model_run"), (TRIALS, Stage.TUNER, "tuner_results")):
        if stage in stages and key in stages[stage].outputs:
            (folder / link).symlink_to(Path(stages[stage].outputs[key][0].uri).resolve() / TENSORBOARD)
