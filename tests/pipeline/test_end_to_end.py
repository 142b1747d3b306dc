"""The whole pipeline on a few tiny images: first, second and third run, changes, bad input, and what comes after.

The tests of this file share one workspace and tell one story, in their order.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pipeline.conftest import command_line, overrides, run_arguments

STAGES = {
    "ServedModel",
    "ImageExampleGen",
    "StatisticsGen",
    "DataSchema",
    "StrictExampleValidator",
    "ImageTransform",
    "Trainer",
    "SegmentationEvaluator",
    "InfraCheck",
    "LiteConverter",
    "HubExporter",
    "ModelPusher",
}

#: One LiteRT model, whatever it scores, and one module for TensorFlow Hub.
TARGETS = {
    "lite.variants": "[float16]",
    "lite.height": "48",
    "lite.width": "64",
    "lite.max_drop": "1.0",
    "hub.modules": "[feature_extractor]",
}


@pytest.fixture(scope="module")
def data(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that this file may change."""
    return Path(shutil.copytree(tiny_dataset, tmp_path_factory.mktemp("story") / "data"))


@pytest.fixture(scope="module")
def workspace(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace after the first run."""
    folder = tmp_path_factory.mktemp("story") / "workspace"
    result = command_line(*run_arguments(folder, overrides(data, **TARGETS)))
    assert result.returncode == 0, result.stderr
    assert "pushed        version 1" in result.stdout
    return folder


def latest(workspace: Path) -> dict:
    """The summary of the newest run."""
    return json.loads((workspace / "runs" / "latest" / "summary.json").read_text())


def run_again(workspace: Path, data: Path, **changes: str) -> dict:
    """Runs once more and gives the summary."""
    result = command_line(*run_arguments(workspace, overrides(data, **TARGETS, **changes)))
    assert result.returncode == 0, result.stderr
    return latest(workspace)


def masks_of_test_split(workspace: Path) -> list[Path]:
    """Paths of the test split's masks."""
    root = Path(latest(workspace)["config"]["data"]["path"])
    names = (root / "ImageSets/Segmentation/test.txt").read_text().split()
    return [root / "SegmentationClass" / f"{name}.png" for name in names]


def mode_and_size(path: Path) -> tuple[str, tuple[int, int]]:
    with Image.open(path) as image:
        return image.mode, image.size


def labelled_pixels(path: Path) -> int:
    """Pixels of a mask that are not void."""
    with Image.open(path) as mask:
        return int((np.asarray(mask) != 255).sum())


def test_the_first_run_ends_with_a_pushed_model(workspace: Path) -> None:
    summary = latest(workspace)
    assert summary["schema_version"] == 1
    assert summary["status"] == "succeeded"
    assert summary["data"]["images"] == {"train": 8, "val": 3, "test": 4}
    assert summary["data"]["quarantined"] == 0
    assert summary["blessed"] is True
    assert summary["pushed_version"] == 1
    assert Path(summary["pushed_path"], "saved_model.pb").is_file()
    assert set(summary["timings"]) == STAGES
    assert summary["cached"] == []
    assert 0 <= summary["metrics"]["mean_iou"] <= 1
    lower, upper = summary["metrics"]["mean_iou_interval"]
    assert lower <= summary["metrics"]["mean_iou"] <= upper
    assert summary["metrics"]["scores"]["mean_iou"] == summary["metrics"]["mean_iou"]
    assert set(summary["metrics"]["scores"]["classes"]) == set(summary["metrics"]["iou"])
    assert set(summary["metrics"]["slice_scores"]) == set(summary["metrics"]["slices"])
    pixels = np.array(summary["metrics"]["confusion_matrix"])
    assert pixels.sum() == sum(labelled_pixels(path) for path in masks_of_test_split(workspace)), (
        "each pixel of the test masks that is not void is evaluated, once"
    )
    assert (workspace / "runs" / "latest" / "report.html").is_file()
    assert "/report.html" in (workspace / "runs" / "index.html").read_text()
    assert list((workspace / "runs" / "latest" / "tensorboard").rglob("events.out.tfevents.*"))


def test_card_and_other_targets_are_pushed_with_the_model(workspace: Path) -> None:
    summary = latest(workspace)
    extra = Path(summary["pushed_path"], "assets.extra")
    (variant,) = summary["lite"]["models"]
    assert variant["file"] == "float16.tflite"
    assert (extra / "lite" / "float16.tflite").stat().st_size == variant["size"]
    assert (extra / "lite" / "index.html").is_file()
    (module,) = summary["hub"]["models"]
    assert module["drop"] == pytest.approx(0.0, abs=1e-3)
    assert (extra / "hub" / "feature_extractor" / "saved_model.pb").is_file()
    card = (workspace / "runs" / "latest" / "model_card.md").read_text()
    assert f"| mean IoU | {summary['metrics']['mean_iou']:.4f} |" in card
    assert (extra / "model_card.md").read_text() == card


@pytest.mark.long
def test_another_run_starts_from_a_pushed_module(workspace: Path, data: Path, tmp_path: Path) -> None:
    module = Path(latest(workspace)["pushed_path"], "assets.extra/hub/feature_extractor")
    settings = overrides(data, **{"training.initial_weights": str(module), "model.head": "v3"})
    result = command_line(*run_arguments(tmp_path, settings, "--to", "Trainer"))
    assert result.returncode == 0, result.stderr
    assert f"from{module}" in "".join(result.stderr.split()), "the line of the initial weights, which may be wrapped"


def test_predict_writes_masks_overlays_and_a_legend_for_images_of_any_size(workspace: Path, tmp_path: Path) -> None:
    sizes = {"wide": (301, 97), "tall": (33, 210), "dot": (1, 1)}
    generator = np.random.default_rng(0)
    for name, (width, height) in sizes.items():
        Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8)).save(tmp_path / f"{name}.png")
    images = [str(tmp_path / f"{name}.png") for name in sizes]
    result = command_line("predict", *images, "--out", str(tmp_path / "out"), "--workspace", str(workspace))
    assert result.returncode == 0, result.stderr
    for name, size in sizes.items():
        assert mode_and_size(tmp_path / "out" / f"{name}_mask.png") == ("P", size)
        assert mode_and_size(tmp_path / "out" / f"{name}_overlay.png") == ("RGB", size)
    classes = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert [entry["name"] for entry in classes] == ["background", "rug", "ball", "bricks", "leaf", "star"]
    assert mode_and_size(tmp_path / "out" / "legend.png")[1][1] > 6 * 20


def test_predict_names_a_file_that_is_not_an_image(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "note.jpg").write_text("hello")
    arguments = [str(tmp_path / "note.jpg"), "--out", str(tmp_path / "out"), "--workspace", str(workspace)]
    result = command_line("predict", *arguments)
    assert result.returncode == 1
    assert "note.jpg" in result.stderr
    assert "Traceback" not in result.stderr


def test_lineage_names_what_stands_behind_the_version(workspace: Path, data: Path) -> None:
    result = command_line("lineage", "1", "--json", "--workspace", str(workspace))
    assert result.returncode == 0, result.stderr
    found, summary = json.loads(result.stdout), latest(workspace)
    assert (found["model"], found["version"], found["run_id"]) == ("tiny", 1, summary["run_id"])
    assert found["path"] == summary["pushed_path"]
    assert found["data"][0]["config"]["path"] == str(data)
    assert found["hyperparameters"]["training"] == summary["config"]["training"]
    assert found["evaluation"]["reasons"] == summary["reasons"]
    assert {stage["name"] for stage in found["stages"]} == STAGES
    for kind in ("statistics", "anomalies", "data_schema", "transform_graph", "trained_model"):
        (artifact,) = found[kind]
        assert list(Path(artifact["uri"]).rglob("*")), kind


def test_lineage_finds_the_versions_that_came_from_an_image_under_any_name(
    workspace: Path, data: Path, tmp_path: Path
) -> None:
    name = (data / "ImageSets/Segmentation/train.txt").read_text().split()[0]
    (image,) = (data / "JPEGImages").glob(f"{name}.*")
    shutil.copy(image, tmp_path / "another name")
    arguments = ("--data", str(tmp_path / "another name"), "--json", "--workspace", str(workspace))
    result = command_line("lineage", *arguments)
    assert result.returncode == 0, result.stderr
    (use,) = json.loads(result.stdout)["uses"]
    key = f"JPEGImages/{image.name}"
    assert use == {
        "model": "tiny",
        "version": 1,
        "split": "train",
        "key": key,
        "matched_by": "content",
        "through": None,
        "restored_from": None,
    }


def test_a_dry_run_says_that_only_the_evaluation_would_run_again(workspace: Path, data: Path) -> None:
    before = sorted(workspace.rglob("*"))
    result = command_line(*run_arguments(workspace, overrides(data, **TARGETS), "--dry-run"))
    assert result.returncode == 0, result.stderr
    plan = {row.split("│")[1].strip(): row.split("│")[2].strip() for row in result.stdout.splitlines() if "│" in row}
    running = {stage for stage, would in plan.items() if would == "run"}
    assert running == {"ServedModel", "SegmentationEvaluator", "ModelPusher"}
    assert sorted(workspace.rglob("*")) == before


def test_a_second_run_trains_nothing_and_pushes_nothing(workspace: Path, data: Path) -> None:
    summary = run_again(workspace, data)
    assert set(summary["cached"]) == STAGES - {"ServedModel", "SegmentationEvaluator", "ModelPusher"}
    assert summary["pushed_version"] is None
    assert "not pushed: already served as version 1" in summary["reasons"]
    assert summary["baseline"]["version"] == 1
    assert summary["baseline"]["mean_iou"] == summary["metrics"]["mean_iou"]
    assert summary["baseline"]["scores"] == summary["metrics"]["scores"]
    assert summary["baseline"]["change_interval"] == [0.0, 0.0]


def test_a_third_run_is_cached_throughout(workspace: Path, data: Path) -> None:
    summary = run_again(workspace, data)
    assert set(summary["cached"]) == STAGES
    assert "not pushed: already served as version 1" in summary["reasons"]


def test_a_changed_threshold_evaluates_again_and_nothing_else(workspace: Path, data: Path) -> None:
    summary = run_again(workspace, data, **{"evaluation.min_mean_iou": "0.99"})
    assert STAGES - set(summary["cached"]) == {"StrictExampleValidator", "SegmentationEvaluator", "ModelPusher"}
    assert summary["blessed"] is False
    assert any("is below evaluation.min_mean_iou=0.99" in reason for reason in summary["reasons"])
    assert "not pushed: not blessed by the evaluation" in summary["reasons"]


def test_a_changed_hyperparameter_trains_again_on_the_same_data(workspace: Path, data: Path) -> None:
    changes = {"training.learning_rate": "0.002", "evaluation.max_drop": "1"}
    summary = run_again(workspace, data, **changes)
    assert set(summary["cached"]) == {
        "ServedModel",
        "ImageExampleGen",
        "StatisticsGen",
        "DataSchema",
        "StrictExampleValidator",
        "ImageTransform",
    }
    assert summary["pushed_version"] == 2


def test_status_shows_the_runs_and_what_is_served(workspace: Path) -> None:
    result = command_line("status", "--workspace", str(workspace), "--json")
    assert result.returncode == 0, result.stderr
    status = json.loads(result.stdout)
    assert status["serving"] == {"tiny": [1, 2]}
    assert [run["pushed_version"] for run in status["runs"]] == [2, None, None, None, 1]


def test_a_bad_file_is_set_aside_and_the_data_is_read_again(workspace: Path, data: Path) -> None:
    victim = (data / "ImageSets/Segmentation/train.txt").read_text().split()[0]
    image = data / "JPEGImages" / f"{victim}.jpg"
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    settings = overrides(data, **{"data.max_bad_fraction": "0.2"})
    result = command_line(*run_arguments(workspace, settings, "--to", "ImageExampleGen"))
    assert result.returncode == 0, result.stderr
    summary = latest(workspace)
    assert summary["data"]["images"] == {"train": 7, "val": 3, "test": 4}
    assert summary["data"]["quarantined"] == 1


def test_too_many_bad_files_stop_the_run_with_the_list(workspace: Path, data: Path) -> None:
    settings = overrides(data, **{"data.max_bad_fraction": "0.05"})
    result = command_line(*run_arguments(workspace, settings))
    assert result.returncode == 1
    assert "1 of 15 images are bad, more than data.max_bad_fraction=0.05 allows" in result.stderr
    assert ".jpg: truncated image" in result.stderr
    assert "Traceback" not in result.stderr
    assert latest(workspace)["status"] == "failed"


def test_after_a_failure_the_workspace_is_usable(workspace: Path, tiny_dataset: Path) -> None:
    result = command_line(*run_arguments(workspace, overrides(tiny_dataset), "--to", "StrictExampleValidator"))
    assert result.returncode == 0, result.stderr
