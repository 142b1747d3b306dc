"""Cron expressions: the usual five fields, turned into the six that a Kubeflow Pipelines server reads.

The server parses with robfig/cron v1.2.0 (kubeflow/pipelines `backend/src/apiserver/server/api_converter.go`), whose
first field is seconds and whose last is optional. It takes `0 3 * * *` without complaint and starts a run at minute 3
of every hour. Days of the week are 0 to 6 there; a day that never comes, such as 30 February, makes its search for
the next time loop forever (`backend/src/crd/controller/scheduledworkflow/util/cron_schedule.go`).
"""

from pipeline.cron import DAY_OF_WEEK, FIELDS, SUNDAY, Field, Item, parse_cron

TIME_ZONE = (
    "the server's time zone (UTC, unless CRON_SCHEDULE_TIMEZONE of its scheduled-workflow controller says other)"
)


def server_cron(expression: str) -> str:
    """`minute hour day-of-month month day-of-week` as the server's six fields, in numbers, at second 0.

    Raises:
        ConfigError: Names the field, its text and what is allowed.
    """
    fields = zip(FIELDS, parse_cron(expression), strict=True)
    return " ".join(["0", *(_written(field, items) for field, items in fields)])


def _written(field: Field, items: list[Item]) -> str:
    return ",".join(_written_item(field, item) for item in items)


def _written_item(field: Field, item: Item) -> str:
    step = f"/{item.step}" if item.step > 1 else ""
    if item.star:
        return f"*{step}"
    if field is DAY_OF_WEEK and item.last == SUNDAY:
        return ",".join(str(day) for day in sorted(value % SUNDAY for value in item.values))
    if item.first == item.last:
        return str(item.first)
    return f"{item.first}-{item.last}{step}"
