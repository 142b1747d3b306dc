"""The report of a run: what it says of good, refused and failed runs, and that names in it stay text."""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from tfx.types import standard_artifacts
from tfx.types.artifact import Artifact

from components import infra_check
from components.artifacts import Quarantine
from components.example_gen import BAD_FILE
from data import features
from data.errors import WorkspaceError
from data.labels import LabelMap
from models.evaluation import Evaluation
from pipeline.config import ReportConfig
from pipeline.records import StageRecord
from pipeline.report import curves
from pipeline.report.comparisons import MOST_IMAGES, Comparison, compare, select
from pipeline.report.page import (
    class_scores,
    confusions,
    rewrite_report,
    row_shares,
    seconds_text,
    verdict,
    write_report,
)
from pipeline.summary import (
    BaselineSummary,
    DataSummary,
    MetricsSummary,
    ModelSummary,
    Summary,
    TrialSummary,
    TuningSummary,
)
from pipeline.workspace import Workspace

EVIL = "<script>alert(1)</script>"

#: 10 pixels of class "sky", 2 of them taken for EVIL; 5 of EVIL, all right; none of "void deck".
METRICS = MetricsSummary(
    mean_iou=0.7571,
    pixel_accuracy=13 / 15,
    frequency_weighted_iou=0.7714,
    iou={"sky": 0.8, EVIL: 5 / 7, "void deck": None},
    slices={"source:a": 0.75, "source:<b>b": 0.25, "source:c": None},
    confusion_matrix=[[8, 2, 0], [0, 5, 0], [0, 0, 0]],
)


def make_summary(**changes: Any) -> Summary:
    classes = [{"name": name} for name in METRICS.iou]
    config = {
        "name": "demo",
        "data": {"label_map": {"classes": classes}},
        "evaluation": {"min_mean_iou": 0.5},
        "tuning": {"algorithm": "bayesian", "steps": 1200},
        "report": {"pictures": True},
    }
    return Summary.model_validate({"run_id": "20260101-000000-000", "status": "succeeded", "config": config} | changes)


RATE, WEIGHTS = "training.learning_rate", "training.initial_weights"
TUNING = TuningSummary(
    best={RATE: 0.00123456, WEIGHTS: EVIL},
    trials=[
        TrialSummary(mean_iou=0.5, values={RATE: 0.00123456, WEIGHTS: EVIL}),
        TrialSummary(mean_iou=0.25, values={RATE: 0.5, WEIGHTS: "random"}),
    ],
)

BLESSED = {
    "tuning": TUNING,
    "data": DataSummary(images={"train": 1240, "val": 3, "test": 4}, quarantined=1, reasons={"size": 1}, spans=[0]),
    "model": ModelSummary(backbone="resnet50", output_stride=16, params=26_000_000, steps=900),
    "metrics": METRICS,
    "baseline": BaselineSummary(version=6, mean_iou=0.7),
    "blessed": True,
    "reasons": ["mean IoU 0.7571 reaches evaluation.min_mean_iou=0.5"],
    "pushed_version": 7,
    "pushed_path": "/serving/demo/7",
}


def stage(name: str, outputs: Mapping[str, Artifact], seconds: float = 1.0, state: str = "ran") -> StageRecord:
    return StageRecord(name, state, seconds, {}, {key: [artifact] for key, artifact in outputs.items()})


def placed(artifact: Artifact, folder: Path) -> Artifact:
    folder.mkdir(parents=True, exist_ok=True)
    artifact.uri = str(folder)
    return artifact


class RedIsOne(tf.Module):
    """Says class 1 where red is above one half, class 0 elsewhere; a SavedModel such as `models.export` writes."""

    def __init__(self, label_map_file: str) -> None:
        super().__init__()
        self.label_map = tf.saved_model.Asset(label_map_file)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
    def serve(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        image = tf.io.decode_image(image_bytes[0], channels=3, expand_animations=False)
        mask = tf.cast(image[:, :, :1] > 127, tf.uint8)
        return {"mask_bytes": tf.io.encode_png(mask)[None], "scores": tf.ones(1)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Model artifact's folder."""
    folder = tmp_path_factory.mktemp("model")
    label_map = folder / "label_map.json"
    label_map.write_text(LabelMap.model_validate({"classes": [{"name": n} for n in METRICS.iou]}).model_dump_json())
    module = RedIsOne(str(label_map))
    tf.saved_model.save(module, str(folder / "Format-Serving"), signatures={"serving_default": module.serve})
    return folder


def example(key: str, red: np.ndarray, mask: np.ndarray) -> bytes:
    image = np.stack([red, np.zeros_like(red), np.zeros_like(red)], axis=-1)
    encoded = {features.IMAGE: tf.io.encode_png(image), features.MASK: tf.io.encode_png(mask[:, :, None])}
    values = {name: [png.numpy()] for name, png in encoded.items()} | {features.KEY: [key.encode()]}
    feature = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=value)) for name, value in values.items()}
    for name, size in zip((features.HEIGHT, features.WIDTH), mask.shape, strict=True):
        feature[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=[size]))
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


RED = np.array([[255, 0]], np.uint8)
GOOD = example("good.png", RED, np.array([[1, 0]], np.uint8))
POOR = example(f"{EVIL}.png", RED, np.array([[1, 1]], np.uint8))
VOID = example("void.png", RED, np.full((1, 2), features.IGNORE_LABEL, np.uint8))


@pytest.fixture
def stages(tmp_path: Path, model: Path) -> dict[str, StageRecord]:
    """What a run leaves that came to its end."""
    examples = placed(standard_artifacts.Examples(), tmp_path / "examples")
    examples.split_names = json.dumps(["test"])
    (tmp_path / "examples" / "Split-test").mkdir()
    with tf.io.TFRecordWriter(str(tmp_path / "examples" / "Split-test" / "examples-00000.gz"), "GZIP") as writer:
        for record in (GOOD, POOR, VOID):
            writer.write(record)
    quarantine = placed(Quarantine(), tmp_path / "quarantine")
    entry = {"path": "images/<i>odd</i>.png", "reason": "size mismatch: image 3x2, mask 2x3"}
    (tmp_path / "quarantine" / f"{BAD_FILE}-00000-of-00001").write_text(json.dumps(entry) + "\n")
    model_run = placed(standard_artifacts.ModelRun(), tmp_path / "model_run")
    history = [
        {"step": 450, "mean_iou": 0.5, "iou": [0.5, 0.5, None]},
        {"step": 900, "mean_iou": 0.25, "iou": [0.5, 0, None]},
    ]
    (tmp_path / "model_run" / "training.json").write_text(
        json.dumps({"parameters": 5, "steps": 900, "history": history})
    )
    infra = placed(standard_artifacts.InfraBlessing(), tmp_path / "infra")
    infra.set_int_custom_property(infra_check.BLESSED, 1)
    records = [
        stage("ImageExampleGen", {"examples": examples, "quarantine": quarantine}, 8.5, "cached"),
        stage("Trainer", {"model": placed(standard_artifacts.Model(), model), "model_run": model_run}, 283.6),
        stage("InfraCheck", {"blessing": infra}, 0.13),
    ]
    return {record.name: record for record in records}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder."""
    run = tmp_path / "run"
    (run / "tensorboard").mkdir(parents=True)
    (run / "summary.json").write_text("{}")
    return run


@pytest.fixture
def page(folder: Path, stages: dict[str, StageRecord]) -> Callable[..., str]:
    """Writes a report and reads it."""

    def write(summary: Summary, stages: Mapping[str, StageRecord] = stages, pictures: bool = True) -> str:
        return write_report(summary, stages, folder, ReportConfig(pictures=pictures)).read_text(encoding="utf-8")

    return write


def headings(html: str) -> list[str]:
    return [unescape(text) for text in re.findall(r"<h[12][^>]*>(.*?)</h[12]>", html)]


def test_a_pushed_model_is_announced_first_with_version_reasons_and_path(page: Callable[..., str]):
    html = page(make_summary(**BLESSED))
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
        "More",
    ]
    assert "mean IoU 0.7571 reaches evaluation.min_mean_iou=0.5" in html
    assert "/serving/demo/7" in html
    assert "served version 6" in html and "+0.0571" in html


def test_a_run_that_failed_at_once_has_its_error_and_nothing_it_did_not_do(page: Callable[..., str]):
    error = f"{EVIL}: no such file\n  second line"
    html = page(make_summary(status="failed", error=error, reasons=[error]), stages={})
    assert headings(html) == ["The run failed", "More"]
    assert html.count("second line") == 1


def test_names_of_files_and_classes_stay_text(page: Callable[..., str]):
    html = page(make_summary(**BLESSED, error=EVIL))
    assert "<script" not in html and "<i>odd" not in html and "<b>b" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.png" in html


def test_nothing_is_fetched_from_elsewhere(page: Callable[..., str]):
    html = page(make_summary(**BLESSED))
    assert {link for link in re.findall(r'(?:src|href)="([^"]*)"', html) if not link.startswith("data:")} == {
        "summary.json"
    }


@pytest.mark.parametrize(
    ("changes", "tone", "text"),
    [
        ({}, "open", "The run ended before a judgement"),
        ({"blessed": False}, "warn", "Not blessed"),
        ({"blessed": True}, "good", "Blessed; nothing was pushed"),
        ({"blessed": True, "pushed_version": 3}, "good", "Blessed, and pushed as version 3"),
        ({"blessed": True, "pushed_version": 3, "status": "failed"}, "bad", "The run failed"),
    ],
)
def test_the_verdict(changes: dict[str, Any], tone: str, text: str):
    found = verdict(make_summary(**changes))
    assert (found.tone, found.text) == (tone, text)


def test_classes_stand_lowest_iou_first_and_absent_ones_last():
    scores = class_scores(METRICS)
    assert [(score.name, score.share) for score in scores] == [(EVIL, 5 / 15), ("sky", 10 / 15), ("void deck", 0)]


def test_the_confusion_matrix_is_normalised_by_label():
    np.testing.assert_allclose(row_shares(METRICS.confusion_matrix), [[0.8, 0.2, 0], [0, 1, 0], [0, 0, 0]])


def test_only_pairs_that_occur_are_confusions():
    [found] = confusions(METRICS)
    assert (found.label, found.prediction, found.share, found.pixels) == ("sky", EVIL, 0.2, 2)


def test_every_cell_of_the_matrix_tells_its_numbers(page: Callable[..., str]):
    titles = re.findall(r'<td class="(?:hit|miss)[^>]*title="([^"]*)"', page(make_summary(**BLESSED)))
    assert len(titles) == 9
    assert unescape(titles[1]) == f"sky taken for {EVIL}: 20.0 %, 2 pixels"


def test_a_matrix_of_many_classes_is_left_to_the_summary(page: Callable[..., str]):
    names = [f"class {number}" for number in range(60)]
    metrics = METRICS.model_copy(
        update={"iou": dict.fromkeys(names, 0.5), "confusion_matrix": np.eye(60, dtype=int).tolist()}
    )
    summary = make_summary(metrics=metrics, blessed=True)
    summary.config["data"] = {"label_map": {"classes": [{"name": name} for name in names]}}
    html = page(summary, stages={})
    assert "The matrix of 60 classes is in" in html and 'class="matrix' not in html


def test_pictures_show_the_worst_first_with_alternative_texts(page: Callable[..., str]):
    html = page(make_summary(**BLESSED))
    assert re.findall(r"IoU (\d\.\d+) <span>(.*?)</span>", html) == [
        ("0.250", "&lt;script&gt;alert(1)&lt;/script&gt;.png"),
        ("1.000", "good.png"),
    ]
    assert html.count("<img ") == html.count(' alt="') == 6


def test_pictures_can_be_left_out(page: Callable[..., str]):
    assert "<img" not in page(make_summary(**BLESSED), pictures=False)


@pytest.mark.parametrize("absent", ["ImageExampleGen", "Trainer", "InfraCheck"])
def test_without_a_stage_there_are_no_pictures(page: Callable[..., str], stages: dict[str, StageRecord], absent: str):
    del stages[absent]
    assert "Predictions" not in headings(page(make_summary(**BLESSED), stages))


def test_a_model_that_does_not_serve_is_not_loaded(page: Callable[..., str], stages: dict[str, StageRecord]):
    stages["InfraCheck"].outputs["blessing"][0].set_int_custom_property(infra_check.BLESSED, 0)
    assert "Predictions" not in headings(page(make_summary(**BLESSED), stages))


def test_artifacts_deleted_since_are_left_out(page: Callable[..., str], stages: dict[str, StageRecord], tmp_path: Path):
    for name in ("examples", "quarantine", "model_run"):
        shutil.rmtree(tmp_path / name)
    found = headings(page(make_summary(**BLESSED), stages))
    assert "Predictions" not in found and "Training" not in found and "Data" in found


def test_files_set_aside_have_their_reasons(page: Callable[..., str]):
    html = page(make_summary(**BLESSED))
    assert "images/&lt;i&gt;odd&lt;/i&gt;.png" in html and "size mismatch: image 3x2, mask 2x3" in html


def test_trials_of_a_search_stand_in_a_table_the_best_first(page: Callable[..., str]):
    section = page(make_summary(**BLESSED)).split("Hyperparameter search")[1].split("</section>")[0]
    assert "The bayesian search made 2 trials of at most" in section and "1,200 steps" in section
    cells = [unescape(cell) for cell in re.findall(r'<t[dh][^>]* ?class="number">(.*?)</t[dh]>', section)]
    assert cells == [RATE, WEIGHTS, "mean IoU", "0.001235", EVIL, "0.5000", "0.5", "random", "0.2500"]


def test_a_run_without_a_search_has_no_trials(page: Callable[..., str]):
    assert "Hyperparameter search" not in page(make_summary(**BLESSED | {"tuning": None}))


def test_stages_have_times_and_cached_marks(page: Callable[..., str]):
    rows = re.findall(r'<th scope="row">(\w+)</th>\s*<td class="grow">.*?<td class="number">(.*?)</td>\s*<td.*?>(\w*)<',
                      page(make_summary(**BLESSED)), re.DOTALL)  # fmt: skip
    assert rows[-3:] == [
        ("ImageExampleGen", "8.5 s", "cached"),
        ("Trainer", "4 min 44 s", ""),
        ("InfraCheck", "0.13 s", ""),
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.131, "0.13 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (7500, "2 h 05 min")]
)
def test_durations_are_readable(seconds: float, text: str):
    assert seconds_text(seconds) == text


def test_an_image_is_scored_by_itself_and_one_without_labels_is_left_out(model: Path):
    good, poor = compare([GOOD, POOR, VOID], str(model / "Format-Serving"))
    assert (good.key, good.mean_iou) == ("good.png", 1.0)
    assert poor.mean_iou == 0.25  # class 0: 0 of 1, class 1: 1 of 2
    np.testing.assert_array_equal(poor.prediction, [[1, 0]])


def test_no_more_images_are_compared_than_the_bound_allows(model: Path):
    assert len(compare([GOOD] * (MOST_IMAGES + 5), str(model / "Format-Serving"))) == MOST_IMAGES


def test_large_images_use_the_bound_up_sooner(model: Path):
    large = example("large.png", np.zeros((1500, 2000), np.uint8), np.zeros((1500, 2000), np.uint8))
    assert len(compare([large] * 3, str(model / "Format-Serving"))) == 2  # 3 of 4 million pixels, then beyond


def test_worst_and_typical_images_are_chosen_by_iou():
    empty = np.zeros((1, 1), np.uint8)
    ious = [0.9, 0.1, 0.5, 0.52, 0.2, 1.0, 0.48]
    selection = select([Comparison(str(iou), iou, empty, empty, empty) for iou in ious], 2)
    assert [comparison.mean_iou for comparison in selection.worst] == [0.1, 0.2]
    assert [comparison.mean_iou for comparison in selection.typical] == [0.48, 0.5]  # 0.52 is as near, but later
    assert selection.compared == 7


def test_curves_span_the_chart_and_leave_gaps_out():
    history = [Evaluation(step=50, mean_iou=0.5, iou=(0.5, None)), Evaluation(step=100, mean_iou=1.0, iou=(1.0, 1.0))]
    drawn = curves.curves(history, history[1], ["sky", "road"])
    assert drawn.mean.points == "232.0,111.0 428.0,10.0"
    assert drawn.classes[1] == curves.Line("road", "428.0,10.0")
    assert drawn.best == (428.0, 10.0)
    assert drawn.step_ticks == [(232.0, 50), (428.0, 100)]


def test_a_long_training_has_few_ticks_and_one_at_its_end():
    history = [Evaluation(step=step, mean_iou=0.5, iou=(0.5,)) for step in range(10, 1000, 10)]
    steps = [step for _, step in curves.curves(history, history[0], ["sky"]).step_ticks]
    assert len(steps) <= curves.MOST_STEP_TICKS and steps[-1] == 990


def test_a_killed_run_has_nothing_to_report(tmp_path: Path):
    Workspace(tmp_path).start_run("20260101-000000-000")
    with pytest.raises(WorkspaceError, match="there is no summary.json to report on"):
        rewrite_report(Workspace(tmp_path))


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    """Headless Chromium."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)")
    options = ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run", "disable-sync",
        "disable-background-networking", "disable-component-update", f"user-data-dir={tmp_path / 'profile'}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with Chrome(options=options, service=Service(driver)) as chrome:
        yield chrome


def test_a_browser_shows_the_page_without_complaint_on_a_phone(page: Callable[..., str], folder: Path, browser: Chrome):
    page(make_summary(**BLESSED, error=EVIL))
    phone = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    browser.get((folder / "report.html").as_uri())
    assert browser.get_log("browser") == []
    assert browser.find_element("css selector", "h1").text == "Blessed, and pushed as version 7"
    assert browser.find_elements("css selector", "script") == []
    assert browser.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
    assert browser.find_element("css selector", "svg .mean").size["height"] > 0
