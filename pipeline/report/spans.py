"""The spans compared: their content, the distributions of their images, and the distance of the newest to the rest.

Positions are in percent of an axis, for CSS.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from components.spans.drift import CLASS, Column, Comparison, DriftRecord, SpanSummary, read_drift
from components.spans.records import WindowRecord, read_window

#: How many of the newest spans are drawn; a page with more would be illegible.
MOST_SPANS = 20


@dataclass(frozen=True)
class Box:
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
class Plot:
    """One column of all spans on one axis."""

    column: str
    start: str
    """Label at the beginning of the axis."""
    end: str
    boxes: list[Box]


@dataclass(frozen=True)
class Distance:
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
    distances: list[Distance]
    plots: list[Plot]


def view_spans(spans_uri: str, drift_uri: str | None) -> SpansView:
    """Reads a run's records of its spans.

    Args:
        spans_uri: URI of the `Spans` artifact.
        drift_uri: URI of the `Drift` artifact; None if there is none.
    """
    drift = read_drift(drift_uri) if drift_uri else None
    shown = drift.spans[-MOST_SPANS:] if drift else []
    return SpansView(
        record=read_window(spans_uri),
        drift=drift,
        shown=shown,
        distances=[_distance(item) for item in drift.comparisons] if drift else [],
        plots=[plot(column, shown) for column in shown[0].columns] if shown else [],
    )


def _distance(item: Comparison) -> Distance:
    name = "class frequencies" if item.column == CLASS else item.column.replace("_", " ")
    return Distance(name, item.measure, item.value, item.threshold)


def plot(column: str, spans: Sequence[SpanSummary]) -> Plot:
    """Draws a column of at least one span; a single value is in the middle of the axis."""
    values = [span.columns[column] for span in spans]
    start, end = min(value.quantiles[0] for value in values), max(value.quantiles[-1] for value in values)

    def place(value: float) -> float:
        return round(100 * (value - start) / (end - start), 2) if end > start else 50.0

    def box(name: str, value: Column) -> Box:
        least, low, middle, high, greatest = map(place, value.quantiles)
        return Box(name, least, low, middle, high, greatest, _text(value))

    boxes = [box(span.name, value) for span, value in zip(spans, values, strict=True)]
    return Plot(column.replace("_", " "), f"{start:.4g}", f"{end:.4g}", boxes)


def _text(column: Column) -> str:
    least, low, middle, high, greatest = (f"{value:.4g}" for value in column.quantiles)
    return f"{least} to {greatest}; half of the images {low} to {high}; median {middle}, mean {column.mean:.4g}"
