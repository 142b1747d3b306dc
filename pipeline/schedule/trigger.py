"""When runs begin: cron expressions as APScheduler understands them."""

from collections.abc import Iterable

from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

from pipeline.cron import Item, parse_cron


def cron_trigger(expression: str, timezone: str, jitter_seconds: int = 0) -> OrTrigger:
    """A trigger that fires when cron would.

    APScheduler's own `from_crontab` differs from cron in two ways: it counts days of the week from Monday, and where
    both kinds of day are restricted it wants both, while cron takes either (crontab(5)).

    Raises:
        ConfigError: The expression is wrong.
    """
    minute, hour, day, month, weekday = parse_cron(expression)
    fields = {"minute": _listed(minute), "hour": _listed(hour), "month": _listed(month), "timezone": timezone}
    day_of_month = {"day": _listed(day)}
    day_of_week = {"day_of_week": ",".join(sorted({str((value - 1) % 7) for item in weekday for value in item.values}))}
    either = not any(item.star for item in [*day, *weekday])
    kinds = [day_of_month, day_of_week] if either else [day_of_month | day_of_week]
    return OrTrigger([CronTrigger(**kind, **fields) for kind in kinds], jitter=jitter_seconds or None)


def _listed(items: Iterable[Item]) -> str:
    return ",".join(str(value) for value in sorted({value for item in items for value in item.values}))
