"""The model card says what the run's record says, names weaknesses by itself, and keeps names as text."""

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config
from pipeline.records.executions import StageRecord
from pipeline.records.summary import BaselineSummary, DataSummary, ModelSummary, RunSummary
from pipeline.report.model_card import MARKDOWN_FILE, PAGE_FILE, found_limits, write_model_card
from pipeline.report.render import escape_markdown, markdown_page
from pipeline.report.scores import class_scores
from tests.pipeline.report.hand_made import HUB, LITE, make_metrics

EVIL = "a|b <i> *c* [d](http://e)"

METRICS = make_metrics(EVIL).model_copy(update={"slices": {"source:a": 0.75, "source:b": 0.25, "source:c": None}})


def make_summary(**changes: Any) -> RunSummary:
    labels = {"classes": [{"name": name} for name in METRICS.iou]}
    config = Config.model_validate(
        {
            "data": {"path": "photos", "layout": "voc", "label_map": labels, "license": "CC BY 4.0"},
            "push": {"model_name": "streets"},
            "card": {"intended_use": "Counting trees.", "limits": ["never tried in *snow*"]},
        }
    )
    values = {
        "run_id": "20260101-000000-000",
        "status": "succeeded",
        "config": config.model_dump(mode="json"),
        "config_hash": "0123abcd",
        "data": DataSummary(
            images={"train": 1240, "val": 3, "test": 4}, quarantined=2, reasons={"size mismatch": 2}, spans=[0]
        ),
        "model": ModelSummary(backbone="mobilenet_v2", output_stride=16, params=2_600_000, steps=900),
        "metrics": METRICS,
        "baseline": BaselineSummary(version=6, mean_iou=0.7),
        "blessed": True,
        "reasons": ["mean IoU 0.7571 reaches evaluation.min_mean_iou=0.5"],
    }
    return RunSummary.model_validate(values | changes)


STAGES = {"Trainer": StageRecord("Trainer", "ran", 1.0, {"code_hash": "beef"}, {})}


def rows(text: str) -> list[list[str]]:
    """The cells of all tables of a Markdown text."""
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text.splitlines() if "|" in line]


@pytest.fixture
def card(tmp_path: Path) -> str:
    write_model_card(make_summary(lite=LITE, hub=HUB), STAGES, tmp_path)
    return (tmp_path / MARKDOWN_FILE).read_text()


def test_the_card_has_data_scores_and_origin(card: str):
    for line in (
        "# Model card: streets",
        "Counting trees.",
        "- licence: CC BY 4.0",
        "- train: 1240 images (fits the weights)",
        "- quarantined as unusable: 2",
        "  - 2: size mismatch",
        "- Trainer: ran, code beef",
        "- run 20260101-000000-000, configuration 0123abcd; the whole configuration is in the run's summary.json",
    ):
        assert line in card.splitlines()
    table = rows(card)
    assert ["mean IoU", "0.7571"] in table
    assert ["mean class accuracy", "0.9000"] in table
    assert ["mean boundary IoU", "0.3000"] in table
    assert ["mean IoU in the trimap", "0.4000"] in table
    assert ["calibration error; lower is better", "0.0500"] in table
    assert ["mean IoU, 95 % confidence interval over 4 test images", "0.7100 to 0.7900"] in table
    assert ["mean IoU of version 6, served before", "0.7000"] in table
    assert ["class", "IoU", "Dice", "boundary IoU", "share of the labelled pixels"] in table
    assert ["sky", "0.8000", "0.8750", "0.1250", "66.67 %"] in table
    assert ["void deck", "none", "0.8750", "0.1250", "0.00 %"] in table
    assert ["source:c", "none"] in table
    assert ["float16", "0.7499", "3.25", "5", "pushed"] in table
    assert ["segmenter", "0.7500", "7", "pushed"] in table
    assert [r"feature\_extractor", "0.5000", "", "left out: mean IoU 0.5000"] in table
    (int8,) = (row for row in table if row[0] == "int8")
    assert "left out: mean IoU 0.5000" in int8[4]


def test_a_record_of_an_earlier_version_gives_the_scores_that_it_has(tmp_path: Path):
    metrics = METRICS.model_copy(update={"scores": None, "mean_iou_interval": None})

    write_model_card(make_summary(metrics=metrics), STAGES, tmp_path)

    table = rows((tmp_path / MARKDOWN_FILE).read_text())
    assert ["pixel accuracy", "0.8667"] in table and ["sky", "0.8000", "66.67 %"] in table
    assert not any("class accuracy" in row[0] or "interval" in row[0] for row in table)


def test_weaknesses_are_named():
    assert found_limits(make_summary(), METRICS, class_scores(METRICS)) == [
        "source:b: mean IoU 0.25, far below that of the whole test split, 0.76",
        "class void deck is not in the test labels: nobody knows how good it is",
        "evaluated on 4 images only: the scores may be off by several points",
        "images unlike those of the data (other cameras, light, places) were not tested",
    ]


def test_the_page_shows_names_as_text(card: str, tmp_path: Path):
    page = (tmp_path / PAGE_FILE).read_text()

    assert EVIL in unescape(page)
    assert "<li>never tried in *snow*</li>" in page
    assert "<i>" not in page and 'href="http' not in page
    assert re.search(r"<title>Model card: streets</title>", page)


@pytest.mark.parametrize("text", [EVIL, "# head", "- item", "+1", "=====", "`code`", "a\nb", "~~x~~", "&lt;", "\\"])
def test_any_text_survives_markdown(text: str):
    page = markdown_page(f"| {escape_markdown(text)} | b |\n| --- | --- |\n\n{escape_markdown(text)}", "t")

    found = [unescape(part) for part in re.findall(r"<(?:th|p)>(.*?)</(?:th|p)>", page)]
    assert found == [" ".join(text.split()), "b", " ".join(text.split())]


def test_the_card_goes_into_the_pushed_version(tmp_path: Path):
    version = tmp_path / "serving/streets/7"
    version.mkdir(parents=True)

    write_model_card(make_summary(pushed_version=7, pushed_path=str(version)), STAGES, tmp_path)

    pushed = (version / "assets.extra" / MARKDOWN_FILE).read_text()
    assert pushed == (tmp_path / MARKDOWN_FILE).read_text()
    assert ["model", "streets version 7"] in rows(pushed)
    assert "python local_runner.py lineage 7 --model streets" in pushed


def test_a_run_that_was_not_evaluated_has_no_card(tmp_path: Path):
    write_model_card(make_summary(metrics=None), STAGES, tmp_path)

    assert list(tmp_path.iterdir()) == []
