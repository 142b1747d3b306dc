import calendar
import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data.errors import ConfigError
from pipeline.cron import CronTrigger, server_cron
from pipeline.sections.schedule import ScheduleConfig
from tests.pipeline.kubeflow import robfig


def fires(expression: str, begin: str, number: int, timezone: str = "UTC") -> list[str]:
    """The next times after `begin`, in UTC."""
    trigger, now, before = CronTrigger(expression, timezone), datetime.fromisoformat(begin), None
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
        # A star anywhere in the list restricts nothing.
        ("0 3 1,* * 5", ["Fri 2026-02-27", "Fri 2026-03-06"]),
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
    trigger, now = CronTrigger(f"{minute} {hour} * * *", timezone), datetime(2026, 1, 1, tzinfo=ZoneInfo(timezone))
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


def numbers(low: int, high: int) -> st.SearchStrategy[str]:
    """A star or a list of values of a field."""
    values = st.lists(st.integers(low, high), min_size=1, max_size=3)
    return st.one_of(st.just("*"), values.map(lambda some: ",".join(map(str, some))))


def matches(expression: str, time: datetime) -> bool:
    """Cron's rule (crontab(5)) for an hour, where minute and month are not restricted."""
    _, hour, day, _, weekday = expression.split()
    in_hour, on_day, on_weekday = (
        text == "*" or any(value in map(int, text.split(",")) for value in values)
        for text, values in (
            (hour, [time.hour]),
            (day, [time.day]),
            (weekday, [time.isoweekday(), time.isoweekday() % 7]),
        )
    )
    return in_hour and ((on_day and on_weekday) if "*" in (day, weekday) else (on_day or on_weekday))


@settings(max_examples=30, deadline=None)
@given(st.tuples(st.just("0"), numbers(0, 23), numbers(1, 31), st.just("*"), numbers(0, 7)).map(" ".join))
def test_fires_in_just_the_hours_of_crons_rule(expression: str):
    begin = datetime(2026, 2, 15, tzinfo=UTC)
    hours = [begin + timedelta(hours=hour) for hour in range(30 * 24)]
    expected = [time for time in hours if matches(expression, time)][:40]

    trigger, before, now = CronTrigger(expression, "UTC"), None, begin
    found = []
    for _ in expected:
        before = now = trigger.get_next_fire_time(before, now)
        found.append(now)

    assert found == expected


def test_times_missed_while_the_machine_slept_become_one():
    before, now = datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2026, 3, 4, 9, 30, tzinfo=UTC)

    assert CronTrigger("*/5 * * * *", "UTC").get_next_fire_time(before, now) == now
    assert CronTrigger("0 * * * *", "UTC").get_next_fire_time(before, now) == now.replace(hour=10, minute=0)


def test_jitter_delays_by_at_most_what_is_configured():
    now = datetime(2026, 3, 1, tzinfo=ZoneInfo("UTC"))
    times = {CronTrigger("0 3 * * *", "UTC", 600).get_next_fire_time(None, now) for _ in range(20)}

    assert len(times) > 10
    assert all(timedelta(0) <= time - now.replace(hour=3) <= timedelta(seconds=600) for time in times)


@pytest.mark.parametrize("name", ["Europe/Berlim", "Europe", "/etc/passwd", "../UTC", ""])
def test_an_unknown_time_zone_is_refused(name: str):
    with pytest.raises(ValidationError, match="no such time zone; allowed: names of the IANA database"):
        ScheduleConfig(timezone=name)


@pytest.mark.parametrize(
    ("five", "six"),
    [
        ("0 3 * * *", "0 0 3 * * *"),
        ("*/15 9-17 * * 1-5", "0 */15 9-17 * * 1-5"),
        ("05 04 1,15 * *", "0 5 4 1,15 * *"),
        ("0-30/10 0 * * *", "0 0-30/10 0 * * *"),
        ("0 0 * JAN-mar Mon,wed", "0 0 0 * 1-3 1,3"),
        ("0 0 * * 7", "0 0 0 * * 0"),
        ("0 0 * * 5-7", "0 0 0 * * 0,5,6"),
        ("0 0 * * sat-sun", "0 0 0 * * 0,6"),
        ("0 0 * * sun-sun", "0 0 0 * * 0"),
        ("0 0 * * sun-tue", "0 0 0 * * 0-2"),
        ("0 0 * * 1-7/2", "0 0 0 * * 0,1,3,5"),
        ("0 0 * * */2", "0 0 0 * * */2"),
        ("0 0 29 2 *", "0 0 0 29 2 *"),
        ("0 0 30 2 mon", "0 0 0 30 2 1"),
        (" 0\t3 * *  * ", "0 0 3 * * *"),
    ],
)
def test_five_fields_become_the_servers_six(five: str, six: str):
    assert robfig.parse(server_cron(five)) == robfig.parse(six)


def test_unconverted_the_server_would_run_every_hour():
    midnight = datetime(2026, 3, 1, tzinfo=UTC)
    day = [midnight + timedelta(seconds=s) for s in range(0, 86400, 30)]

    unconverted = [time for time in day if robfig.parse("0 3 * * *").fires(time)]
    converted = [time for time in day if robfig.parse(server_cron("0 3 * * *")).fires(time)]

    assert len(unconverted) == 24 and unconverted[0] == midnight + timedelta(minutes=3)
    assert converted == [midnight + timedelta(hours=3)]


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("0 3 * *", "has 4 fields; allowed: five, minute, hour, day of month, month, day of week"),
        ("0 0 3 * * *", "has 6 fields"),
        ("", "has 0 fields"),
        ("@daily", "has 1 fields"),
        ("60 * * * *", "minute '60': '60' is not understood; allowed: 0 to 59, ranges such as 0-2, lists"),
        ("* 24 * * *", "hour '24': '24' is not understood; allowed: 0 to 23"),
        ("* * 0 * *", "day of month '0': '0' is not understood; allowed: 1 to 31"),
        ("* * * 13 *", "month '13': '13' is not understood; allowed: 1 to 12 or jan to dec"),
        ("* * * * 8", "day of week '8': '8' is not understood; allowed: 0 to 7 or sun to sat"),
        ("jan * * * *", "minute 'jan': 'jan' is not understood"),
        ("* * * * monday", "day of week 'monday': 'monday' is not understood"),
        ("* * * mon *", "month 'mon': 'mon' is not understood"),
        ("* * ? * *", "day of month '?': '?' is not understood"),
        ("* * L * *", "day of month 'l': 'l' is not understood"),
        ("* * * * 5#2", "day of week '5#2': '5#2' is not understood"),
        ("-1 * * * *", "minute '-1': '-1' is not understood"),
        ("1.5 * * * *", "minute '1.5': '1.5' is not understood"),
        ("\u0661 * * * *", "is not understood"),
        ("1,,2 * * * *", "minute '1,,2': '' is not understood"),
        ("*/0 * * * *", "minute '*/0': '*/0' is not understood"),
        ("* */24 * * *", "hour '*/24': '*/24' is not understood"),
        ("* */24 * * *", "allowed: 0 to 23, ranges such as 0-2, lists, *, */n, a-b/n with n up to 23"),
        ("5/10 * * * *", "minute '5/10': '5/10' is not understood"),
        ("* 22-2 * * *", "hour '22-2': '22-2' is not understood"),
        ("* * * * fri-mon", "day of week 'fri-mon': 'fri-mon' is not understood"),
        ("*-3 * * * *", "minute '*-3': '*-3' is not understood"),
        ("0 0 30 2 *", "day of month 30 does not come in the months named"),
        ("0 0 31 4,6,9,11 *", "day of month 31 does not come in the months named"),
        ("0 0 31 2-4/2 */2", "day of month 31 does not come in the months named"),
    ],
)
def test_a_wrong_field_is_named_with_what_is_allowed(expression: str, complaint: str):
    with pytest.raises(ConfigError, match=re.escape(complaint)) as raised:
        server_cron(expression)

    assert repr(expression) in str(raised.value)
    assert "allowed" in str(raised.value)


#: (low, high, names) of each field.
SHAPES = [
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, dict(enumerate(robfig.MONTHS, start=1))),
    (0, 7, dict(enumerate(robfig.WEEKDAYS))),
]


@st.composite
def items(draw: st.DrawFn, low: int, high: int, names: dict[int, str]) -> tuple[str, set[int], bool]:
    """(text, values, whether it is a star) of one item of a field."""
    kind = draw(st.sampled_from(["star", "star step", "value", "range", "range step"]))
    step = draw(st.integers(1, high)) if "step" in kind else 1
    suffix = f"/{step}" if "step" in kind else ""
    if kind.startswith("star"):
        return f"*{suffix}", set(range(low, (6 if high == 7 else high) + 1, step)), True
    first = draw(st.integers(low, high))
    last = first if kind == "value" else draw(st.integers(first, high))
    text = "-".join(
        draw(st.sampled_from([str(number), f"{number:02}", names.get(number, str(number)).title()]))
        for number in ([first] if kind == "value" else [first, last])
    )
    return text + suffix, set(range(first, last + 1, step)), False


@st.composite
def expressions(draw: st.DrawFn) -> tuple[str, list[set[int]], list[bool]]:
    """(five fields, the values of each, whether each holds a star), by construction."""
    texts, values, stars = [], [], []
    for low, high, names in SHAPES:
        parts = draw(st.lists(items(low, high, names), min_size=1, max_size=3))
        texts.append(",".join(text for text, _, _ in parts))
        values.append(set().union(*(each for _, each, _ in parts)))
        stars.append(any(star for _, _, star in parts))
    values[4] = {day % 7 for day in values[4]}
    return " ".join(texts), values, stars


@given(expressions())
@example(("0 0 1 1 0,7", [{0}, {0}, {1}, {1}, {0}], [False] * 5))
@example(("0 0 1 1 00-sun", [{0}, {0}, {1}, {1}, {0}], [False] * 5))
@example(("0 0 1 1 sun-Sun", [{0}, {0}, {1}, {1}, {0}], [False] * 5))
def test_the_server_reads_what_was_meant(drawn: tuple[str, list[set[int]], list[bool]]):
    text, values, stars = drawn
    comes = any(min(values[2]) <= calendar.monthrange(2024, month)[1] for month in values[3])
    if stars[4] and not comes:
        with pytest.raises(ConfigError, match="never runs"):
            server_cron(text)
        return

    read = robfig.parse(server_cron(text))

    assert read.seconds == {0}
    assert [read.minutes, read.hours, read.days, read.months, read.weekdays] == values
    assert (read.star_days, read.star_weekdays) == (stars[2], stars[4])


@given(st.text(alphabet="0123456789*/-,? LW#abdmonsuj@", max_size=20))
def test_any_other_text_is_refused_or_read_by_the_server(text: str):
    try:
        converted = server_cron(text)
    except ConfigError:
        return

    assert robfig.parse(converted).seconds == {0} and len(converted.split()) == 6
