from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data.errors import ConfigError
from pipeline.cron import FIELDS, Item, parse_cron
from pipeline.schedule.config import ScheduleConfig
from pipeline.schedule.trigger import cron_trigger


def fires(expression: str, begin: str, number: int, timezone: str = "UTC") -> list[str]:
    """The next times after `begin`, in UTC."""
    trigger, now, before = cron_trigger(expression, timezone), datetime.fromisoformat(begin), None
    times = []
    for _ in range(number):
        before = now = trigger.get_next_fire_time(before, now)
        times.append(f"{now.astimezone(UTC):%a %Y-%m-%d %H:%M:%S}")
    return times


@pytest.mark.parametrize(
    ("expression", "days"),
    [
        ("0 3 * * 0", ["Sun 2026-03-01", "Sun 2026-03-08"]),
        ("0 3 * * 7", ["Sun 2026-03-01", "Sun 2026-03-08"]),
        ("0 3 * * sun", ["Sun 2026-03-01", "Sun 2026-03-08"]),
        ("0 3 * * 1", ["Mon 2026-03-02", "Mon 2026-03-09"]),
        ("0 3 * * 6-7", ["Sat 2026-02-28", "Sun 2026-03-01", "Sat 2026-03-07"]),
        ("0 3 * * 1-5", ["Fri 2026-02-27", "Mon 2026-03-02", "Tue 2026-03-03"]),
        ("0 3 29 2 *", ["Tue 2028-02-29", "Sun 2032-02-29"]),
        # Both kinds of day restricted: either will do, and a day that is both counts once.
        ("0 3 13 * 5", ["Fri 2026-02-27", "Fri 2026-03-06", "Fri 2026-03-13", "Fri 2026-03-20"]),
        ("0 3 1 * 1", ["Sun 2026-03-01", "Mon 2026-03-02", "Mon 2026-03-09"]),
    ],
)
def test_days_are_those_of_cron(expression: str, days: list[str]):
    # 2026-02-27 is a Friday.
    assert fires(expression, "2026-02-27T00:00:00+00:00", len(days)) == [f"{day} 03:00:00" for day in days]


def test_hours_are_those_of_the_time_zone_in_summer_and_winter():
    assert fires("0 3 * * *", "2026-03-28T12:00:00+00:00", 2, "Europe/Berlin") == [
        "Sun 2026-03-29 01:00:00",
        "Mon 2026-03-30 01:00:00",
    ]
    assert fires("0 3 * * *", "2026-10-23T12:00:00+00:00", 3, "Europe/Berlin") == [
        "Sat 2026-10-24 01:00:00",
        "Sun 2026-10-25 02:00:00",
        "Mon 2026-10-26 02:00:00",
    ]


@pytest.mark.parametrize(
    ("expression", "timezone", "begin", "times"),
    [
        # The clocks go from 23:59 to 01:00.
        ("0 0 * * *", "Africa/Cairo", "2026-04-22T12:00+02:00", ["04-23 00:00", "04-24 01:00", "04-25 00:00"]),
        ("15 0 * * *", "America/Havana", "2026-03-07T12:00-05:00", ["03-08 01:15", "03-09 00:15"]),
        ("*/20 0 24 4 *", "Africa/Cairo", "2026-01-01T12:00+02:00", ["04-24 01:00", "04-24 01:20", "04-24 01:40"]),
        # From 01:59 to 03:00, and to 02:30.
        ("*/20 2 * * *", "Europe/Berlin", "2026-03-28T12:00+01:00", ["03-29 03:00", "03-29 03:20", "03-29 03:40"]),
        ("*/30 * * * *", "Europe/Berlin", "2026-03-29T01:10+01:00", ["03-29 01:30", "03-29 03:00", "03-29 03:30"]),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00+10:30", ["10-04 02:45", "10-05 02:15"]),
        # The night after a change.
        ("0 0 * * *", "Europe/Berlin", "2026-03-28T12:00+01:00", ["03-29 00:00", "03-30 00:00", "03-31 00:00"]),
        # A day that a whole time zone left out.
        ("0 6 * * *", "Pacific/Apia", "2011-12-28T12:00-10:00", ["12-29 06:00", "12-31 06:00", "01-01 06:00"]),
    ],
)
def test_times_that_the_clocks_leave_out_come_as_much_later(
    expression: str, timezone: str, begin: str, times: list[str]
):
    found = [
        datetime.strptime(time, "%a %Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).astimezone(ZoneInfo(timezone))
        for time in fires(expression, begin, len(times), timezone)
    ]

    assert [f"{time:%m-%d %H:%M}" for time in found] == times


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(["Africa/Cairo", "America/Havana", "Europe/Berlin", "Asia/Beirut", "Australia/Lord_Howe"]),
    st.integers(0, 23),
    st.integers(0, 59),
)
def test_every_day_has_its_run_and_none_has_three(timezone: str, hour: int, minute: int):
    trigger, now = cron_trigger(f"{minute} {hour} * * *", timezone), datetime(2026, 1, 1, tzinfo=ZoneInfo(timezone))
    begin, days = now.date(), []
    while (now.date() - begin).days < 365:
        now = trigger.get_next_fire_time(now, now)
        days.append(now.date())

    runs = [days.count(begin + timedelta(days=day)) for day in range(1, 365)]
    assert set(runs) <= {1, 2} and runs.count(2) <= 1


def test_a_time_that_the_clocks_leave_out_comes_an_hour_later_and_one_that_they_repeat_twice():
    spring = fires("30 2 * * *", "2026-03-28T12:00:00+00:00", 2, "Europe/Berlin")
    autumn = fires("30 2 * * *", "2026-10-24T12:00:00+00:00", 3, "Europe/Berlin")

    assert spring == ["Sun 2026-03-29 01:30:00", "Mon 2026-03-30 00:30:00"]
    assert autumn == ["Sun 2026-10-25 00:30:00", "Sun 2026-10-25 01:30:00", "Mon 2026-10-26 01:30:00"]


def numbers(field: int) -> st.SearchStrategy[str]:
    """A star or a list of values of a field."""
    values = st.lists(st.integers(FIELDS[field].low, FIELDS[field].high), min_size=1, max_size=3)
    return st.one_of(st.just("*"), values.map(lambda some: ",".join(map(str, some))))


def matches(fields: list[list[Item]], time: datetime) -> bool:
    """Cron's rule (crontab(5)) for one minute."""
    minute, hour, day, month, weekday = fields
    is_in = [
        any(value in item.values for item in items)
        for items, value in zip((minute, hour, month), (time.minute, time.hour, time.month), strict=True)
    ]
    on_day = any(time.day in item.values for item in day)
    on_weekday = any(time.isoweekday() in (value or 7 for value in item.values) for item in weekday)
    either = not any(item.star for item in [*day, *weekday])
    return all(is_in) and ((on_day or on_weekday) if either else (on_day and on_weekday))


@settings(max_examples=30, deadline=None)
@given(st.tuples(st.just("0"), numbers(1), numbers(2), st.just("*"), numbers(4)).map(" ".join))
def test_fires_in_just_the_hours_of_crons_rule(expression: str):
    begin, fields = datetime(2026, 2, 15, tzinfo=UTC), parse_cron(expression)
    hours = [begin + timedelta(hours=hour) for hour in range(30 * 24)]
    expected = [time for time in hours if matches(fields, time)][:40]

    trigger, before, now = cron_trigger(expression, "UTC"), None, begin
    found = []
    for _ in expected:
        before = now = trigger.get_next_fire_time(before, now)
        found.append(now)

    assert found == expected


def test_jitter_delays_by_at_most_what_is_configured():
    now = datetime(2026, 3, 1, tzinfo=ZoneInfo("UTC"))
    times = {cron_trigger("0 3 * * *", "UTC", 600).get_next_fire_time(None, now) for _ in range(20)}

    assert len(times) > 10
    assert all(timedelta(0) <= time - now.replace(hour=3) <= timedelta(seconds=600) for time in times)


def test_a_bad_expression_is_refused_by_name():
    with pytest.raises(ConfigError, match="cron '0 25 \\* \\* \\*': hour '25': 25 is out of bounds; allowed: 0 to 23"):
        cron_trigger("0 25 * * *", "UTC")


@pytest.mark.parametrize("name", ["Europe/Berlim", "Europe", "/etc/passwd", "../UTC", ""])
def test_an_unknown_time_zone_is_refused(name: str):
    with pytest.raises(ValidationError, match="no such time zone; allowed: names of the IANA database"):
        ScheduleConfig(timezone=name)
