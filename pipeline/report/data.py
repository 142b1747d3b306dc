"""The data of a run as the report shows them: the statistics of each split, and the spans compared.

Positions in plots are in percent of an axis, for CSS.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tfx.types.artifact import Artifact

from components.spans.drift import CLASS, DriftRecord, SpanSummary, read_drift
from components.spans.records import WindowRecord, read_window
from components.validation.statistics import SplitColumns, split_columns
from data import features

#: Column of the statistics that is shown -> its number of decimals.
COLUMNS = {features.WIDTH: 0, features.HEIGHT: 0, features.BRIGHTNESS: 2, features.CONTRAST: 2}

#: How many of the newest spans are drawn; a page with more would be illegible.
MOST_SPANS = 20


@dataclass(frozen=True)
class SplitStatistics:
    """The statistics of one split by StatisticsGen."""

    name: str
    images: int
    spreads: dict[str, str]
    """Column -> its minimum, median and maximum."""
    void: float
    """Mean over the images of the share of pixels with the ignore label (void), in [0, 1]."""
    class_shares: dict[str, float]
    """Class -> share of the labelled pixels, in [0, 1]."""
    class_images: dict[str, int]
    """Class -> number of images that contain it."""


def read_statistics(statistics: Artifact, class_names: Sequence[str]) -> list[SplitStatistics]:
    """Reads the splits of a statistics artifact."""
    return [_described(split, class_names) for split in split_columns(statistics)]


def _described(split: SplitColumns, class_names: Sequence[str]) -> SplitStatistics:
    columns, spreads = split.columns, {}
    for column, digits in COLUMNS.items():
        found = columns[column]
        least, middle, greatest = (f"{value:.{digits}f}" for value in (found.min, found.median, found.max))
        spreads[column] = middle if least == greatest else f"{least} / {middle} / {greatest}"
    pixels = {label: columns[features.pixels_key(label)] for label in class_names}
    total = sum(column.mean for column in pixels.values()) or 1.0
    return SplitStatistics(
        name=split.name,
        images=split.images,
        spreads=spreads,
        void=columns[features.VOID_FRACTION].mean,
        class_shares={label: column.mean / total for label, column in pixels.items()},
        class_images={label: split.images - column.num_zeros for label, column in pixels.items()},
    )


@dataclass(frozen=True)
class BoxPlot:
    """The distribution of a column over the images of one span, as a box plot."""

    span: str
    least: float
    low: float
    """The lower quartile."""
    middle: float
    high: float
    """The upper quartile."""
    greatest: float
    text: str
    """The numbers behind the positions."""


@dataclass(frozen=True)
class ColumnPlot:
    """One column of all spans on one axis."""

    column: str
    start: str
    """Label at the beginning of the axis."""
    end: str
    boxes: list[BoxPlot]


@dataclass(frozen=True)
class DriftDistance:
    """One comparison of the newest span with the earlier ones."""

    name: str
    measure: str
    value: float
    threshold: float

    @property
    def passes(self) -> bool:
        """Whether the distance exceeds its limit."""
        return self.value > self.threshold


@dataclass(frozen=True)
class SpansView:
    """The spans as the report shows them."""

    record: WindowRecord
    drift: DriftRecord | None
    """The record of the comparison; None if the run did not get that far."""
    shown: list[SpanSummary]
    """The spans that are drawn, oldest first."""
    distances: list[DriftDistance]
    plots: list[ColumnPlot]


def view_spans(spans_uri: str, drift_uri: str | None) -> SpansView:
    """Reads a run's records of its spans.

    Args:
        spans_uri: URI of the `Spans` artifact.
        drift_uri: URI of the `Drift` artifact; None if there is none.
    """
    drift = read_drift(drift_uri) if drift_uri else None
    shown = drift.spans[-MOST_SPANS:] if drift else []
    distances = []
    for item in drift.comparisons if drift else ():
        name = "class frequencies" if item.column == CLASS else item.column.replace("_", " ")
        distances.append(DriftDistance(name, item.measure, item.value, item.threshold))
    plots = [plot(column, shown) for column in shown[0].columns] if shown else []
    return SpansView(read_window(spans_uri), drift, shown, distances, plots)


def plot(column: str, spans: Sequence[SpanSummary]) -> ColumnPlot:
    """Draws a column of at least one span; a single value is in the middle of the axis."""
    values = [span.columns[column] for span in spans]
    start, end = min(value.quantiles[0] for value in values), max(value.quantiles[-1] for value in values)
    boxes = []
    for span, value in zip(spans, values, strict=True):
        least, low, middle, high, greatest = (
            round(100 * (quantile - start) / (end - start), 2) if end > start else 50.0 for quantile in value.quantiles
        )
        numbers = [f"{quantile:.4g}" for quantile in value.quantiles]
        text = (
            f"{numbers[0]} to {numbers[4]}; half of the images {numbers[1]} to {numbers[3]}; "
            f"median {numbers[2]}, mean {value.mean:.4g}"
        )
        boxes.append(BoxPlot(span.name, least, low, middle, high, greatest, text))
    return ColumnPlot(column.replace("_", " "), f"{start:.4g}", f"{end:.4g}", boxes)
