"""`report.html`: what a run came to, for people: one file that needs nothing else.

A section stands in the report if the run made the artifacts that it shows.
"""

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from tfx.dsl.io import fileio
from tfx.utils import path_utils

from components import infra_check
from components.example_gen import read_bad
from components.requests import test_examples
from components.search_space import short
from components.trainer import RESULT_FILE, TENSORBOARD
from data.errors import WorkspaceError
from data.labels import Color
from data.masks import VOID_COLOR, palette
from models.training import TrainingResult
from pipeline.config import ReportConfig
from pipeline.metadata_store import metadata_config, recorded_config
from pipeline.pages import mask_uri, photo_uri, render
from pipeline.records import StageRecord, read_run
from pipeline.report import curves
from pipeline.report.comparisons import MOST_IMAGES, Comparison, Selection, compare, select
from pipeline.report.spans import SpansView, view_spans
from pipeline.summary import SUMMARY_FILE, MetricsSummary, Summary, read_summary
from pipeline.workspace import Workspace

REPORT_FILE = "report.html"
TRIALS = "trials"

#: Longer side of a picture in the report, in pixels.
PICTURE_SIDE = 320
PICTURES_EACH = 4
MOST_CONFUSIONS = 8
MOST_SLICES = 30
MOST_BAD = 100

#: Above this many classes a confusion matrix cannot be read any more, above the second one not even seen.
MOST_NUMBERED_CLASSES = 12
MOST_MATRIX_CLASSES = 40


@dataclass(frozen=True)
class Verdict:
    """The headline."""

    tone: Literal["good", "warn", "bad", "open"]
    text: str


@dataclass(frozen=True)
class ClassScore:
    """One class on the test split."""

    name: str
    iou: float | None
    share: float
    """Of the labelled pixels, in [0, 1]."""


@dataclass(frozen=True)
class Confusion:
    """Pixels of one class taken for another."""

    label: str
    prediction: str
    share: float
    """Of the label's pixels, in [0, 1]."""
    pixels: int


@dataclass(frozen=True)
class Picture:
    """A comparison as `data:` URIs."""

    key: str
    mean_iou: float
    image: str
    label: str
    prediction: str


def write_report(summary: Summary, stages: Mapping[str, StageRecord], folder: Path, config: ReportConfig) -> Path:
    """Writes a run's report.

    Args:
        summary: What the run came to.
        stages: Its stages, as `pipeline.records.read_run` gives them.
        folder: The run's folder; the report goes there.
        config: What the report may show.

    Returns:
        The report's file.
    """
    metrics = summary.metrics
    training = read_training(stages)
    selection = choose_pictures(stages) if config.pictures else None
    page = render(
        "report.html",
        summary=summary,
        verdict=verdict(summary),
        colors=class_colors(summary),
        classes=class_scores(metrics) if metrics else [],
        shares=row_shares(metrics.confusion_matrix).tolist() if metrics else [],
        confusions=confusions(metrics) if metrics else [],
        slices=lowest_slices(metrics) if metrics else [],
        training=training,
        curves=draw_curves(training, summary),
        worst=[_picture(comparison) for comparison in selection.worst] if selection else [],
        typical=[_picture(comparison) for comparison in selection.typical] if selection else [],
        compared=selection.compared if selection else 0,
        bad=quarantined(stages),
        spans=read_spans(stages),
        stages=list(stages.values()),
        settings=yaml.safe_dump(summary.config, sort_keys=False, allow_unicode=True),
        files=[path.name for path in sorted(folder.iterdir()) if path.suffix in (".json", ".txt")],
        tensorboard=_tensorboard_command(folder / TENSORBOARD),
        trials_tensorboard=_tensorboard_command(folder / TRIALS),
        canvas=curves,
        most_numbered=MOST_NUMBERED_CLASSES,
        most_matrix=MOST_MATRIX_CLASSES,
        seconds_text=seconds_text,
        short=short,
        void_color=css_color(VOID_COLOR),
    )
    path = folder / REPORT_FILE
    path.write_text(page, encoding="utf-8")
    return path


def rewrite_report(workspace: Workspace) -> Path:
    """Writes the report of the newest run again.

    Raises:
        WorkspaceError: Nothing has run yet, or the newest run has no record.
    """
    folder = workspace.latest_run
    if not (folder / SUMMARY_FILE).exists():
        raise WorkspaceError(f"{folder}: this run was killed, or goes on: there is no {SUMMARY_FILE} to report on")
    summary = read_summary(folder)
    stages = read_run(metadata_config(workspace, recorded_config(workspace)), summary.config["name"], summary.run_id)
    return write_report(summary, stages, folder, ReportConfig.model_validate(summary.config["report"]))


def verdict(summary: Summary) -> Verdict:
    """What to read first."""
    if summary.status == "failed":
        return Verdict("bad", "The run failed")
    if summary.blessed is None:
        return Verdict("open", "The run ended before a judgement")
    if not summary.blessed:
        return Verdict("warn", "Not blessed")
    if summary.pushed_version is None:
        return Verdict("good", "Blessed; nothing was pushed")
    return Verdict("good", f"Blessed, and pushed as version {summary.pushed_version}")


def class_names(summary: Summary) -> list[str]:
    """The classes in the order of their ids."""
    return [label["name"] for label in summary.config["data"]["label_map"]["classes"]]


def class_colors(summary: Summary) -> dict[str, str]:
    """The CSS colour that each class has in the pictures."""
    names = class_names(summary)
    return {name: css_color(color) for name, color in zip(names, palette(len(names)), strict=True)}


def css_color(color: Color) -> str:
    """RGB as CSS wants it."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def class_scores(metrics: MetricsSummary) -> list[ClassScore]:
    """The classes, lowest IoU first; those without one last."""
    pixels = np.sum(metrics.confusion_matrix, axis=1)  # (classes,)
    shares = pixels / max(pixels.sum(), 1)
    scores = [
        ClassScore(name, iou, float(share)) for (name, iou), share in zip(metrics.iou.items(), shares, strict=True)
    ]
    return sorted(scores, key=lambda score: 2.0 if score.iou is None else score.iou)


def row_shares(matrix: list[list[int]]) -> np.ndarray:
    """(classes, classes) shares of each label's pixels, in [0, 1]; zeros for a label that does not occur."""
    counts = np.array(matrix, np.float64)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def confusions(metrics: MetricsSummary) -> list[Confusion]:
    """The pairs that cost the most pixels, first the worst."""
    counts, names = np.array(metrics.confusion_matrix), list(metrics.iou)
    shares = row_shares(metrics.confusion_matrix)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:MOST_CONFUSIONS]
    pairs = [divmod(int(position), len(names)) for position in order]
    return [
        Confusion(names[row], names[column], float(shares[row, column]), int(counts[row, column]))
        for row, column in pairs
        if counts[row, column]
    ]


def lowest_slices(metrics: MetricsSummary) -> list[tuple[str, float | None]]:
    """The slices with the lowest mean IoU, lowest first."""
    ordered = sorted(metrics.slices.items(), key=lambda item: 2.0 if item[1] is None else item[1])
    return ordered[:MOST_SLICES]


def read_training(stages: Mapping[str, StageRecord]) -> TrainingResult | None:
    """What the Trainer's `model_run` artifact tells."""
    folder = _artifact(stages, "Trainer", "model_run")
    if folder is None:
        return None
    with fileio.open(os.path.join(folder, RESULT_FILE)) as file:
        values = json.loads(file.read())
    return TrainingResult.model_validate({key: values[key] for key in TrainingResult.model_fields})


def draw_curves(training: TrainingResult | None, summary: Summary) -> curves.Curves | None:
    """The curves of a training that was evaluated at least once."""
    if training is None or training.best is None:
        return None
    return curves.curves(training.history, training.best, class_names(summary))


def quarantined(stages: Mapping[str, StageRecord]) -> list[dict[str, str]]:
    """The first files that were set aside, with path and reason."""
    folder = _artifact(stages, "ImageExampleGen", "quarantine")
    return read_bad(folder, MOST_BAD) if folder else []


def read_spans(stages: Mapping[str, StageRecord]) -> SpansView | None:
    """What the run left of its spans; None where the data do not come in spans."""
    folder = _artifact(stages, "ImageExampleGen", "spans")
    return view_spans(folder, _artifact(stages, "SpanDrift", "drift")) if folder else None


def choose_pictures(stages: Mapping[str, StageRecord]) -> Selection | None:
    """Test images seen by this run's model.

    Only a model that InfraCheck has let through is loaded: it has answered in a process of its own, so it will not
    bring this one down.
    """
    model = _artifact(stages, "Trainer", "model")
    examples = _artifact(stages, "ImageExampleGen", "examples")
    if model is None or examples is None or not _serves(stages):
        return None
    serialized = test_examples(stages["ImageExampleGen"].outputs["examples"][0], MOST_IMAGES)
    return select(compare(serialized, path_utils.serving_model_dir(model)), PICTURES_EACH)


def seconds_text(seconds: float) -> str:
    """A duration to read: "0.13 s", "8.5 s", "4 min 44 s", "2 h 05 min"."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _serves(stages: Mapping[str, StageRecord]) -> bool:
    blessings = stages["InfraCheck"].outputs.get("blessing", []) if "InfraCheck" in stages else []
    return any(blessing.get_int_custom_property(infra_check.BLESSED) for blessing in blessings)


def _artifact(stages: Mapping[str, StageRecord], stage: str, key: str) -> str | None:
    """Where a stage's output is; None if the stage did not make it, or it was deleted since."""
    outputs = stages[stage].outputs.get(key, []) if stage in stages else []
    return next((output.uri for output in outputs if fileio.exists(output.uri)), None)


def _picture(comparison: Comparison) -> Picture:
    return Picture(
        key=comparison.key,
        mean_iou=comparison.mean_iou,
        image=photo_uri(comparison.image, PICTURE_SIDE),
        label=mask_uri(comparison.label, PICTURE_SIDE),
        prediction=mask_uri(comparison.prediction, PICTURE_SIDE),
    )


def _tensorboard_command(logs: Path) -> str:
    return shlex.join(["tensorboard", "--logdir", str(logs)]) if logs.exists() else ""
