"""Splits and spans in the report: what each was made of, how its images are spread, what is found in the newest."""

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome

from components.artifacts import Drift, Quarantine, Spans
from components.spans.drift import CLASS, DRIFT_FILE, L_INFINITY, Column, Comparison, DriftRecord, SpanSummary
from components.spans.records import WINDOW_FILE, SpanRecord, WindowRecord
from pipeline.records.executions import StageRecord
from pipeline.records.summary import RunSummary
from pipeline.report.data import MOST_SPANS, plot, read_statistics
from pipeline.report.page import write_report
from pipeline.report.runs import RunRecord
from tests.pipeline.report.hand_made import EVIL, NAMES, SPLITS, make_summary, placed, stage, write_statistics
from tests.pipeline.report.test_page import headings

WriteReport = Callable[..., str]


def summary_of(name: str, *quantiles: float) -> SpanSummary:
    """A span with three classes, whose heights and brightness are spread alike."""
    column = Column(mean=quantiles[2], quantiles=quantiles)
    return SpanSummary(
        name=name,
        number=1,
        version=0,
        images=10,
        bad=0,
        class_shares={"sky": 0.75, EVIL: 0.25, "void deck": 0.0},
        class_images={"sky": 1.0, EVIL: 0.5, "void deck": 0.0},
        columns={"height": column, "void_fraction": column},
    )


def drift_of(*spans: SpanSummary, findings: tuple[str, ...] = ()) -> DriftRecord:
    """What was measured of the last one of some spans."""
    comparisons = [
        Comparison(column=CLASS, measure=L_INFINITY, value=0.4, threshold=0.3),
        Comparison(column="void_fraction", measure="Jensen-Shannon divergence", value=0.02, threshold=0.3),
    ]
    return DriftRecord(
        newest=spans[-1].name,
        compared_with=[span.name for span in spans[:-1]],
        spans=list(spans),
        comparisons=comparisons if len(spans) > 1 else [],
        findings=list(findings),
    )


def span(name: str, role: str, **values: Any) -> SpanRecord:
    images = {"train": 1200, "val": 2, "test": 3}
    state = {"number": 1, "version": 0, "name": name, "folder": "", "fingerprint": "", "cached": role != "window"}
    return SpanRecord.model_validate(state | {"role": role, "images": images, "bad": {}} | values)


RECORD = WindowRecord(
    spans=[
        span("span-1", "evaluation"),
        span("span-1", "replay", replayed=7),
        span("span-2", "reference"),
        span("span-3", "window", bad={"size mismatch": 4}, dropped=5),
    ],
    skipped={"span-0": f"{EVIL} is still being copied"},
    repeated=0.0,
)
TWO = (summary_of("span-2", 0, 1, 2, 3, 4), summary_of("span-3", 2, 2, 2, 6, 8))


@pytest.fixture
def write(tmp_path: Path) -> WriteReport:
    """Writes the report of a run that left these records, and reads it."""

    def report(record: WindowRecord | None, drift: DriftRecord | None, summary: RunSummary | None = None) -> str:
        quarantine = placed(Quarantine(), tmp_path / "quarantine")
        stages: dict[str, StageRecord] = {"ImageExampleGen": stage("ImageExampleGen", {"quarantine": quarantine})}
        if record:
            spans = placed(Spans(), tmp_path / "spans")
            (tmp_path / "spans" / WINDOW_FILE).write_text(record.model_dump_json())
            stages["ImageExampleGen"].outputs["spans"] = [spans]
        if drift:
            stages["SpanDrift"] = stage("SpanDrift", {"drift": placed(Drift(), tmp_path / "drift")})
            (tmp_path / "drift" / DRIFT_FILE).write_text(drift.model_dump_json())
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        return write_report(RunRecord(summary or make_summary(), stages, folder)).read_text()

    return report


def cells(html: str, heading: str) -> list[list[str]]:
    """The cells of the first table after a heading, without what stands in the table's head."""
    table = html.split(f">{heading}</h")[1].split("<tbody>")[1].split("</tbody>")[0]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in table.split("</tr>")[:-1]]
    return [[unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in row] for row in rows]


def test_each_span_stands_with_its_role_and_its_images(write: WriteReport):
    html = write(RECORD, drift_of(*TWO))

    assert cells(html, "Spans") == [
        ["span-1", "evaluation", "1,200", "2", "3", "0", "0", "", "cached"],
        ["span-1", "replay", "1,200", "2", "3", "0", "0", "7", "cached"],
        ["span-2", "reference", "1,200", "2", "3", "0", "0", "", "cached"],
        ["span-3", "window", "1,200", "2", "3", "4", "5", "", ""],
    ]


def test_distances_stand_beside_their_thresholds_and_findings_before_them(write: WriteReport):
    finding = "class drifted: L-infinity distance 0.400 from the spans before"
    html = write(RECORD, drift_of(*TWO, findings=(finding,)))

    assert f'<li class="failed">{finding}</li>' in html
    assert cells(html, "Is span-3 like the data before it?") == [
        ["class frequencies L-infinity distance", "", "0.400", "0.3"],
        ["void fraction Jensen-Shannon divergence", "", "0.020", "0.3"],
    ]
    assert html.count('<td class="number failed">') == 1


def test_classes_and_columns_are_drawn_span_beside_span(write: WriteReport):
    html = write(RECORD, drift_of(*TWO))

    assert html.count('title="sky: 75.0 %"') == 2
    assert "void deck: 0.0 %" not in html, "what does not occur takes no width"
    assert cells(html, "height") == [["span-2", ""], ["span-3", ""]]
    assert 'title="2 to 8; half of the images 2 to 6; median 2, mean 2"' in html
    assert "void fraction</h3>" in html


def test_positions_are_percent_of_the_axis_of_all_spans():
    drawn = plot("height", TWO)

    assert (drawn.start, drawn.end) == ("0", "8")
    first, second = drawn.boxes
    assert (first.least, first.low, first.middle, first.high, first.greatest) == (0, 12.5, 25, 37.5, 50)
    assert (second.least, second.low, second.middle, second.high, second.greatest) == (25, 25, 25, 75, 100)


def test_images_that_are_all_alike_stand_in_the_middle():
    (box,) = plot("height", [summary_of("span-1", 5, 5, 5, 5, 5)]).boxes

    assert {box.least, box.low, box.middle, box.high, box.greatest} == {50.0}


def test_of_many_spans_the_newest_are_drawn(write: WriteReport):
    spans = [summary_of(f"s{number:03}", 0, 1, 2, 3, 4) for number in range(MOST_SPANS + 5)]
    html = write(RECORD, drift_of(*spans))

    drawn = [name for name, *_ in cells(html, "height")]
    assert drawn == [span.name for span in spans[5:]]
    assert f"The newest {MOST_SPANS} of {MOST_SPANS + 5} spans are drawn." in html


def test_a_first_span_has_nothing_to_be_compared_with(write: WriteReport):
    html = write(RECORD, drift_of(TWO[0]))

    assert "No distribution was compared: there is no span before it." in html
    assert "Nothing found" not in html


def test_a_run_that_ended_before_the_comparison_shows_its_spans_alone(write: WriteReport):
    html = write(RECORD, None)

    assert "Spans" in headings(html)
    assert "like the data before it" not in html


def test_data_without_spans_have_no_such_section(write: WriteReport):
    assert "Spans" not in headings(write(None, None))


def test_names_and_reasons_stay_text(write: WriteReport):
    assert "<script>alert" not in write(RECORD, drift_of(*TWO, findings=(EVIL,)))


def test_a_browser_draws_boxes_and_shares_to_scale_on_a_phone(write: WriteReport, tmp_path: Path, browser: Chrome):
    write(RECORD, drift_of(*TWO))
    phone = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    browser.get((tmp_path / "run" / "report.html").as_uri())

    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
    share, width = (
        browser.execute_script(f"return document.querySelector('{css}').getBoundingClientRect().width")
        for css in (".stack > span", ".stack")
    )
    assert share == pytest.approx(0.75 * width, abs=1)
    box, quarters = (
        browser.execute_script(f"return document.querySelectorAll('{css}')[1].getBoundingClientRect().toJSON()")
        for css in (".box", ".box .quarters")
    )
    assert quarters["left"] == pytest.approx(box["left"] + 0.25 * box["width"], abs=1)
    assert quarters["right"] == pytest.approx(box["left"] + 0.75 * box["width"], abs=1)


def test_each_split_has_its_sizes_void_and_classes(tmp_path: Path):
    train, test = read_statistics(write_statistics(tmp_path / "statistics", SPLITS), NAMES)
    assert (train.name, train.images, train.void) == ("train", 3, 0.25)
    assert train.spreads == {"width": "64", "height": "48 / 72 / 96", "brightness": "0.25", "contrast": "0.12"}
    assert train.class_shares == pytest.approx({"sky": 7 / 8, EVIL: 1 / 8, "void deck": 0})
    assert train.class_images == {"sky": 2, EVIL: 1, "void deck": 0}
    assert (test.images, test.class_images["sky"], test.class_shares[EVIL]) == (1, 0, 1.0)
