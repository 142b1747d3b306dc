"""Charts: places worked by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.charts import MOST_X_TICKS, Axis, Chart, round_top


def test_lines_span_the_chart_and_leave_gaps_out():
    chart = Chart("IoU", Axis(0, [50, 100], ["50", "100 steps"]), top=1.0)
    chart.draw("mean", [0.5, 1.0])
    chart.draw("road", [None, 1.0])
    chart.mark(100, 1.0, "kept")
    assert [line.points for line in chart.lines] == ["224.0,111.0 396.0,10.0", "396.0,10.0"]
    assert (chart.marks[0].x, chart.marks[0].y) == (396.0, 10.0)
    assert chart.x_ticks == [(224.0, "50"), (396.0, "100 steps")]
    assert chart.y_ticks == [(212.0, "0"), (161.5, "0.25"), (111.0, "0.5"), (60.5, "0.75"), (10.0, "1")]


def test_many_places_have_few_ticks_and_one_at_the_end():
    chart = Chart("IoU", Axis(0, range(10, 1000, 10), [str(place) for place in range(10, 1000, 10)]), top=1.0)
    assert len(chart.x_ticks) <= MOST_X_TICKS and chart.x_ticks[-1][1] == "990"


def test_a_single_place_stands_in_the_middle():
    assert Chart("IoU", Axis(0, [0], ["today"]), top=1.0).x_ticks == [(224.0, "today")]


@pytest.mark.parametrize(("greatest", "top"), [(0, 1), (0.7, 0.8), (1, 1), (1.1, 2), (283.6, 400), (9000, 10000)])
def test_an_axis_ends_at_a_round_number(greatest: float, top: float):
    assert round_top([None, 0.0, greatest]) == pytest.approx(top)


@given(st.floats(1e-6, 1e12))
def test_an_axis_has_room_for_its_values_and_no_more_than_needed(greatest: float):
    assert greatest <= round_top([greatest]) <= 2.5 * greatest
