"""The model card of a run: the model, its data, its scores and its limits (Mitchell et al., arXiv:1810.03993).

It is written in Markdown from the run's record, and the HTML page is rendered from that text.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from components.publishing.directory import EXTRA
from components.storage.atomic import create
from pipeline.config import Config
from pipeline.records.executions import StageRecord
from pipeline.records.summary import MetricsSummary, RunSummary
from pipeline.report.render import markdown_page, render_markdown
from pipeline.report.scores import ClassIou, class_scores, interval_config, overall

MARKDOWN_FILE = "model_card.md"
PAGE_FILE = "model_card.html"

#: Classes and slices with a score this far below the mean are listed as limits.
WEAK = 0.15
#: With fewer test images than this, the scores are unreliable.
FEW_IMAGES = 100

#: Split -> its purpose.
MEANING = {"train": "fits the weights", "val": "selects them", "test": "evaluates them"}


def write_model_card(summary: RunSummary, stages: Mapping[str, StageRecord], folder: Path) -> None:
    """Writes the card of an evaluated model into the run's folder, and into the version that was pushed."""
    if summary.metrics is None:
        return
    name = str(summary.config["push"]["model_name"])
    text = model_card(summary, summary.metrics, stages, name)
    files = {MARKDOWN_FILE: text, PAGE_FILE: markdown_page(text, f"Model card: {name}")}
    for file, content in files.items():
        (folder / file).write_text(content, encoding="utf-8")
        if summary.pushed_path:
            with create(os.path.join(summary.pushed_path, EXTRA, file)) as target:
                target.write(content.encode())


def model_card(summary: RunSummary, metrics: MetricsSummary, stages: Mapping[str, StageRecord], name: str) -> str:
    """The card's Markdown."""
    config = Config.model_validate(summary.config)
    classes = class_scores(metrics)
    spans = summary.data.spans if summary.data and config.data.has_spans else []
    return render_markdown(
        "model_card.md",
        summary=summary,
        metrics=metrics,
        config=config,
        name=name,
        scores=overall(metrics, None),
        level=f"{100 * interval_config(summary).level:g}",
        test_images=count_test_images(summary),
        classes=classes,
        meaning=MEANING,
        spans=", ".join(map(str, spans)),
        limits=[*config.card.limits, *found_limits(summary, metrics, classes)],
        stages=[
            {"name": stage.name, "state": stage.state, "code": stage.properties.get("code_hash", "")}
            for stage in stages.values()
        ],
    )


def count_test_images(summary: RunSummary) -> int:
    """Number of images in the test split."""
    return summary.data.images.get("test", 0) if summary.data else 0


def found_limits(summary: RunSummary, metrics: MetricsSummary, classes: list[ClassIou]) -> list[str]:
    """The limits of the model that the scores show, one line each."""
    mean = metrics.mean_iou
    images = count_test_images(summary)
    limits = [
        f"class {score.name}: IoU {score.iou:.2f}, far below the mean of {mean:.2f}"
        for score in classes
        if score.iou is not None and score.iou < mean - WEAK
    ]
    limits += [
        f"{slice_name}: mean IoU {value:.2f}, far below that of the whole test split, {mean:.2f}"
        for slice_name, value in metrics.slices.items()
        if value is not None and value < mean - WEAK
    ]
    limits += [
        f"class {score.name} is not in the test labels: nobody knows how good it is"
        for score in classes
        if score.share == 0
    ]
    if images < FEW_IMAGES:
        limits.append(f"evaluated on {images} images only: the scores may be off by several points")
    limits.append("images unlike those of the data (other cameras, light, places) were not tested")
    return limits
