"""Line charts as geometry for an SVG that `templates/_chart.html` draws; `docs/design.md` says why no library does."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

MOST_X_TICKS = 5
Y_TICKS = 4

#: Where a y axis may end, times a power of ten: a quarter of each is a short number, too.
_ROUND = (1, 2, 4, 8, 10)


@dataclass(frozen=True)
class Axis:
    """The horizontal axis."""

    start: float
    """The value at its left end; the last of `places` is at its right end."""
    places: Sequence[float]
    """Positions of the values, in ascending order; at least one."""
    names: Sequence[str]
    """Labels below the places, drawn where there is room."""


@dataclass(frozen=True)
class ChartLine:
    """One polyline."""

    name: str
    points: str
    """The points in SVG's syntax: "x,y x,y ..."."""


@dataclass(frozen=True)
class ChartMark:
    """One highlighted value."""

    x: float
    y: float
    text: str
    hollow: bool


@dataclass(frozen=True)
class Chart:
    """Lines over an axis; the y axis begins with 0 at `BOTTOM`."""

    WIDTH: ClassVar[int] = 440
    HEIGHT: ClassVar[int] = 240
    LEFT: ClassVar[int] = 52
    RIGHT: ClassVar[int] = 396
    TOP: ClassVar[int] = 10
    BOTTOM: ClassVar[int] = 212

    title: str
    """Description of the chart for screen readers."""
    axis: Axis
    top: float
    """The value at `TOP`."""
    text: Callable[[float], str] = "{:g}".format
    """Formats a value."""
    lines: list[ChartLine] = field(default_factory=list)
    """The first line is the subject, the others are its background."""
    marks: list[ChartMark] = field(default_factory=list)

    def place(self, at: float, value: float) -> tuple[float, float]:
        """The position of a value."""
        start, end = self.axis.start, self.axis.places[-1]
        share = (at - start) / (end - start) if end > start else 0.5
        x = self.LEFT + (self.RIGHT - self.LEFT) * share
        return round(x, 1), round(self.BOTTOM + (self.TOP - self.BOTTOM) * value / self.top, 1)

    def draw(self, name: str, values: Sequence[float | None]) -> None:
        """Adds a line through the values at the axis' places, skipping missing ones."""
        known = [(at, value) for at, value in zip(self.axis.places, values, strict=True) if value is not None]
        self.lines.append(ChartLine(name, " ".join("{},{}".format(*self.place(at, value)) for at, value in known)))

    def mark(self, at: float, value: float, text: str, *, hollow: bool = False) -> None:
        """Highlights a value."""
        self.marks.append(ChartMark(*self.place(at, value), text, hollow))

    @property
    def x_ticks(self) -> list[tuple[float, str]]:
        """(x, text) of each tick; the last place always has one."""
        places = list(zip(self.axis.places, self.axis.names, strict=True))
        every = -(-len(places) // MOST_X_TICKS)
        return [(self.place(at, 0.0)[0], name) for at, name in places[::-1][::every][::-1]]

    @property
    def y_ticks(self) -> list[tuple[float, str]]:
        """(y, text) of each tick."""
        values = [self.top * part / Y_TICKS for part in range(Y_TICKS + 1)]
        return [(self.place(self.axis.start, value)[1], self.text(value)) for value in values]


def round_top(values: Sequence[float | None]) -> float:
    """The upper end of a y axis that has room for the non-negative values, and short numbers at its ticks."""
    greatest = max((value for value in values if value is not None), default=0.0)
    if greatest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(greatest))
    return next(power * times for times in _ROUND if power * times >= greatest)
