"""Cron expressions of the usual five fields: parsing, fire times, and conversion for a Kubeflow server.

CronSim interprets them here. Syntax on which cron implementations differ (`L`, `#`, a step after a single number) is
rejected before.
"""

import re
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger
from cronsim import CronSim, CronSimError

from data.errors import ConfigError

#: The lowest value, the highest one, and the names of each field.
_FIELDS = {
    "minute": (0, 59, ""),
    "hour": (0, 23, ""),
    "day of month": (1, 31, ""),
    "month": (1, 12, " or jan to dec"),
    "day of week": (0, 7, " or sun to sat"),
}
_VALUE = "([0-9]+|[a-z]{3})"
_ITEM = re.compile(rf"{_VALUE}|(\*|{_VALUE}-{_VALUE})(/(?P<step>[0-9]+))?")
_ANY_TIME = datetime(2000, 1, 1)  # noqa: DTZ001  # CronSim takes a naive time for a clock that is never changed.
_DAY, _MOMENT = timedelta(days=1), timedelta(microseconds=1)


def parse_cron(expression: str) -> list[str]:
    """The five fields of `minute hour day-of-month month day-of-week`, checked, as CronSim reads them.

    Raises:
        ConfigError: Names the field, its text and what is allowed.
    """
    texts = expression.lower().split()
    if len(texts) != len(_FIELDS):
        raise ConfigError(
            f"cron {expression!r}: has {len(texts)} fields; allowed: five, "
            f"{', '.join(_FIELDS)}, such as '0 3 * * *' for three in the morning"
        )
    # CronSim reads sun as 0, which cannot end a range.
    texts[-1] = re.sub(r"\b(mon|tue|wed|thu|fri|sat|0*[1-7])-sun\b", r"\1-7", texts[-1])
    fields = []
    for position, (name, (low, high, names)) in enumerate(_FIELDS.items()):
        # CronSim, like Debian's cron, decides by how a field begins whether it is restricted.
        items = sorted(texts[position].split(","), key=lambda item: not item.startswith("*"))
        for item in items:
            alone = " ".join(item if other == position else "*" for other in range(len(texts)))
            try:
                match = _ITEM.fullmatch(item)
                if match is None or int(match["step"] or 1) > high:
                    raise CronSimError
                CronSim(alone, _ANY_TIME)
            except CronSimError:
                raise ConfigError(
                    f"cron {expression!r}: {name} {texts[position]!r}: {item!r} is not understood; allowed: "
                    f"{low} to {high}{names}, ranges such as {low}-{low + 2}, lists, *, */n, a-b/n with n up to {high}"
                ) from None
        fields.append(",".join(items))
    try:
        CronSim(" ".join(fields), _ANY_TIME)
    except CronSimError:
        raise ConfigError(
            f"cron {expression!r}: day of month {texts[2]} does not come in the months named, so it never runs; "
            "allowed: a day that one of the months has"
        ) from None
    return fields


def server_cron(expression: str) -> str:
    """The expression in the six fields that a Kubeflow Pipelines server expects, with second 0.

    The server parses with robfig/cron v1.2.0 (kubeflow/pipelines `backend/src/apiserver/server/api_converter.go`). Its
    first field is seconds and its last is optional: it accepts `0 3 * * *` silently and starts a run at minute 3 of
    every hour. Days of the week are 0 to 6 there. A date that never occurs makes its search for the next time loop
    forever (`backend/src/crd/controller/scheduledworkflow/util/cron_schedule.go`).

    Raises:
        ConfigError: Names the field, its text and what is allowed.
    """
    *fields, weekdays = parse_cron(expression)

    def without_day_7(item: str) -> str:
        if "7" not in item or item.startswith("*"):
            return item
        week = islice(CronSim(f"0 0 * * {item}", _ANY_TIME), 7)
        return ",".join(str(day) for day in sorted({time.isoweekday() % 7 for time in week}))

    return " ".join(["0", *fields, ",".join(without_day_7(item) for item in weekdays.split(","))])


class CronTrigger(BaseTrigger):
    """A trigger for APScheduler that fires at the times of a cron expression in a time zone.

    When daylight saving time ends, a time that the clock repeats fires twice. When it begins, a time that the clock
    skips fires as much later as the clock is put forward: 00:15 at 01:15 if 01:00 follows 23:59. CronSim, like Debian's
    cron, would run all skipped times in the same minute, so here it computes with a clock that never changes.
    APScheduler's own trigger skips them, and if both the day of the month and the day of the week are restricted, it
    requires both to match, while cron requires either (crontab(5)).

    Args:
        expression: A cron expression of five fields.
        timezone: A name of the IANA database.
        jitter_seconds: Each run is delayed by a random time up to this.

    Raises:
        ConfigError: The expression is invalid.
    """

    def __init__(self, expression: str, timezone: str, jitter_seconds: int = 0):
        self._fields = " ".join(parse_cron(expression))
        self._zone = ZoneInfo(timezone)
        self._jitter = jitter_seconds

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """Called by the scheduler: returns the first time from now on that is after the previous one."""
        after = now.astimezone(UTC) - _MOMENT
        if previous_fire_time is not None:
            after = max(after, previous_fire_time.astimezone(UTC))
        found: datetime | None = None
        # Near a change of the clock, the order of times may differ from the order shown; no change exceeds a day.
        for shown in CronSim(self._fields, after.astimezone(self._zone).replace(tzinfo=None) - _DAY):
            if found and shown >= found.astimezone(self._zone).replace(tzinfo=None) + _DAY:
                break
            # With fold 1, a time that the clock repeats is the later one, and a time that it skips is the earlier one.
            first, second = (shown.replace(tzinfo=self._zone, fold=fold).astimezone(UTC) for fold in (0, 1))
            found = min((time for time in (first, max(first, second), found) if time and time > after), default=None)
        return self._apply_jitter(found.astimezone(self._zone), self._jitter, now) if found else None
