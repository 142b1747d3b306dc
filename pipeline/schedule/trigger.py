"""When runs begin: cron expressions as APScheduler understands them."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

from pipeline.cron import Item, parse_cron

_MOMENT, _DAY = timedelta(microseconds=1), timedelta(days=1)


def cron_trigger(expression: str, timezone: str, jitter_seconds: int = 0) -> OrTrigger:
    """A trigger that fires when cron would.

    APScheduler's own `from_crontab` differs from cron in two ways: it counts days of the week from Monday, and where
    both kinds of day are restricted it wants both, while cron takes either (crontab(5)).

    Raises:
        ConfigError: The expression is wrong.
    """
    minute, hour, day, month, weekday = parse_cron(expression)
    fields = {"minute": _listed(minute), "hour": _listed(hour), "month": _listed(month)}
    day_of_month = {"day": _listed(day)}
    day_of_week = {"day_of_week": ",".join(sorted({str((value - 1) % 7) for item in weekday for value in item.values}))}
    either = not any(item.star for item in [*day, *weekday])
    kinds = [day_of_month, day_of_week] if either else [day_of_month | day_of_week]
    return OrTrigger([_Cron({**kind, **fields}, timezone) for kind in kinds], jitter=jitter_seconds or None)


class _Cron(BaseTrigger):
    """Fires when the clock of a time zone shows one of the times.

    A time that the clock repeats counts twice. One that it leaves out comes as much later as the clock is put forward:
    00:15 at 01:15 where 01:00 follows 23:59. APScheduler's own trigger leaves out runs at midnight near a change, so it
    is asked here for a clock that is never changed alone.
    """

    def __init__(self, fields: dict[str, str], timezone: str):
        self._zone = ZoneInfo(timezone)
        self._unchanged = CronTrigger(**fields, timezone=UTC)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """Called by the scheduler: the first time after the previous one, else from now on."""
        begin = previous_fire_time.astimezone(UTC) + _MOMENT if previous_fire_time else now.astimezone(UTC)
        shown, found = self._shown(begin) - self._change(begin), None
        while (shown := self._unchanged.get_next_fire_time(None, shown)) is not None:
            found = min((time for time in (found, *self._times(shown)) if time and time >= begin), default=None)
            # Near a change, what the clock shows later may come before.
            if found is not None and shown >= self._shown(found) + self._change(found):
                break
            shown += _MOMENT
        return found.astimezone(self._zone) if found else None

    def _shown(self, time: datetime) -> datetime:
        """What the clock shows then, as if it were UTC."""
        return time.astimezone(self._zone).replace(tzinfo=UTC)

    def _change(self, time: datetime) -> timedelta:
        """By how much the clock is changed in the day before or after; mostly not at all."""
        offsets = [self._shown(near) - near for near in (time - _DAY, time, time + _DAY)]
        return max(offsets) - min(offsets)

    def _times(self, shown: datetime) -> list[datetime]:
        """When the clock shows that, as UTC: once or twice, or, if it never does, when it is made up for."""
        first, second = (shown.replace(tzinfo=self._zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        return [first, second] if self._shown(first) == shown else [first]


def _listed(items: Iterable[Item]) -> str:
    return ",".join(str(value) for value in sorted({value for item in items for value in item.values}))
