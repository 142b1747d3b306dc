import calendar
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data.errors import ConfigError
from pipeline.kubeflow.cron import FIELDS, server_cron
from tests.pipeline.kubeflow import robfig


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
    assert server_cron(five) == six


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
        ("60 * * * *", "minute '60': 60 is out of bounds; allowed: 0 to 59"),
        ("* 24 * * *", "hour '24': 24 is out of bounds; allowed: 0 to 23"),
        ("* * 0 * *", "day of month '0': 0 is out of bounds; allowed: 1 to 31"),
        ("* * * 13 *", "month '13': 13 is out of bounds; allowed: 1 to 12 or jan to dec"),
        ("* * * * 8", "day of week '8': 8 is out of bounds; allowed: 0 to 7 or sun to sat"),
        ("jan * * * *", "minute 'jan': 'jan' is no value of this field"),
        ("* * * * monday", "day of week 'monday': 'monday' is no value"),
        ("* * * mon *", "month 'mon': 'mon' is no value"),
        ("* * ? * *", "day of month '?': '?' is not understood"),
        ("* * L * *", "day of month 'l': 'l' is no value"),
        ("* * * * 5#2", "day of week '5#2': '5#2' is not understood"),
        ("-1 * * * *", "minute '-1': '-1' is not understood"),
        ("1.5 * * * *", "minute '1.5': '1.5' is not understood"),
        ("\u0661 * * * *", "is not understood"),
        ("1,,2 * * * *", "minute '1,,2': an item of the list is empty"),
        ("*/0 * * * *", "minute '*/0': step 0 is not within 1 to 59"),
        ("* */24 * * *", "hour '*/24': step 24 is not within 1 to 23"),
        ("5/10 * * * *", "minute '5/10': crons differ about a step after one number; write 5-59/10"),
        ("* 22-2 * * *", "hour '22-2': the range 22-2 begins beyond its end; write two ranges"),
        ("* * * * fri-mon", "day of week 'fri-mon': the range fri-mon begins beyond its end"),
        ("*-3 * * * *", "minute '*-3': a range cannot begin with *"),
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


def test_the_fields_are_in_crons_order():
    assert [field.name for field in FIELDS] == ["minute", "hour", "day of month", "month", "day of week"]
