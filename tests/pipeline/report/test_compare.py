"""Two runs beside each other: scores, settings, and the images on which they differ."""

import copy
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from tfx.types import standard_artifacts

from pipeline.report.compare import change_interval, shared_images, write_comparison
from pipeline.report.runs import RunRecord
from tests.pipeline.report.hand_made import (
    BLESSED,
    EVIL,
    RESULTS,
    make_metrics,
    make_summary,
    placed,
    save_model,
    write_artifacts,
    write_results,
)
from tests.pipeline.report.test_page import headings, section

#: What the model says that takes red for class 0.
REVERSED: dict[str, tuple[float | None, list[list[int]]]] = {
    "good.png": (0.0, [[0, 1, 1536], [1, 0, 1536]]),
    f"{EVIL}.png": (0.25, [[1, 0, 1536], [1, 1, 1536]]),
    "void.png": (None, []),
    "corner.png": (0.0, [[1, 0, 1536]]),
    "gone.png": (1.0, [[1, 1, 4]]),
}


@pytest.fixture(scope="session")
def reversed_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Model artifact's folder."""
    return save_model(tmp_path_factory.mktemp("reversed"), reverse=True)


@pytest.fixture
def ours(tmp_path: Path, model: Path) -> RunRecord:
    return a_run(tmp_path / "ours", model, "20260102-000000-000", RESULTS)


@pytest.fixture
def theirs(tmp_path: Path, reversed_model: Path) -> RunRecord:
    run = a_run(tmp_path / "theirs", reversed_model, "20260101-000000-000", REVERSED)
    run.summary.config["evaluation"]["min_mean_iou"] = 0.25
    return run


def a_run(folder: Path, model: Path, run_id: str, results: Any) -> RunRecord:
    folder.mkdir()
    stages = write_artifacts(folder, model, served=False)
    write_results(folder / "evaluation", results, served=False)
    (folder / run_id).mkdir()
    return RunRecord(make_summary(**copy.deepcopy(BLESSED), run_id=run_id), stages, folder / run_id)


def test_scores_settings_and_images_stand_side_by_side(ours: RunRecord, theirs: RunRecord):
    metrics = make_metrics(EVIL)
    metrics.mean_iou, metrics.iou["sky"] = 0.5, 0.125
    theirs.summary.metrics = metrics
    path = write_comparison(ours, theirs)
    html = path.read_text()
    assert path == ours.folder / "compare-20260101-000000-000.html"
    assert headings(html) == [
        "mean IoU +0.2571",
        "Scores on the test split",
        "IoU by class",
        "Mean IoU by slice",
        "Where the two differ most",
        "Configuration",
    ]
    assert "sky 0.800 0.125 66.7 %" in section(html, "classes")
    assert "evaluation.min_mean_iou 0.25 0.5" in section(html, "diff")
    assert re.findall(r'href="(\.\./[^"]*)"', html) == [
        "../20260102-000000-000/report.html",
        "../20260101-000000-000/report.html",
    ]


def test_only_images_that_both_evaluated_alike_are_shared(ours: RunRecord, theirs: RunRecord):
    assert [(pair.ours.key, pair.change) for pair in shared_images(ours, theirs)] == [
        (f"{EVIL}.png", 0.0),
        ("corner.png", 1.0),
        ("good.png", 1.0),
    ]


def test_images_of_other_labels_are_not_shared(ours: RunRecord, theirs: RunRecord, tmp_path: Path):
    relabelled = {"good.png": (0.5, [[0, 1, 1000], [1, 0, 2072]])}
    write_results(tmp_path / "theirs" / "evaluation", relabelled, served=False)
    assert shared_images(ours, theirs) == []
    assert "The two did not evaluate the same images" in write_comparison(ours, theirs).read_text()


def test_runs_of_other_classes_share_nothing(ours: RunRecord, theirs: RunRecord):
    theirs.summary.config["data"] = {"label_map": {"classes": [{"name": "road"}]}}
    assert shared_images(ours, theirs) == []


def test_classes_of_either_run_alone_are_shown_and_named(ours: RunRecord, theirs: RunRecord):
    ours.summary.metrics = make_metrics("automobile")
    theirs.summary.metrics = make_metrics("<b>car")
    html = write_comparison(ours, theirs).read_text()
    text = section(html, "classes")
    assert "only this run has automobile; only the other run has <b>car." in text
    assert "automobile 0.714 \N{EN DASH} 33.3 %" in text
    assert "<b>car no class of this run \N{EN DASH} 0.714 \N{EN DASH}" in text
    assert "<b>car" not in html


def test_runs_of_the_same_classes_are_not_said_to_differ_in_them(ours: RunRecord, theirs: RunRecord):
    assert "The classes differ" not in write_comparison(ours, theirs).read_text()


def test_the_interval_of_the_difference_is_of_the_shared_images(ours: RunRecord, theirs: RunRecord):
    found = change_interval(shared_images(ours, theirs), ours)
    assert found is not None
    lower, upper = found
    assert 0.0 <= lower < upper <= 1.0
    assert change_interval(shared_images(ours, ours), ours) == (0.0, 0.0)
    assert change_interval([], ours) is None
    assert change_interval(shared_images(ours, theirs)[:1], ours) is None


def test_the_images_that_differ_most_show_both_predictions(ours: RunRecord, theirs: RunRecord):
    html = write_comparison(ours, theirs).read_text()
    captions = [" ".join(unescape(re.sub(r"<[^>]*>", "", text)).split())
                for text in re.findall(r"<figcaption>(.*?)</figcaption>", html, re.DOTALL)]  # fmt: skip
    assert captions == ["IoU 1.000; other run 0.000; +1.000 corner.png", "IoU 1.000; other run 0.000; +1.000 good.png"]
    figure = html.split("<figure")[2]
    predictions = re.findall(r'src="([^"]*)" alt="Prediction', figure)
    assert len(set(predictions)) == 2, "the two models say the reverse of each other"


@pytest.mark.parametrize("hidden", ["ours", "theirs"])
def test_images_stay_out_if_either_run_leaves_them_out(ours: RunRecord, theirs: RunRecord, hidden: str):
    run = ours if hidden == "ours" else theirs
    run.summary.config["report"] = {"pictures": False}
    assert "<img" not in write_comparison(ours, theirs).read_text()


def test_a_model_deleted_since_leaves_no_images(ours: RunRecord, theirs: RunRecord, tmp_path: Path):
    theirs.stages["Trainer"].outputs["model"] = [placed(standard_artifacts.Model(), tmp_path / "gone")]
    (tmp_path / "gone").rmdir()
    assert "<img" not in write_comparison(ours, theirs).read_text()


def test_a_run_without_scores_is_compared_by_its_settings(ours: RunRecord, theirs: RunRecord):
    theirs.summary.metrics, theirs.summary.blessed = None, None
    html = write_comparison(ours, theirs).read_text()
    assert headings(html)[0] == "No scores to compare"
    assert "evaluation.min_mean_iou" in html


def test_names_stay_text(ours: RunRecord, theirs: RunRecord):
    assert "<script>alert" not in write_comparison(ours, theirs).read_text()
