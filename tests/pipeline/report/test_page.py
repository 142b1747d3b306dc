"""The report of a run: what it says of good, refused and failed runs, and that names in it stay text."""

import json
import re
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from components.artifacts import INFRA_BLESSED
from pipeline.metadata.outline import Outline
from pipeline.records.executions import StageRecord
from pipeline.records.summary import MetricsSummary
from pipeline.workspace import CONFIG_FILE
from tests.pipeline.report.hand_made import BLESSED, EVIL, HUB, LITE, METRICS, RATE, WEIGHTS, make_summary

WritePage = Callable[..., str]


def headings(html: str) -> list[str]:
    """All headings of the first two levels, in their order."""
    return [unescape(text) for text in re.findall(r"<h[12][^>]*>(.*?)</h[12]>", html)]


def section(html: str, name: str) -> str:
    """The text of a section, by the id of its heading; without tags, in one line."""
    part = html.split(f'aria-labelledby="{name}"')[1].split("</section>")[0]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", part)).split())


def test_a_pushed_model_is_announced_first_with_version_reasons_and_path(page: WritePage):
    html = page(make_summary(**BLESSED), origin=Outline("demo version 7"))
    assert headings(html) == [
        "Blessed, and pushed as version 7",
        "Scores on the test split",
        "IoU by class",
        "What is taken for what",
        "Mean IoU by slice",
        "Predictions",
        "Hyperparameter search",
        "Training",
        "Data",
        "Stages",
        "Where the pushed version comes from",
        "More",
    ]
    assert "mean IoU 0.7571 reaches evaluation.min_mean_iou=0.5" in html
    assert "/serving/demo/7" in html


def test_scores_stand_beside_those_of_the_served_model_with_intervals(page: WritePage):
    html = page(make_summary(**BLESSED))
    text = section(html, "scores")
    assert "mean IoU 0.7571 95 %: 0.710 to 0.790" in text
    assert "against served version 6 +0.0571 95 %: +0.010 to +0.090" in text
    assert "mean boundary IoU 0.3000 0.3000 +0.0000" in text
    assert "calibration error; lower is better 0.0500 0.0500 +0.0000" in text
    assert "sky 0.800 0.600 66.7 %" in section(html, "classes")
    assert "sky 0.800 0.875 0.750 0.625 0.125" in section(html, "classes")
    assert "source:a 0.750 0.500" in section(html, "slices")


def test_a_change_too_small_to_show_has_no_minus(page: WritePage):
    barely = METRICS.scores.model_copy(update={"calibration_error": 0.04999}) if METRICS.scores else None
    html = page(make_summary(**BLESSED | {"metrics": METRICS.model_copy(update={"scores": barely})}))
    assert "lower is better 0.0500 0.0500 +0.0000" in section(html, "scores")


def test_the_score_of_a_constant_prediction_stands_beside_that_of_the_model(page: WritePage):
    constant = METRICS.model_copy(update={"constant_class": "sky", "constant_mean_iou": 0.3333})
    summary = make_summary(**BLESSED | {"metrics": constant})
    text = section(page(summary), "scores")
    assert "always predicting sky 0.3333 mean IoU" in text
    assert "The vertical mark is the floor, evaluation.min_mean_iou = 0.5." in text

    summary.config["evaluation"]["min_mean_iou"] = 0.0
    html = page(summary)
    assert (
        "The vertical mark is the floor, 0.3333, which always predicting sky, the commonest class of the test split, "
        "reaches." in section(html, "scores")
    )
    assert "left: 33.33%" in html


def test_what_is_degenerate_in_the_data_is_shown(page: WritePage):
    data = BLESSED["data"].model_copy(update={"degenerate": [f"split val: all pixels have the class {EVIL}"]})
    assert f"split val: all pixels have the class {EVIL}" in section(
        page(make_summary(**BLESSED | {"data": data})), "data"
    )


def test_without_a_served_model_there_is_no_column_for_one(page: WritePage):
    html = page(make_summary(**BLESSED | {"baseline": None}))
    assert "against served" not in html and "change</th>" not in html
    assert "No comparable model was served when the run began." in html


def test_a_record_of_an_earlier_version_has_the_scores_that_it_knows(page: WritePage):
    known = METRICS.model_dump(exclude={"scores", "mean_iou_interval"})
    text = section(page(make_summary(**BLESSED | {"metrics": MetricsSummary.model_validate(known)})), "scores")
    assert "pixel accuracy 0.8667 0.8667" in text
    assert re.search("mean boundary IoU . 0.3000 .", text), "the served model has it"


def test_a_run_that_failed_at_once_has_its_error_and_nothing_it_did_not_do(page: WritePage):
    error = f"{EVIL}: no such file\n  second line"
    html = page(make_summary(status="failed", error=error, reasons=[error]), stages={})
    assert headings(html) == ["The run failed", "More"]
    assert html.count("second line") == 1


def test_names_of_files_and_classes_stay_text(page: WritePage):
    html = page(make_summary(**BLESSED, error=EVIL))
    assert "<script>alert" not in html and "<i>odd" not in html and "<b>b" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.png" in html
    assert html.count("<script>") == 1, "the slider's"


def test_nothing_is_fetched_from_elsewhere(page: WritePage):
    html = page(make_summary(**BLESSED))
    assert {link for link in re.findall(r'(?:src|href)="([^"]*)"', html) if not link.startswith("data:")} == {
        "summary.json"
    }


def test_every_cell_of_the_matrix_shows_its_numbers(page: WritePage):
    cells = re.findall(r'<td class="(?:hit|miss)[^>]*title="([^"]*)">([^<]*)<', page(make_summary(**BLESSED)))
    assert len(cells) == 9
    assert (unescape(cells[1][0]), cells[1][1]) == (f"sky taken for {EVIL}: 20.0 %, 2 pixels", "20.0")
    assert {(title.partition(":")[2], text) for title, text in cells[6:]} == {(" no labelled pixel", "\N{EN DASH}")}


def test_a_matrix_of_many_classes_is_left_to_the_summary(page: WritePage):
    names = [f"class {number}" for number in range(60)]
    metrics = METRICS.model_copy(
        update={"iou": dict.fromkeys(names, 0.5), "confusion_matrix": np.eye(60, dtype=int).tolist(), "scores": None}
    )
    summary = make_summary(metrics=metrics, blessed=True)
    summary.config["data"] = {"label_map": {"classes": [{"name": name} for name in names]}}
    html = page(summary, stages={})
    assert "The matrix of 60 classes is in" in html and 'class="matrix' not in html


def test_figures_show_the_worst_first_with_the_most_frequent_confusion(page: WritePage):
    html = page(make_summary(**BLESSED))
    captions = [" ".join(unescape(re.sub(r"<[^>]*>", "", text)).split()) for text in
                re.findall(r'<figure class="images">.*?<figcaption>(.*?)</figcaption>', html, re.DOTALL)]  # fmt: skip
    assert captions == [
        f"IoU 0.250; served model 0.125; most often {EVIL} taken for sky {EVIL}.png",
        "IoU 1.000; served model 0.125 corner.png",
        "IoU 1.000; served model 0.125 good.png",
    ]
    assert html.count("<img ") == html.count(' alt="') == 4 * len(captions)
    assert "among the 3 test images with a label" in section(html, "predictions")


def test_images_can_be_left_out(page: WritePage):
    summary = make_summary(**BLESSED)
    summary.config["report"] = {"pictures": False}
    assert "<img" not in page(summary)


@pytest.mark.parametrize("absent", ["ImageExampleGen", "Trainer", "SegmentationEvaluator", "InfraCheck"])
def test_without_a_stage_there_are_no_images(page: WritePage, stages: dict[str, StageRecord], absent: str):
    del stages[absent]
    assert "<img" not in page(make_summary(**BLESSED), stages)


def test_a_model_that_does_not_serve_is_not_loaded(page: WritePage, stages: dict[str, StageRecord]):
    stages["InfraCheck"].outputs["blessing"][0].set_int_custom_property(INFRA_BLESSED, 0)
    assert "Predictions" not in headings(page(make_summary(**BLESSED), stages))


def test_an_evaluation_without_results_for_images_leaves_no_images(page: WritePage, tmp_path: Path):
    (tmp_path / "evaluation" / "per_image.jsonl.gz").unlink()
    assert "Predictions" not in headings(page(make_summary(**BLESSED)))


def test_artifacts_deleted_since_are_left_out(page: WritePage, stages: dict[str, StageRecord], tmp_path: Path):
    for name in ("examples", "quarantine", "model_run", "statistics"):
        shutil.rmtree(tmp_path / name)
    html = page(make_summary(**BLESSED), stages)
    found = headings(html)
    assert "<img" not in html and "Training" not in found and "Data" in found


def test_files_set_aside_have_their_reasons(page: WritePage):
    html = page(make_summary(**BLESSED))
    assert "images/&lt;i&gt;odd&lt;/i&gt;.png" in html and "size mismatch: image 3x2, mask 2x3" in html


def test_the_splits_are_shown_in_numbers(page: WritePage):
    text = section(page(make_summary(**BLESSED)), "data")
    assert "train 3 64 48 / 72 / 96 0.25 0.12 25.0 %" in text
    assert "sky 87.5 % 2 0.0 % 0" in text


def test_what_changed_since_the_run_before_is_listed(page: WritePage, folder: Path):
    before = folder.parent / "20251231-000000-000"
    before.mkdir()
    summary = make_summary(**BLESSED)
    (before / CONFIG_FILE).write_text(json.dumps(summary.config | {"evaluation": {"min_mean_iou": 0.4}, "gone": 1}))
    text = section(page(summary), "diff")
    assert "setting 20251231-000000-000 this run" in text
    assert "evaluation.min_mean_iou 0.4 0.5" in text and "gone 1" in text and "tuning" not in text


def test_the_origin_of_a_pushed_version_is_a_list_in_lists(page: WritePage):
    tree = Outline("demo version 7: /serving/demo/7")
    tree.add("data: /data").add("spans: [] <b>")
    html = page(make_summary(**BLESSED), origin=tree)
    assert "demo version 7: /serving/demo/7" in section(html, "origin")
    assert "<li><span>data: /data</span><ul>" in html and "<li><span>spans: [] &lt;b&gt;</span></li>" in html


def test_models_for_other_targets_stand_beside_the_saved_model(page: WritePage):
    text = section(page(make_summary(**BLESSED, lite=LITE, hub=HUB)), "targets")
    assert "SavedModel 0.7500" in text
    assert "float16 0.7499 -0.0001 3.2 5 yes" in text
    assert (
        "int8 \N{EN DASH} \N{EN DASH} \N{EN DASH} \N{EN DASH} no: mean IoU 0.5000, -0.2500, breaks lite.max_drop=0.01"
        in text
    )
    assert "For images of 48 x 64 pixels, evaluated on 4 test images" in text
    assert "segmenter 0.7500 +0.0000 7 yes feature_extractor 0.5000 -0.2500 \N{EN DASH} no: mean IoU 0.5000" in text


def test_the_model_card_is_linked_where_there_is_one(page: WritePage, folder: Path):
    assert "Model card" not in page(make_summary(**BLESSED))
    (folder / "model_card.html").touch()
    assert 'Model card: <a href="model_card.html">' in page(make_summary(**BLESSED))


def test_trials_of_a_search_stand_in_a_table_the_best_first(page: WritePage):
    part = page(make_summary(**BLESSED)).split("Hyperparameter search")[1].split("</section>")[0]
    assert "The bayesian search made 2 trials of at most" in part and "1,200 steps" in part
    cells = [unescape(cell) for cell in re.findall(r'<t[dh][^>]* ?class="number">(.*?)</t[dh]>', part)]
    assert cells == [RATE, WEIGHTS, "mean IoU", "0.001235", EVIL, "0.5000", "0.5", "random", "0.2500"]


def test_a_run_without_a_search_has_no_trials(page: WritePage):
    assert "Hyperparameter search" not in page(make_summary(**BLESSED | {"tuning": None}))


def test_stages_have_times_and_cached_marks(page: WritePage):
    rows = re.findall(r'<th scope="row">(\w+)</th>\s*<td class="grow">.*?<td class="number">(.*?)</td>\s*<td.*?>(\w*)<',
                      page(make_summary(**BLESSED)), re.DOTALL)  # fmt: skip
    assert [row for row in rows if row[0] in ("ImageExampleGen", "Trainer", "InfraCheck")] == [
        ("ImageExampleGen", "8.5 s", "cached"),
        ("Trainer", "4 min 44 s", ""),
        ("InfraCheck", "0.13 s", ""),
    ]
