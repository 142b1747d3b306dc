"""`runs/index.html`: all runs of a workspace, and the trends of their scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.storage.atomic import write_small
from data.errors import WorkspaceError
from pipeline.records.status import recorded
from pipeline.records.summary import RunSummary
from pipeline.report.charts import Axis, Chart, round_top
from pipeline.report.render import Headline, headline, render, seconds_text
from pipeline.stages import Stage
from pipeline.workspace import REPORT_FILE, Workspace, begun, run_folders

INDEX_FILE = "index.html"


@dataclass(frozen=True)
class IndexRow:
    """One run."""

    run_id: str
    summary: RunSummary | None
    """The run's summary; None if the run was killed, or is still in progress."""
    headline: Headline
    link: str
    """Link to its report, relative to the index; empty if it has none."""

    @property
    def mean_iou(self) -> float | None:
        """Mean IoU on the test split; None if no model was evaluated."""
        return self.summary.metrics.mean_iou if self.summary and self.summary.metrics else None

    @property
    def training_seconds(self) -> float | None:
        """Duration of training; None if training failed to begin, or its result was taken from the cache."""
        if self.summary is None or Stage.TRAINER in self.summary.cached:
            return None
        return self.summary.timings.get(Stage.TRAINER)

    @property
    def images(self) -> int | None:
        """Number of images in all splits."""
        return sum(self.summary.data.images.values()) if self.summary and self.summary.data else None

    @property
    def began(self) -> str:
        """Start time of the run, according to its name."""
        time = begun(self.run_id)
        return f"{time:%m-%d %H:%M}" if time else self.run_id


def write_index(workspace: Workspace) -> Path:
    """Writes the page of all runs.

    Raises:
        WorkspaceError: Nothing has run in this workspace yet.
    """
    rows = []
    for folder in run_folders(workspace.runs):
        summary = recorded(folder)
        link = f"{folder.name}/{REPORT_FILE}" if (folder / REPORT_FILE).exists() else ""
        rows.append(IndexRow(folder.name, summary, headline(summary), link))
    if not rows:
        raise WorkspaceError(f"{workspace.root}: nothing has run in this workspace yet")
    page = render(
        "index.html", rows=rows, trends=trends(rows[::-1]), workspace=workspace.root.name, duration=seconds_text
    )
    path = workspace.runs / INDEX_FILE
    write_small(str(path), page.encode())
    return path


def trends(rows: Sequence[IndexRow]) -> list[Chart]:
    """Charts of the runs' scores, from the oldest run on; values that no run has are left out."""
    minutes = [None if row.training_seconds is None else row.training_seconds / 60 for row in rows]
    charts = [
        _trend("mean IoU on the test split", rows, [row.mean_iou for row in rows], "{:.4g}".format, top=1.0),
        _trend("training, in minutes", rows, minutes, "{:.3g}".format),
        _trend("images", rows, [row.images for row in rows], "{:,.0f}".format),
    ]
    return [chart for chart in charts if chart.marks]


def _trend(
    title: str,
    rows: Sequence[IndexRow],
    values: Sequence[float | None],
    text: Callable[[float], str],
    top: float | None = None,
) -> Chart:
    axis = Axis(0, range(len(rows)), [row.began for row in rows])
    chart = Chart(title, axis, round_top(values) if top is None else top, text)
    chart.draw(title, values)
    for place, (row, value) in enumerate(zip(rows, values, strict=True)):
        if value is not None:
            label = f"{row.run_id}: {text(value)}. {row.headline.text}"
            chart.mark(place, value, label, hollow=row.headline.tone != "good")
    return chart
