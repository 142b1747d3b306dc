"""A search in the pipeline: killed and started again, its best values trained with, and one that fails."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from data.files import LocalFiles
from models.config import ModelConfig
from models.network.deeplab import build_model
from pipeline.config import load_config, resolve
from pipeline.dry_run import plan
from pipeline.workspace import Workspace
from tests.pipeline.conftest import ROOT, command_line, in_process, overrides, run_arguments

# KerasTuner calls threading.currentThread.
pytestmark = pytest.mark.filterwarnings("ignore:(currentThread|getName).. is deprecated:DeprecationWarning")

# The configuration's own value is not among the choices.
SPACE = "{training.learning_rate: {min: 1e-4, max: 1e-2, sampling: log}, model.aspp_channels: {choices: [12, 16]}}"
# Long enough for a kill between the first checkpoint of a trial and its end.
SETTINGS = {
    "tuning": f"{{trials: 2, steps: 60, space: {SPACE}}}",
    "training.checkpoint_every": "5",
    "training.eval_every": "60",
}


def second_trial_has_begun(workspace: Path) -> bool:
    """Whether one trial is finished and another has saved its state."""
    finished = {score.parent for score in workspace.glob("checkpoints/*/*/*/score.txt")}
    begun = {state.parents[2] for state in workspace.glob("checkpoints/*/*/*/checkpoints/state/*.index")}
    return bool(finished and begun - finished)


def wait_for_second_trial(workspace: Path, process: subprocess.Popen[bytes]) -> None:
    """Returns as soon as the second trial has saved its state."""
    deadline = time.monotonic() + 600
    while not second_trial_has_begun(workspace):
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline, "no second trial within ten minutes"
        time.sleep(0.1)


class Searched(NamedTuple):
    """A workspace in which a run was killed in the second trial of its search, and started again."""

    workspace: Path
    resumed: str
    """What the second run printed as it went."""
    summary: dict[str, Any]


@pytest.fixture(scope="module")
def searched(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    folder = tmp_path_factory.mktemp("tuning")
    workspace = folder / "workspace"
    arguments = run_arguments(workspace, overrides(tiny_dataset, **SETTINGS), "--to", "Trainer")
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "local_runner.py", *arguments], cwd=ROOT, stdout=output, stderr=output
        )
        try:
            wait_for_second_trial(workspace, process)
        finally:
            process.kill()
            process.wait()
    result = command_line(*arguments)
    assert result.returncode == 0, result.stderr
    return Searched(workspace, result.stderr, latest(workspace))


def latest(workspace: Path) -> dict[str, Any]:
    """The summary of the newest run."""
    summary: dict[str, Any] = json.loads((workspace / "runs" / "latest" / "summary.json").read_text())
    return summary


@pytest.mark.long
def test_a_killed_search_goes_on_with_its_second_trial(searched: Searched) -> None:
    first, second = (line for line in searched.resumed.splitlines() if line.startswith("trial "))
    assert first.startswith("trial 1 of at most 2 (")
    assert "is already done: mean IoU" in first
    assert "is already done" not in second
    assert "resuming after step" in searched.resumed


@pytest.mark.long
def test_the_best_values_are_trained_with(searched: Searched, tiny_dataset: Path) -> None:
    tuning = searched.summary["tuning"]
    scores = [trial["mean_iou"] for trial in tuning["trials"]]
    assert len(scores) == 2 and scores == sorted(scores, reverse=True)
    best = tuning["best"]
    assert best == tuning["trials"][0]["values"]
    config = load_config([], overrides(tiny_dataset, **{"model.aspp_channels": str(best["model.aspp_channels"])}))
    assert searched.summary["model"]["params"] == parameters(config.model)
    assert searched.summary["config"]["model"]["aspp_channels"] == 8


@pytest.mark.long
def test_the_search_is_in_the_report_and_its_curves_beside_it(searched: Searched) -> None:
    folder = searched.workspace / "runs" / searched.summary["run_id"]
    report = (folder / "report.html").read_text()
    assert "Hyperparameter search" in report and "training.learning_rate" in report
    logs = (folder / "trials").glob("*/events.out.tfevents.*")
    assert {log.parent.name for log in logs} == {"trial-001", "trial-002"}


@pytest.mark.long
def test_of_a_search_and_its_training_which_are_finished_the_newer_is_kept(searched: Searched) -> None:
    (finished,) = searched.workspace.glob("checkpoints/*/*/finished")
    assert (finished.parent / "checkpoints").is_dir()


def parameters(config: ModelConfig) -> int:
    """Of a network for the sample dataset."""
    return build_model(config, 6, mean=[0.0] * 3, variance=[1.0] * 3).count_params()


@pytest.mark.long
def test_an_unchanged_search_is_not_made_again_and_a_changed_one_is(searched: Searched, tiny_dataset: Path) -> None:
    def planned(**changes: str) -> dict[str, bool]:
        config = load_config([], overrides(tiny_dataset, **changes))
        stages = plan(resolve(config, LocalFiles()), Workspace(searched.workspace)).stages
        return {stage.name: stage.runs for stage in stages if stage.name in ("ImageTransform", "Tuner", "Trainer")}

    assert planned(**SETTINGS) == {"ImageTransform": False, "Tuner": False, "Trainer": False}
    assert planned(**SETTINGS, **{"push.keep": "9"})["Trainer"] is False
    more = SETTINGS["tuning"].replace("trials: 2", "trials: 3")
    assert planned(tuning=more) == {"ImageTransform": False, "Tuner": True, "Trainer": True}
    assert planned() == {"ImageTransform": False, "Trainer": True}


def test_a_trial_that_fails_fails_the_run_with_its_reason(tiny_dataset: Path, tmp_path: Path) -> None:
    tuning = "{trials: 2, steps: 6, space: {training.learning_rate: {choices: [1e+30, 2e+30]}}}"
    result = in_process(*run_arguments(tmp_path, overrides(tiny_dataset, tuning=tuning)))
    assert result.returncode == 1
    assert "trial 1 of at most 2 (training.learning_rate=" in result.stderr
    assert "failed: training diverged at step" in result.stderr
    assert latest(tmp_path)["status"] == "failed"
    assert latest(tmp_path)["tuning"] is None
