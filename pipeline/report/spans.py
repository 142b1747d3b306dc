"""Span against span: what each was made of, how its pictures are spread, and how far the newest one is from the rest.

Positions are in percent of an axis, as CSS wants them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from components.spans.drift import CLASS, Column, Comparison, DriftRecord, SpanSummary, read_drift
from components.spans.records import WindowRecord, read_window

#: The newest spans that are drawn; a page with more cannot be read.
MOST_SPANS = 20


@dataclass(frozen=True)
class Box:
    """How a column is spread over the images of one span."""

    span: str
    least: float
    low: float
    """A quarter of the images is below it."""
    middle: float
    high: float
    """A quarter of the images is above it."""
    greatest: float
    text: str
    """The numbers behind the positions."""


@dataclass(frozen=True)
class Plot:
    """One column of all spans on one axis."""

    column: str
    start: str
    """What stands where the axis begins."""
    end: str
    boxes: list[Box]


@dataclass(frozen=True)
class Distance:
    """One comparison of the newest span with those before it."""

    name: str
    measure: str
    value: float
    threshold: float

    @property
    def passes(self) -> bool:
        """Whether it is too far."""
        return self.value > self.threshold


@dataclass(frozen=True)
class SpansView:
    """What the report shows of spans."""

    record: WindowRecord
    drift: DriftRecord | None
    """None where the run did not come to compare."""
    shown: list[SpanSummary]
    """Those that are drawn, oldest first."""
    distances: list[Distance]
    plots: list[Plot]


def view_spans(spans_uri: str, drift_uri: str | None) -> SpansView:
    """Reads what a run left of its spans.

    Args:
        spans_uri: Of the `Spans` artifact.
        drift_uri: Of the `Drift` artifact; None where there is none.
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
    """Draws a column of at least one span; a single value stands in the middle of the axis."""
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
