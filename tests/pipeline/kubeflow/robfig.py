"""How the server reads a cron expression: robfig/cron v1.2.0, parser.go and spec.go, in Python for the tests."""

from dataclasses import dataclass
from datetime import datetime

BOUNDS = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
NAMES = {4: {name: i + 1 for i, name in enumerate(MONTHS)}, 5: {name: i for i, name in enumerate(WEEKDAYS)}}


@dataclass(frozen=True)
class Schedule:
    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    star_days: bool
    star_weekdays: bool

    def fires(self, time: datetime) -> bool:
        """At this second."""
        day, weekday = time.day in self.days, time.isoweekday() % 7 in self.weekdays
        return (
            time.second in self.seconds
            and time.minute in self.minutes
            and time.hour in self.hours
            and time.month in self.months
            and ((day and weekday) if self.star_days or self.star_weekdays else (day or weekday))
        )


def parse(spec: str) -> Schedule:
    """Five or six fields: the last may be missing, the first is seconds either way."""
    texts = spec.split()
    if len(texts) not in (5, 6):
        raise ValueError(f"Expected 5 to 6 fields, found {len(texts)}: {spec}")
    fields = [_field(position, text) for position, text in enumerate([*texts, "*"][:6])]
    sets = [frozenset(values) for values, _ in fields]
    return Schedule(*sets, star_days=fields[3][1], star_weekdays=fields[5][1])


def _field(position: int, text: str) -> tuple[set[int], bool]:
    parts = [_range(position, part) for part in text.split(",") if part]
    return {value for values, _ in parts for value in values}, any(star for _, star in parts)


def _range(position: int, text: str) -> tuple[range, bool]:
    low, high = BOUNDS[position]
    ends, *steps = text.split("/")
    first, *rest = ends.split("-")
    if len(steps) > 1 or len(rest) > 1:
        raise ValueError(f"Too many hyphens or slashes: {text}")
    star = first in ("*", "?")
    start = low if star else _number(position, first)
    end = high if star else _number(position, rest[0]) if rest else start
    step = _number(-1, steps[0]) if steps else 1
    if steps and not rest:
        end = high
    if not (low <= start <= end <= high and step):
        raise ValueError(f"out of bounds: {text}")
    return range(start, end + 1, step), star


def _number(position: int, text: str) -> int:
    names = NAMES.get(position, {})
    return names[text.lower()] if text.lower() in names else int(text)
