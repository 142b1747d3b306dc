"""The page of all runs: each run as it ended, and how they developed."""

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from pipeline.records.summary import SUMMARY_FILE
from pipeline.report.index import write_index
from pipeline.workspace import REPORT_FILE, Workspace
from tests.pipeline.report.hand_made import BLESSED, EVIL, METRICS, make_summary


def finish(workspace: Workspace, run_id: str, **values: Any) -> None:
    """Leaves a run's record and report."""
    folder = workspace.start_run(run_id)
    (folder / SUMMARY_FILE).write_text(make_summary(run_id=run_id, **values).model_dump_json())
    (folder / REPORT_FILE).write_text("")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Four runs: blessed, refused, failed, killed."""
    places = Workspace(tmp_path / EVIL.replace("/", ""))
    worse = METRICS.model_copy(update={"mean_iou": 0.5})
    finish(places, "20260101-010000-000", **BLESSED)
    finish(places, "20260102-010000-000", **BLESSED | {"metrics": worse, "blessed": False, "cached": ["Trainer"]})
    finish(places, "20260103-010000-000", status="failed", error=f"{EVIL}: no such file\nmore")
    places.start_run("20260104-010000-000")
    return places


def rows(html: str) -> list[list[str]]:
    """The cells of the table."""
    found = html.split("<tbody>")[1].split("</tbody>")[0].split("</tr>")[:-1]
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in found]
    return [[unescape(re.sub(r"<[^>]*>", " ", cell)).strip() for cell in row] for row in cells]


def test_every_run_is_listed_as_it_ended(workspace: Workspace):
    html = write_index(workspace).read_text()
    assert [row[:3] for row in rows(html)] == [
        ["20260104-010000-000", "No record: killed, or still running", "–"],  # noqa: RUF001
        ["20260103-010000-000", f"The run failed   {EVIL}: no such file", "–"],  # noqa: RUF001
        ["20260102-010000-000", "Not blessed", "0.5000"],
        ["20260101-010000-000", "Blessed, and pushed as version 7", "0.7571"],
    ]
    assert rows(html)[3][3:] == ["+0.0571", "1,247", "4 min 44 s", "4 min 52 s"]
    assert rows(html)[2][5] == "–", "a training that was taken from the cache took no time"  # noqa: RUF001


def test_reports_are_linked_where_there_are_any(workspace: Workspace):
    links = re.findall(r'href="([^"]*)"', write_index(workspace).read_text())
    assert links[1:] == [f"2026010{day}-010000-000/report.html" for day in (3, 2, 1)]
    assert all((workspace.runs / link).exists() for link in links[1:])


def test_trends_mark_each_run_that_has_the_value_by_its_headline(workspace: Workspace):
    html = write_index(workspace).read_text()
    charts = {title: html.split(f"<h2>{title}</h2>")[1].split("</svg>")[0] for title in
              ("mean IoU on the test split", "training, in minutes", "images")}  # fmt: skip
    assert [re.findall(r'class="(dot|ring)"', chart) for chart in charts.values()] == [
        ["dot", "ring"],
        ["dot"],
        ["dot", "ring"],
    ]
    assert "20260102-010000-000: 0.5. Not blessed" in charts["mean IoU on the test split"]


def test_a_workspace_in_which_nothing_ended_has_a_page_without_trends(tmp_path: Path):
    workspace = Workspace(tmp_path)
    workspace.start_run("20260104-010000-000")
    html = write_index(workspace).read_text()
    assert "<svg" not in html and len(rows(html)) == 1


def test_names_and_errors_stay_text_and_no_script_is_on_the_page(workspace: Workspace):
    assert "<script" not in write_index(workspace).read_text()
