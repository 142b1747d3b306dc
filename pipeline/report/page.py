"""`report.html`: the results of a run as one self-contained page.

A section is in the report if the run made the artifacts that it shows.
"""

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfx.dsl.io import fileio

from components.ingest.quarantine import read_bad
from components.storage.atomic import write_small
from components.training.search_space import short
from components.training.trainer import RESULT_FILE, TENSORBOARD
from data.masks import VOID_COLOR
from models.training.loop import TrainingResult
from pipeline.records.executions import StageRecord, artifact_folder
from pipeline.records.summary import MetricsSummary, RunSummary
from pipeline.report.charts import Axis, Chart
from pipeline.report.data import SplitStatistics, read_statistics, view_spans
from pipeline.report.figures import class_colors, class_names, css_color, make_gallery
from pipeline.report.model_card import PAGE_FILE
from pipeline.report.render import headline, render, seconds_text
from pipeline.report.runs import RunRecord, since_previous
from pipeline.report.scores import class_scores, confusions, interval_config, lowest_slices, overall, row_shares
from pipeline.stages import Stage
from pipeline.workspace import REPORT_FILE
from pipeline.yaml_text import dump

TRIALS = "trials"

MOST_BAD = 100

#: Above the first number of classes, the numbers in a confusion matrix are illegible; above the second, its colours.
MOST_NUMBERED_CLASSES = 12
MOST_MATRIX_CLASSES = 40


def write_report(run: RunRecord) -> Path:
    """Writes a run's report into its folder."""
    summary, stages, folder = run.summary, run.stages, run.folder
    training = read_training(stages)
    quarantine = artifact_folder(stages, Stage.EXAMPLE_GEN, "quarantine")
    spans = artifact_folder(stages, Stage.EXAMPLE_GEN, "spans")
    splits: list[SplitStatistics] = []
    if artifact_folder(stages, Stage.STATISTICS, "statistics") is not None:
        splits = read_statistics(stages[Stage.STATISTICS].outputs["statistics"][0], class_names(summary))
    tensorboard, trials = (
        shlex.join(["tensorboard", "--logdir", str(logs)]) if logs.exists() else ""
        for logs in (folder / TENSORBOARD, folder / TRIALS)
    )
    page = render(
        "report.html",
        summary=summary,
        headline=headline(summary),
        colors=class_colors(summary),
        training=training,
        chart=draw_training(training, summary),
        gallery=make_gallery(stages) if run.config.pictures else None,
        bad=read_bad(quarantine, MOST_BAD) if quarantine else [],
        splits=splits,
        spans=view_spans(spans, artifact_folder(stages, Stage.DRIFT, "drift")) if spans else None,
        stages=list(stages.values()),
        diff=since_previous(folder, summary.config),
        origin=run.origin,
        settings=dump(summary.config),
        card=PAGE_FILE if (folder / PAGE_FILE).exists() else "",
        files=[path.name for path in sorted(folder.iterdir()) if path.suffix in (".json", ".txt")],
        tensorboard=tensorboard,
        trials_tensorboard=trials,
        seconds_text=seconds_text,
        short=short,
        void_color=css_color(VOID_COLOR),
        **(score_values(summary, summary.metrics) if summary.metrics else {}),
    )
    path = folder / REPORT_FILE
    write_small(str(path), page.encode())
    return path


def score_values(summary: RunSummary, metrics: MetricsSummary) -> dict[str, Any]:
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


def read_training(stages: Mapping[str, StageRecord]) -> TrainingResult | None:
    """Reads the Trainer's `model_run` artifact."""
    folder = artifact_folder(stages, Stage.TRAINER, "model_run")
    if folder is None:
        return None
    with fileio.open(os.path.join(folder, RESULT_FILE)) as file:
        values = json.loads(file.read())
    return TrainingResult.model_validate({key: values[key] for key in TrainingResult.model_fields})


def draw_training(training: TrainingResult | None, summary: RunSummary) -> Chart | None:
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
