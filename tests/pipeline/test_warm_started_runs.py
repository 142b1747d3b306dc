"""Retraining from the served model: on new data and at no other time, with older spans replayed.

The long tests of this file share one workspace and tell one story, in their order.
"""

import json
import shutil
from pathlib import Path

import pytest

from data.files import LocalFiles
from data.synthetic import write_dataset
from pipeline.config import load_config, resolve
from pipeline.dry_run import plan
from pipeline.local import compile_pipeline
from pipeline.workspace import Workspace
from tests.pipeline.conftest import command_line, overrides, run_arguments

WARM = {"training.warm_start": "true"}
SETTINGS = {
    **WARM,
    "training.warm_start_epochs": "1",
    "data.spans.replay": "1.0",
    "validation.on_drift": "warn",
    "evaluation.max_drop": "1",
}
TRAINED = {"ImageTransform", "WarmStart", "Trainer"}
#: What hangs on which model is served.
JUDGED = {"ServedModel", "SegmentationEvaluator", "ModelPusher"}


def upstream(data: Path, workspace: Path, **changes: str) -> dict[str, set[str]]:
    """Stage -> stages that it waits for."""
    config = resolve(load_config([], overrides(data, **changes)), LocalFiles())
    compiled = compile_pipeline(config, Workspace(workspace), "run")
    return {node.pipeline_node.node_info.id: set(node.pipeline_node.upstream_nodes) for node in compiled.nodes}


def test_the_start_of_a_training_hangs_on_its_data_and_not_on_what_is_served(tiny_dataset: Path, tmp_path: Path):
    stages = upstream(tiny_dataset, tmp_path, **WARM)

    assert stages["WarmStart"] == {"ImageTransform"}
    assert stages["Trainer"] == {"ImageTransform", "WarmStart"}
    assert stages["SegmentationEvaluator"] >= {"ServedModel", "Trainer"}


def test_a_search_starts_from_the_same_model(tiny_dataset: Path, tmp_path: Path):
    search = "{trials: 1, space: {augment.flip: {choices: [true, false]}}}"

    assert "WarmStart" in upstream(tiny_dataset, tmp_path, tuning=search, **WARM)["Tuner"]


def test_without_a_warm_start_there_is_no_such_stage(tiny_dataset: Path, tmp_path: Path):
    assert "WarmStart" not in upstream(tiny_dataset, tmp_path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one span."""
    folder = tmp_path_factory.mktemp("story") / "data"
    add_span(folder, 1)
    return folder


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("story") / "workspace"


def add_span(folder: Path, number: int) -> None:
    write_dataset(folder / f"span-{number}", num_train=4, num_val=2, num_test=2, seed=number)


def settings(data: Path) -> list[str]:
    return overrides(Path(f"{data}/span-{{SPAN}}"), **SETTINGS)


def planned(data: Path, workspace: Path) -> set[str]:
    """The stages that would run now."""
    config = resolve(load_config([], settings(data)), LocalFiles())
    return {stage.name for stage in plan(config, Workspace(workspace)).stages if stage.runs}


def run(data: Path, workspace: Path) -> dict:
    """Runs once and gives the summary."""
    result = command_line(*run_arguments(workspace, settings(data)))
    assert result.returncode == 0, result.stderr
    summary: dict = json.loads((workspace / "runs" / "latest" / "summary.json").read_text())
    return summary


@pytest.mark.long
def test_the_first_training_starts_fresh_and_takes_all_steps(data: Path, workspace: Path):
    summary = run(data, workspace)

    assert summary["pushed_version"] == 1
    assert (summary["model"]["started_from"], summary["model"]["planned_steps"]) == (None, 6)
    assert summary["data"]["replayed"] == {}


@pytest.mark.long
def test_unchanged_data_are_not_trained_on_again_although_another_model_is_served(data: Path, workspace: Path):
    assert planned(data, workspace) == JUDGED


@pytest.mark.long
def test_new_data_train_the_served_model_on_with_all_older_images(data: Path, workspace: Path):
    add_span(data, 2)
    summary = run(data, workspace)

    assert not TRAINED & set(summary["cached"])
    assert summary["data"]["spans"] == [2]
    assert summary["data"]["replayed"] == {"span-1": 4}
    assert summary["data"]["images"] == {"train": 8, "val": 2, "test": 2}
    # One pass over 8 images, 2 at a time.
    assert (summary["model"]["started_from"], summary["model"]["planned_steps"]) == (1, 4)
    assert summary["baseline"]["version"] == 1
    assert summary["pushed_version"] == 2
    report = (workspace / "runs/latest/report.html").read_text()
    assert "served version" in report and 'id="spans"' in report


@pytest.mark.long
def test_lineage_names_the_version_that_training_started_from(workspace: Path):
    result = command_line("lineage", "2", "--json", "--workspace", str(workspace))
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)

    assert found["started_from"] == 1
    assert (found["data"][0]["spans"], found["data"][0]["replayed"]) == (["span-2"], {"span-1": 4})
    assert "WarmStart" in {stage["name"] for stage in found["stages"]}


@pytest.mark.long
def test_a_version_that_comes_back_does_not_start_a_training(data: Path, workspace: Path):
    assert not TRAINED & planned(data, workspace)
    shutil.rmtree(workspace / "serving/tiny/2")
    assert not TRAINED & planned(data, workspace)


@pytest.mark.long
def test_a_model_that_was_removed_by_hand_is_pushed_again(data: Path, workspace: Path):
    """The test before has removed the served version; then the whole serving directory goes."""
    summaries = [run(data, workspace)]
    shutil.rmtree(workspace / "serving")
    summaries.append(run(data, workspace))

    assert [set(summary["timings"]) - set(summary["cached"]) for summary in summaries] == [JUDGED, JUDGED]
    assert [summary["pushed_version"] for summary in summaries] == [3, 4], "no number is given twice"
