"""The pipeline of the tiny dataset, compiled and rehearsed twice, against the same pipeline on the local runner.

Each step is a process that imports TFX: several minutes on two cores.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.pipeline.conftest import ROOT, TINY, command_line, overrides, run_arguments
from tests.pipeline.kubeflow.test_simulation_command import rows

pytestmark = pytest.mark.long

#: Two trainings of one configuration give the same numbers. The first one starts fresh, since nothing is served yet.
SETTINGS = {"training.deterministic": "true", "training.warm_start": "true"}
#: What a second run does anew: the state steps, and what depends on which model is served.
ANEW = {
    "ImageExampleGen-state",
    "ServedModel-state",
    "ServedModel",
    "SegmentationEvaluator",
    "ModelPusher",
    "RunReporter",
}


@pytest.fixture(scope="module")
def config(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a tiny run, as a file."""
    tree: dict[str, dict[str, object]] = {"data": {"path": str(tiny_dataset)}}
    for key, value in {**TINY, **SETTINGS}.items():
        section, field = key.split(".")
        tree.setdefault(section, {})[field] = yaml.safe_load(value)
    path = tmp_path_factory.mktemp("rehearsal") / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def rehearse(config: Path, store: Path) -> dict[str, list[str]]:
    """Step -> state, attempts, seconds, reason."""
    result = subprocess.run(
        [sys.executable, "kubeflow_runner.py", "simulate", "--config", str(config), "--store", str(store)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "250"},
        check=False,
    )
    logs = "".join(path.read_text(errors="replace")[-3000:] for path in store.rglob(".simulation/*/*/*.log"))
    assert result.returncode == 0, result.stdout + result.stderr + logs
    assert Path(result.stdout.split("report: ")[1].strip()).is_file()
    return rows(result.stdout)


@pytest.fixture(scope="module")
def store(config: Path) -> Path:
    """A store after the first run."""
    folder = config.parent / "store"
    states = {step: cells[0] for step, cells in rehearse(config, folder).items()}
    assert len(states) == 14
    assert set(states.values()) == {"succeeded"}
    return folder


def predicted(workspace: Path, picture: Path, out: Path) -> bytes:
    """The mask that the pushed model gives."""
    result = command_line("predict", str(picture), "--out", str(out), "--workspace", str(workspace))
    assert result.returncode == 0, result.stderr
    return (out / f"{picture.stem}_mask.png").read_bytes()


def test_the_rehearsal_ends_in_a_pushed_model_that_predicts_what_the_local_runners_does(
    tiny_dataset: Path, store: Path, tmp_path: Path
) -> None:
    assert [path.name for path in (store / "serving" / "tiny").iterdir() if path.name.isdecimal()] == ["1"]
    workspace = tmp_path / "workspace"
    result = command_line(*run_arguments(workspace, overrides(tiny_dataset, **SETTINGS)))
    assert result.returncode == 0, result.stderr
    picture = next(tiny_dataset.rglob("*.jpg"))
    assert predicted(store, picture, tmp_path / "rehearsed") == predicted(workspace, picture, tmp_path / "local")
    require_the_same_record(store, workspace)


def require_the_same_record(store: Path, workspace: Path) -> None:
    """The last step of a rehearsal leaves what the local runner leaves, and a file each for the server's pages."""
    (folder,) = store.rglob("RunReporter/*/record")
    summaries = [json.loads((run / "summary.json").read_text()) for run in (folder, workspace / "runs" / "latest")]
    for field in ("data", "model", "metrics", "blessed", "reasons", "pushed_version"):
        assert summaries[0][field] == summaries[1][field], field
    (run_id,) = [path.name for path in (store / ".simulation").iterdir() if path.is_dir()]
    assert summaries[0]["run_id"] == run_id
    assert "Predictions" in (folder / "report.html").read_text()
    assert (folder.parent / "report").read_bytes() == (folder / "report.html").read_bytes()
    card = (folder.parent / "model_card").read_text()
    assert card == (folder / "model_card.md").read_text()
    assert card == (store / "serving" / "tiny" / "1" / "assets.extra" / "model_card.md").read_text()


def test_a_second_rehearsal_repeats_only_what_depends_on_the_served_model(config: Path, store: Path) -> None:
    states = {step: cells[0] for step, cells in rehearse(config, store).items()}
    assert {step for step, state in states.items() if state == "succeeded"} == ANEW
    assert set(states.values()) == {"succeeded", "cached"}


def test_a_changed_configuration_trains_the_served_model_on(config: Path, store: Path) -> None:
    tree = yaml.safe_load(config.read_text())
    tree["training"]["learning_rate"] = 0.002
    tree["evaluation"] = {"max_drop": 1.0}
    changed = config.with_name("changed.yaml")
    changed.write_text(yaml.safe_dump(tree))
    states = {step: cells[0] for step, cells in rehearse(changed, store).items()}
    assert (states["ImageTransform"], states["WarmStart"], states["Trainer"]) == ("cached", "succeeded", "succeeded")
    records = sorted((store / "mlpipeline").rglob("training.json"), key=lambda path: path.stat().st_mtime)
    fresh, warm = (json.loads(path.read_text())["initial_weights"] for path in records)
    assert fresh == "random"
    assert "WarmStart" in warm
