"""Cron expressions of the usual five fields, read strictly: what crons differ about is refused.

A day that never comes, such as 30 February, is refused too: nothing would ever run.
"""

import re
from dataclasses import dataclass

from data.errors import ConfigError

SUNDAY = 7
_DAYS_OF_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ITEM = re.compile(r"(?P<first>\*|[0-9a-z]+)(-(?P<last>[0-9a-z]+))?(/(?P<step>[0-9]+))?")


@dataclass(frozen=True)
class Field:
    """One of the five fields: its bounds, and the names of its values counted from `low`."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """For errors."""
        names = f" or {self.names[0]} to {self.names[-1]}" if self.names else ""
        return (
            f"allowed: {self.low} to {self.high}{names}, ranges such as {self.low}-{self.low + 2}, lists, *, */n, a-b/n"
        )


MINUTE = Field("minute", 0, 59)
HOUR = Field("hour", 0, 23)
DAY_OF_MONTH = Field("day of month", 1, 31)
MONTH = Field("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"))
DAY_OF_WEEK = Field("day of week", 0, SUNDAY, ("sun", "mon", "tue", "wed", "thu", "fri", "sat"))
FIELDS = (MINUTE, HOUR, DAY_OF_MONTH, MONTH, DAY_OF_WEEK)


@dataclass(frozen=True)
class Item:
    """A value, a range or a star, with a step: the parts of a field between its commas."""

    first: int
    last: int
    step: int = 1
    star: bool = False

    @property
    def values(self) -> range:
        """What it stands for."""
        return range(self.first, self.last + 1, self.step)


def parse_cron(expression: str) -> list[list[Item]]:
    """The items of the five fields of `minute hour day-of-month month day-of-week`, in the order of `FIELDS`.

    Raises:
        ConfigError: Names the field, its text and what is allowed.
    """
    texts = expression.lower().split()
    if len(texts) != len(FIELDS):
        raise ConfigError(
            f"cron {expression!r}: has {len(texts)} fields; allowed: five, "
            f"{', '.join(field.name for field in FIELDS)}, such as '0 3 * * *' for three in the morning"
        )
    fields = [_parse(expression, field, text) for field, text in zip(FIELDS, texts, strict=True)]
    _require_a_day(expression, *fields[2:])
    return fields


def _parse(expression: str, field: Field, text: str) -> list[Item]:
    try:
        return [_parse_item(field, part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"cron {expression!r}: {field.name} {text!r}: {error}; {field.allowed}") from None


def _parse_item(field: Field, text: str) -> Item:
    match = _ITEM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not understood" if text else "an item of the list is empty")
    step = int(match["step"] or 1)
    if not 1 <= step <= field.high:
        raise ValueError(f"step {step} is not within 1 to {field.high}")
    if match["first"] == "*":
        if match["last"]:
            raise ValueError("a range cannot begin with *")
        return Item(field.low, 6 if field is DAY_OF_WEEK else field.high, step, star=True)
    first = last = _number(field, match["first"])
    if match["last"]:
        last = _number(field, match["last"])
        if field is DAY_OF_WEEK and match["last"] == "sun" and first:
            last = SUNDAY
    elif match["step"]:
        raise ValueError(f"crons differ about a step after one number; write {first}-{field.high}/{step}")
    if first > last:
        raise ValueError(f"the range {text} begins beyond its end; write two ranges")
    return Item(first, last, step)


def _number(field: Field, text: str) -> int:
    if text in field.names:
        return field.names.index(text) + field.low
    if not text.isdecimal():
        raise ValueError(f"{text!r} is no value of this field")
    number = int(text)
    if not field.low <= number <= field.high:
        raise ValueError(f"{number} is out of bounds")
    return number


def _require_a_day(expression: str, days: list[Item], months: list[Item], weekdays: list[Item]) -> None:
    """Cron fires on either kind of day where both are restricted, so a weekday alone suffices."""
    if not any(item.star for item in weekdays):
        return
    first = min(item.first for item in days)
    if not any(first <= _DAYS_OF_MONTH[month - 1] for item in months for month in item.values):
        raise ConfigError(
            f"cron {expression!r}: day of month {first} does not come in the months named, so it never runs; "
            "allowed: a day that one of the months has"
        )
