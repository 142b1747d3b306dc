"""The whole pipeline on a few tiny images: a first run, runs after it in the same workspace, and bad input."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.pipeline.conftest import command_line, in_process, overrides, run_arguments

#: Keras' convert_to_numpy, with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

#: The stages that depend on which model is served.
JUDGED = {"ServedModel", "SegmentationEvaluator", "ModelPusher"}
#: The stages that come before training.
PREPARED = {"ImageExampleGen", "StatisticsGen", "DataSchema", "StrictExampleValidator", "ImageTransform"}
STAGES = {*JUDGED, *PREPARED, "Trainer", "InfraCheck", "LiteConverter", "HubExporter"}

#: One LiteRT model, whatever it scores, and one module for TensorFlow Hub.
TARGETS = {
    "lite.variants": "[float16]",
    "lite.height": "48",
    "lite.width": "64",
    "lite.max_drop": "1.0",
    "hub.modules": "[feature_extractor]",
}


class Runs(NamedTuple):
    """A workspace after four runs, with the summary of each."""

    workspace: Path
    first: dict[str, Any]
    planned: set[str]
    """The stages that would run again, as `--dry-run` said after the first run."""
    written_by_planning: set[Path]
    second: dict[str, Any]
    """Like the first."""
    third: dict[str, Any]
    """Like the first."""
    stricter: dict[str, Any]
    """With a higher threshold."""


def succeeded(*arguments: str) -> str:
    """Answers a command that must succeed; what it prints."""
    result = in_process(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def latest(workspace: Path) -> dict[str, Any]:
    """The summary of the newest run."""
    summary: dict[str, Any] = json.loads((workspace / "runs" / "latest" / "summary.json").read_text())
    return summary


def planned(workspace: Path, data: Path, **changes: str) -> set[str]:
    """The stages that would run, as `--dry-run` says."""
    told = succeeded(*run_arguments(workspace, overrides(data, **TARGETS, **changes), "--dry-run"))
    rows = [line.split("│") for line in told.splitlines() if "│" in line]
    return {row[1].strip() for row in rows if row[2].strip() == "run"}


@pytest.fixture(scope="module")
def runs(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Nothing that a test asks of it changes it."""
    workspace = tmp_path_factory.mktemp("end_to_end") / "workspace"

    def run(**changes: str) -> dict[str, Any]:
        succeeded(*run_arguments(workspace, overrides(tiny_dataset, **TARGETS, **changes)))
        return latest(workspace)

    first, files = run(), set(workspace.rglob("*"))
    again = planned(workspace, tiny_dataset)
    written = set(workspace.rglob("*")) ^ files
    return Runs(workspace, first, again, written, run(), run(), run(**{"evaluation.min_mean_iou": "0.99"}))


def folder_of(runs: Runs, summary: dict[str, Any]) -> Path:
    """The folder of a run."""
    return runs.workspace / "runs" / str(summary["run_id"])


def masks_of_test_split(data: Path) -> list[Path]:
    """Paths of the test split's masks."""
    names = (data / "ImageSets/Segmentation/test.txt").read_text().split()
    return [data / "SegmentationClass" / f"{name}.png" for name in names]


def mode_and_size(path: Path) -> tuple[str, tuple[int, int]]:
    with Image.open(path) as image:
        return image.mode, image.size


def labelled_pixels(path: Path) -> int:
    """Pixels of a mask that are not void."""
    with Image.open(path) as mask:
        return int((np.asarray(mask) != 255).sum())


def test_the_first_run_ends_with_a_pushed_model(runs: Runs) -> None:
    assert runs.first["schema_version"] == 1
    assert runs.first["status"] == "succeeded"
    assert runs.first["data"]["images"] == {"train": 8, "val": 3, "test": 4}
    assert runs.first["data"]["quarantined"] == 0
    assert runs.first["blessed"] is True
    assert runs.first["pushed_version"] == 1
    assert Path(runs.first["pushed_path"], "saved_model.pb").is_file()
    assert set(runs.first["timings"]) == STAGES
    assert runs.first["cached"] == []


def test_each_labelled_pixel_of_the_test_split_is_evaluated_once(runs: Runs, tiny_dataset: Path) -> None:
    metrics = runs.first["metrics"]
    lower, upper = metrics["mean_iou_interval"]
    assert 0 <= lower <= metrics["mean_iou"] <= upper <= 1
    assert metrics["scores"]["mean_iou"] == metrics["mean_iou"]
    assert set(metrics["scores"]["classes"]) == set(metrics["iou"])
    assert set(metrics["slice_scores"]) == set(metrics["slices"])
    pixels = np.array(metrics["confusion_matrix"])
    assert pixels.sum() == sum(labelled_pixels(path) for path in masks_of_test_split(tiny_dataset))


def test_a_run_leaves_a_report_and_logs_for_tensorboard(runs: Runs) -> None:
    folder = folder_of(runs, runs.first)
    assert (folder / "report.html").is_file()
    assert f"{folder.name}/report.html" in (runs.workspace / "runs" / "index.html").read_text()
    assert list((folder / "tensorboard").rglob("events.out.tfevents.*"))


def test_card_and_other_targets_are_pushed_with_the_model(runs: Runs) -> None:
    extra = Path(runs.first["pushed_path"], "assets.extra")
    (variant,) = runs.first["lite"]["models"]
    assert variant["file"] == "float16.tflite"
    assert (extra / "lite" / "float16.tflite").stat().st_size == variant["size"]
    assert (extra / "lite" / "index.html").is_file()
    (module,) = runs.first["hub"]["models"]
    assert module["drop"] == pytest.approx(0.0, abs=1e-3)
    assert (extra / "hub" / "feature_extractor" / "saved_model.pb").is_file()
    card = (folder_of(runs, runs.first) / "model_card.md").read_text()
    assert f"| mean IoU | {runs.first['metrics']['mean_iou']:.4f} |" in card
    assert (extra / "model_card.md").read_text() == card


def test_a_dry_run_says_that_only_the_evaluation_would_run_again(runs: Runs) -> None:
    assert runs.planned == JUDGED
    assert runs.written_by_planning == set()


def test_a_changed_hyperparameter_would_train_again_on_the_same_data(runs: Runs, tiny_dataset: Path) -> None:
    again = planned(runs.workspace, tiny_dataset, **{"training.learning_rate": "0.002"})
    assert again == STAGES - PREPARED - {"ServedModel"}


def test_a_second_run_trains_nothing_and_pushes_nothing(runs: Runs) -> None:
    assert set(runs.second["cached"]) == STAGES - JUDGED
    assert runs.second["pushed_version"] is None
    assert "not pushed: already served as version 1" in runs.second["reasons"]
    assert runs.second["baseline"]["version"] == 1
    assert runs.second["baseline"]["mean_iou"] == runs.second["metrics"]["mean_iou"]
    assert runs.second["baseline"]["scores"] == runs.second["metrics"]["scores"]
    assert runs.second["baseline"]["change_interval"] == [0.0, 0.0]


def test_a_third_run_is_cached_throughout(runs: Runs) -> None:
    assert set(runs.third["cached"]) == STAGES
    assert "not pushed: already served as version 1" in runs.third["reasons"]


def test_a_changed_threshold_evaluates_again_and_nothing_else(runs: Runs) -> None:
    assert STAGES - set(runs.stricter["cached"]) == {"StrictExampleValidator", "SegmentationEvaluator", "ModelPusher"}
    assert runs.stricter["blessed"] is False
    assert any("is below evaluation.min_mean_iou=0.99" in reason for reason in runs.stricter["reasons"])
    assert "not pushed: not blessed by the evaluation" in runs.stricter["reasons"]


def test_status_shows_the_runs_and_what_is_served(runs: Runs) -> None:
    status = json.loads(succeeded("status", "--workspace", str(runs.workspace), "--json"))
    assert status["serving"] == {"tiny": [1]}
    assert [run["pushed_version"] for run in status["runs"]] == [None, None, None, 1]


def test_predict_writes_masks_overlays_and_a_legend_for_images_of_any_size(runs: Runs, tmp_path: Path) -> None:
    sizes = {"wide": (301, 97), "tall": (33, 210), "dot": (1, 1)}
    generator = np.random.default_rng(0)
    for name, (width, height) in sizes.items():
        Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8)).save(tmp_path / f"{name}.png")
    images = [str(tmp_path / f"{name}.png") for name in sizes]
    succeeded("predict", *images, "--out", str(tmp_path / "out"), "--workspace", str(runs.workspace))
    for name, size in sizes.items():
        assert mode_and_size(tmp_path / "out" / f"{name}_mask.png") == ("P", size)
        assert mode_and_size(tmp_path / "out" / f"{name}_overlay.png") == ("RGB", size)
    classes = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert [entry["name"] for entry in classes] == ["background", "rug", "ball", "bricks", "leaf", "star"]
    assert mode_and_size(tmp_path / "out" / "legend.png")[1][1] > 6 * 20


def test_predict_names_a_file_that_is_not_an_image(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "note.jpg").write_text("hello")
    arguments = [str(tmp_path / "note.jpg"), "--out", str(tmp_path / "out"), "--workspace", str(runs.workspace)]
    result = in_process("predict", *arguments)
    assert result.returncode == 1
    assert "note.jpg" in result.stderr


def test_lineage_names_what_stands_behind_the_version(runs: Runs, tiny_dataset: Path) -> None:
    found = json.loads(succeeded("lineage", "1", "--json", "--workspace", str(runs.workspace)))
    assert (found["model"], found["version"], found["run_id"]) == ("tiny", 1, runs.first["run_id"])
    assert found["path"] == runs.first["pushed_path"]
    assert found["data"][0]["config"]["path"] == str(tiny_dataset)
    assert found["hyperparameters"]["training"] == runs.first["config"]["training"]
    assert found["evaluation"]["reasons"] == runs.first["reasons"]
    assert {stage["name"] for stage in found["stages"]} == STAGES
    for kind in ("statistics", "anomalies", "data_schema", "transform_graph", "trained_model"):
        (artifact,) = found[kind]
        assert list(Path(artifact["uri"]).rglob("*")), kind


def test_lineage_finds_the_versions_that_came_from_an_image_under_any_name(
    runs: Runs, tiny_dataset: Path, tmp_path: Path
) -> None:
    name = (tiny_dataset / "ImageSets/Segmentation/train.txt").read_text().split()[0]
    (image,) = (tiny_dataset / "JPEGImages").glob(f"{name}.*")
    shutil.copy(image, tmp_path / "another name")
    arguments = ("--data", str(tmp_path / "another name"), "--json", "--workspace", str(runs.workspace))
    (use,) = json.loads(succeeded("lineage", *arguments))["uses"]
    assert use == {
        "model": "tiny",
        "version": 1,
        "split": "train",
        "key": f"JPEGImages/{image.name}",
        "matched_by": "content",
        "through": None,
        "restored_from": None,
    }


class Damaged(NamedTuple):
    """A workspace after an image was damaged that an earlier run has read."""

    tolerant: dict[str, Any]
    """The summary of a run with which so many bad files are few enough."""
    error: str
    """What a run printed with which they are too many, and its summary."""
    failed: dict[str, Any]
    repaired: dict[str, Any]
    """The summary of a run once the image is whole again."""


@pytest.fixture(scope="module")
def damaged(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    folder = tmp_path_factory.mktemp("damaged")
    workspace, data = folder / "workspace", Path(shutil.copytree(tiny_dataset, folder / "data"))

    def run(**changes: str) -> str:
        return in_process(*run_arguments(workspace, overrides(data, **changes), "--to", "ImageExampleGen")).stderr

    assert run() == ""
    image = data / "JPEGImages" / f"{(data / 'ImageSets/Segmentation/train.txt').read_text().split()[0]}.jpg"
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])
    assert run(**{"data.max_bad_fraction": "0.2"}) == ""
    tolerant = latest(workspace)
    error, failed = run(**{"data.max_bad_fraction": "0.05"}), latest(workspace)
    image.write_bytes(content)
    run(**{"data.max_bad_fraction": "0.05"})
    return Damaged(tolerant, error, failed, latest(workspace))


def test_a_bad_file_is_quarantined_and_the_data_is_read_again(damaged: Damaged) -> None:
    assert damaged.tolerant["status"] == "succeeded"
    assert damaged.tolerant["data"]["images"] == {"train": 7, "val": 3, "test": 4}
    assert damaged.tolerant["data"]["quarantined"] == 1


def test_too_many_bad_files_stop_the_run_with_the_list(damaged: Damaged) -> None:
    assert "1 of 15 images are bad, more than data.max_bad_fraction=0.05 allows" in damaged.error
    assert damaged.error.startswith("error: ")
    assert ".jpg: truncated image" in damaged.error
    assert damaged.failed["status"] == "failed"


def test_after_a_failure_the_workspace_is_usable(damaged: Damaged) -> None:
    assert damaged.repaired["status"] == "succeeded"
    assert damaged.repaired["data"]["images"] == {"train": 8, "val": 3, "test": 4}


@pytest.mark.long
def test_another_run_starts_from_a_pushed_module(runs: Runs, tiny_dataset: Path, tmp_path: Path) -> None:
    module = Path(runs.first["pushed_path"], "assets.extra/hub/feature_extractor")
    settings = overrides(tiny_dataset, **{"training.initial_weights": str(module), "model.head": "v3"})
    result = command_line(*run_arguments(tmp_path, settings, "--to", "Trainer"))
    assert result.returncode == 0, result.stderr
    assert f"from{module}" in "".join(result.stderr.split()), "the line of the initial weights, which may be wrapped"
