"""Retraining from the served model: on new data and at no other time, with older spans replayed."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from data.files import LocalFiles
from data.synthetic import write_dataset
from pipeline.config import load_config, resolve
from pipeline.dry_run import plan
from pipeline.local import compile_pipeline
from pipeline.workspace import Workspace
from tests.pipeline.conftest import in_process, overrides, run_arguments

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


class Runs(NamedTuple):
    """Runs in one workspace, as the data grow and served versions are removed; each with its summary."""

    workspace: Path
    first: dict[str, Any]
    """On one span."""
    planned_on_unchanged_data: set[str]
    """The stages that would have run after the first run."""
    second: dict[str, Any]
    """With a second span."""
    lineage: dict[str, Any]
    """Of the version that the second run has pushed."""
    planned_after_second: set[str]
    planned_on_earlier_version: set[str]
    """Once version 2 was removed."""
    on_earlier_version: dict[str, Any]
    on_no_version: dict[str, Any]
    """Once the whole serving directory was removed."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("warm_started")
    workspace = folder / "workspace"
    settings = overrides(folder / "data/span-{SPAN}", **SETTINGS)

    def add_span(number: int) -> None:
        write_dataset(folder / f"data/span-{number}", num_train=4, num_val=2, num_test=2, seed=number)

    def planned() -> set[str]:
        config = resolve(load_config([], settings), LocalFiles())
        return {stage.name for stage in plan(config, Workspace(workspace)).stages if stage.runs}

    def run() -> dict[str, Any]:
        result = in_process(*run_arguments(workspace, settings))
        assert result.returncode == 0, result.stderr
        summary: dict[str, Any] = json.loads((workspace / "runs" / "latest" / "summary.json").read_text())
        return summary

    add_span(1)
    first, planned_on_unchanged_data = run(), planned()
    add_span(2)
    second, planned_after_second = run(), planned()
    lineage = json.loads(in_process("lineage", "2", "--json", "--workspace", str(workspace)).stdout)
    shutil.rmtree(workspace / "serving/tiny/2")
    planned_on_earlier_version, on_earlier_version = planned(), run()
    shutil.rmtree(workspace / "serving")
    return Runs(
        workspace=workspace,
        first=first,
        planned_on_unchanged_data=planned_on_unchanged_data,
        second=second,
        lineage=lineage,
        planned_after_second=planned_after_second,
        planned_on_earlier_version=planned_on_earlier_version,
        on_earlier_version=on_earlier_version,
        on_no_version=run(),
    )


@pytest.mark.long
def test_the_first_training_starts_fresh_and_takes_all_steps(runs: Runs):
    assert runs.first["pushed_version"] == 1
    assert (runs.first["model"]["started_from"], runs.first["model"]["planned_steps"]) == (None, 6)
    assert runs.first["data"]["replayed"] == {}


@pytest.mark.long
def test_unchanged_data_are_not_trained_on_again_although_another_model_is_served(runs: Runs):
    assert runs.planned_on_unchanged_data == JUDGED


@pytest.mark.long
def test_new_data_train_the_served_model_on_with_all_older_images(runs: Runs):
    assert not TRAINED & set(runs.second["cached"])
    assert runs.second["data"]["spans"] == [2]
    assert runs.second["data"]["replayed"] == {"span-1": 4}
    assert runs.second["data"]["images"] == {"train": 8, "val": 2, "test": 2}
    # One pass over 8 images, 2 at a time.
    assert (runs.second["model"]["started_from"], runs.second["model"]["planned_steps"]) == (1, 4)
    assert runs.second["baseline"]["version"] == 1
    assert runs.second["pushed_version"] == 2
    report = (runs.workspace / "runs" / runs.second["run_id"] / "report.html").read_text()
    assert "served version" in report and 'id="spans"' in report


@pytest.mark.long
def test_lineage_names_the_version_that_training_started_from(runs: Runs):
    assert runs.lineage["started_from"] == 1
    data = runs.lineage["data"][0]
    assert (data["spans"], data["replayed"]) == (["span-2"], {"span-1": 4})
    assert "WarmStart" in {stage["name"] for stage in runs.lineage["stages"]}


@pytest.mark.long
def test_a_version_that_comes_back_does_not_start_a_training(runs: Runs):
    assert not TRAINED & runs.planned_after_second
    assert not TRAINED & runs.planned_on_earlier_version


@pytest.mark.long
def test_a_model_that_was_removed_by_hand_is_pushed_again(runs: Runs):
    summaries = [runs.on_earlier_version, runs.on_no_version]
    assert [set(summary["timings"]) - set(summary["cached"]) for summary in summaries] == [JUDGED, JUDGED]
    assert [summary["pushed_version"] for summary in summaries] == [3, 4], "no number is given twice"
