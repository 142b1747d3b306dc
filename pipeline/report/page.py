"""`report.html`: the results of a run as one self-contained page.

A section is in the report if the run made the artifacts that it shows.
"""

import json
import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_metadata.metadata_store import MetadataStore
from tfx.dsl.io import fileio

from components.ingest.quarantine import read_bad
from components.storage.atomic import write_small
from components.training.search_space import short
from components.training.trainer import RESULT_FILE, TENSORBOARD
from data.errors import WorkspaceError
from data.masks import VOID_COLOR
from models.training.loop import TrainingResult
from pipeline.metadata.backup import require_whole
from pipeline.metadata.lineage import find_push, lineage, pushes
from pipeline.metadata.outline import Outline, lineage_outline
from pipeline.metadata.store import metadata_config, open_store, recorded_config
from pipeline.records.executions import StageRecord, artifact_folder, read_run
from pipeline.records.summary import MetricsSummary, Summary, read_summary
from pipeline.report.charts import Axis, Chart
from pipeline.report.diff import since_previous
from pipeline.report.model_card import PAGE_FILE
from pipeline.report.pictures import class_colors, class_names, css_color, make_gallery
from pipeline.report.render import render
from pipeline.report.scores import class_scores, confusions, interval_config, lowest_slices, overall, row_shares
from pipeline.report.spans import SpansView, view_spans
from pipeline.report.statistics import Split, read_statistics
from pipeline.report.wording import seconds_text, verdict
from pipeline.sections.workspace import ReportConfig
from pipeline.stages import Stage
from pipeline.workspace import REPORT_FILE, Workspace
from pipeline.yaml_text import dump

TRIALS = "trials"

MOST_BAD = 100

#: Above the first number of classes, the numbers in a confusion matrix are illegible; above the second, its colours.
MOST_NUMBERED_CLASSES = 12
MOST_MATRIX_CLASSES = 40


@dataclass(frozen=True)
class RunRecord:
    """The artifacts and records of a run."""

    summary: Summary
    stages: Mapping[str, StageRecord]
    """The stages, as `pipeline.records.executions.read_run` returns them."""
    folder: Path
    """The run's folder."""
    origin: Outline | None = None
    """Lineage of the version that the run pushed; None if it pushed none."""

    @property
    def config(self) -> ReportConfig:
        """Section `report` of the run's configuration."""
        return ReportConfig.model_validate(self.summary.config["report"])


def write_report(run: RunRecord) -> Path:
    """Writes a run's report into its folder."""
    summary, stages, folder = run.summary, run.stages, run.folder
    training = read_training(stages)
    page = render(
        "report.html",
        summary=summary,
        verdict=verdict(summary),
        colors=class_colors(summary),
        training=training,
        chart=draw_training(training, summary),
        gallery=make_gallery(stages) if run.config.pictures else None,
        bad=quarantined(stages),
        splits=read_splits(stages, class_names(summary)),
        spans=read_spans(stages),
        stages=list(stages.values()),
        diff=since_previous(folder, summary.config),
        origin=run.origin,
        settings=dump(summary.config),
        card=PAGE_FILE if (folder / PAGE_FILE).exists() else "",
        files=[path.name for path in sorted(folder.iterdir()) if path.suffix in (".json", ".txt")],
        tensorboard=_tensorboard_command(folder / TENSORBOARD),
        trials_tensorboard=_tensorboard_command(folder / TRIALS),
        seconds_text=seconds_text,
        short=short,
        void_color=css_color(VOID_COLOR),
        **(score_values(summary, summary.metrics) if summary.metrics else {}),
    )
    path = folder / REPORT_FILE
    write_small(str(path), page.encode())
    return path


def score_values(summary: Summary, metrics: MetricsSummary) -> dict[str, Any]:
    """The variables with which the template shows scores."""
    served = summary.baseline
    return {
        "scores": overall(metrics, served),
        "classes": class_scores(metrics, served),
        "slices": lowest_slices(metrics, served),
        "shares": row_shares(metrics.confusion_matrix).tolist(),
        "confusions": confusions(metrics),
        "level": f"{100 * interval_config(summary).level:g}",
        "most_numbered": MOST_NUMBERED_CLASSES,
        "most_matrix": MOST_MATRIX_CLASSES,
    }


def read_run_record(workspace: Workspace, run_id: str | None) -> RunRecord:
    """Reads the artifacts and records of a run; None stands for the newest run.

    Raises:
        WorkspaceError: Nothing has run yet, the run does not exist, or it has no record.
        MetadataError: ML Metadata cannot be opened, or is damaged.
    """
    folder = workspace.latest_run if run_id is None else workspace.run_folder(run_id)
    summary = read_summary(folder)
    config = recorded_config(workspace)
    if config.backend == "sqlite":
        require_whole(workspace)
    connection = metadata_config(workspace, config)
    stages = read_run(connection, summary.config["name"], summary.run_id)
    return RunRecord(summary, stages, folder, read_origin(open_store(connection), summary, workspace))


def read_origin(store: MetadataStore, summary: Summary, workspace: Workspace) -> Outline | None:
    """The lineage of the version that a run pushed; None if it pushed none, or if the metadata were lost since."""
    if summary.pushed_version is None:
        return None
    name = summary.config["push"]["model_name"]
    with suppress(WorkspaceError):
        push = find_push(pushes(store), summary.pushed_version, name, workspace.serving)
        return lineage_outline(lineage(store, push))
    return None


def read_training(stages: Mapping[str, StageRecord]) -> TrainingResult | None:
    """Reads the Trainer's `model_run` artifact."""
    folder = artifact_folder(stages, Stage.TRAINER, "model_run")
    if folder is None:
        return None
    with fileio.open(os.path.join(folder, RESULT_FILE)) as file:
        values = json.loads(file.read())
    return TrainingResult.model_validate({key: values[key] for key in TrainingResult.model_fields})


def draw_training(training: TrainingResult | None, summary: Summary) -> Chart | None:
    """Charts the scores of a training that was evaluated at least once, over its steps."""
    if training is None or training.best is None:
        return None
    history, best = training.history, training.best
    steps = [evaluation.step for evaluation in history]
    chart = Chart(
        f"Validation mean IoU over {training.steps} steps; the best is {best.mean_iou:.4f} at step {best.step}",
        Axis(0, steps, [*map(str, steps[:-1]), f"{steps[-1]} steps"]),
        top=1.0,
    )
    chart.draw("mean IoU", [evaluation.mean_iou for evaluation in history])
    for number, name in enumerate(class_names(summary)):
        chart.draw(name, [evaluation.iou[number] for evaluation in history])
    chart.mark(best.step, best.mean_iou, f"kept: {best.mean_iou:.4f}")
    return chart


def quarantined(stages: Mapping[str, StageRecord]) -> list[dict[str, str]]:
    """The first quarantined files, with path and reason."""
    folder = artifact_folder(stages, Stage.EXAMPLE_GEN, "quarantine")
    return read_bad(folder, MOST_BAD) if folder else []


def read_splits(stages: Mapping[str, StageRecord], names: list[str]) -> list[Split]:
    """Reads the statistics of each split."""
    if artifact_folder(stages, Stage.STATISTICS, "statistics") is None:
        return []
    return read_statistics(stages[Stage.STATISTICS].outputs["statistics"][0], names)


def read_spans(stages: Mapping[str, StageRecord]) -> SpansView | None:
    """Reads the record of the run's spans; None if the data are not divided into spans."""
    folder = artifact_folder(stages, Stage.EXAMPLE_GEN, "spans")
    return view_spans(folder, artifact_folder(stages, Stage.DRIFT, "drift")) if folder else None


def _tensorboard_command(logs: Path) -> str:
    return shlex.join(["tensorboard", "--logdir", str(logs)]) if logs.exists() else ""
