"""A hyperparameter search in the pipeline: killed and started again, its best values trained with, and one that fails.

The tests of this file share one workspace and tell one story, in their order.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.files import LocalFiles
from models.config import ModelConfig
from models.network.deeplab import build_model
from pipeline.config import load_config, resolve
from pipeline.dry_run import plan
from pipeline.workspace import Workspace
from tests.pipeline.conftest import ROOT, command_line, overrides, run_arguments

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


@pytest.fixture(scope="module")
def workspace(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which a run was killed in the second trial of its search."""
    folder = tmp_path_factory.mktemp("tuning")
    command = [
        sys.executable,
        "local_runner.py",
        *run_arguments(folder / "workspace", overrides(tiny_dataset, **SETTINGS)),
    ]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        try:
            wait_for_second_trial(folder / "workspace", process)
        finally:
            process.kill()
            process.wait()
    return folder / "workspace"


def test_a_killed_search_goes_on_with_its_second_trial_and_the_best_values_are_trained_with(
    workspace: Path, tiny_dataset: Path
) -> None:
    result = command_line(*run_arguments(workspace, overrides(tiny_dataset, **SETTINGS), "--to", "Trainer"))
    assert result.returncode == 0, result.stderr
    first, second = (line for line in result.stderr.splitlines() if line.startswith("trial "))
    assert first.startswith("trial 1 of at most 2 (")
    assert "is already done: mean IoU" in first
    assert "is already done" not in second
    assert "resuming after step" in result.stderr

    summary = json.loads((workspace / "runs" / "latest" / "summary.json").read_text())
    scores = [trial["mean_iou"] for trial in summary["tuning"]["trials"]]
    assert len(scores) == 2 and scores == sorted(scores, reverse=True)
    best = summary["tuning"]["best"]
    assert best == summary["tuning"]["trials"][0]["values"]
    config = load_config([], overrides(tiny_dataset, **{"model.aspp_channels": str(best["model.aspp_channels"])}))
    assert summary["model"]["params"] == parameters(config.model)
    assert summary["config"]["model"]["aspp_channels"] == 8
    report = (workspace / "runs" / "latest" / "report.html").read_text()
    assert "Hyperparameter search" in report and "training.learning_rate" in report
    logs = (workspace / "runs" / "latest" / "trials").glob("*/events.out.tfevents.*")
    assert {log.parent.name for log in logs} == {"trial-001", "trial-002"}
    # Retention, after this run, found both the search and the training finished, and kept the newer.
    (finished,) = workspace.glob("checkpoints/*/*/finished")
    assert (finished.parent / "checkpoints").is_dir()


def parameters(config: ModelConfig) -> int:
    """Of a network for the sample dataset."""
    return build_model(config, 6, mean=[0.0] * 3, variance=[1.0] * 3).count_params()


def test_an_unchanged_search_is_not_made_again_and_a_changed_one_is(workspace: Path, tiny_dataset: Path) -> None:
    def planned(**changes: str) -> dict[str, bool]:
        config = load_config([], overrides(tiny_dataset, **changes))
        stages = plan(resolve(config, LocalFiles()), Workspace(workspace)).stages
        return {stage.name: stage.runs for stage in stages if stage.name in ("ImageTransform", "Tuner", "Trainer")}

    assert planned(**SETTINGS) == {"ImageTransform": False, "Tuner": False, "Trainer": False}
    assert planned(**SETTINGS, **{"push.keep": "9"})["Trainer"] is False
    more = SETTINGS["tuning"].replace("trials: 2", "trials: 3")
    assert planned(tuning=more) == {"ImageTransform": False, "Tuner": True, "Trainer": True}
    assert planned() == {"ImageTransform": False, "Trainer": True}


def test_a_trial_that_fails_fails_the_run_with_its_reason(workspace: Path, tiny_dataset: Path) -> None:
    tuning = "{trials: 2, steps: 6, space: {training.learning_rate: {choices: [1e+30, 2e+30]}}}"
    result = command_line(*run_arguments(workspace, overrides(tiny_dataset, tuning=tuning)))
    assert result.returncode == 1
    assert "trial 1 of at most 2 (training.learning_rate=" in result.stderr
    assert "failed: training diverged at step" in result.stderr
    assert "Traceback" not in result.stderr
    summary = json.loads((workspace / "runs" / "latest" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert summary["tuning"] is None
