"""A version is rolled back; the pipeline, which still thinks well of its model, does not push it again by itself."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from components.publishing.directory import served
from data.errors import TEMPORARY
from tests.pipeline.conftest import ROOT, command_line, overrides, run_arguments
from tests.pipeline.schedule.conftest import wait_for

pytestmark = pytest.mark.long


def command(*arguments: str) -> str:
    result = command_line(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_what_was_rolled_back_stays_so_until_it_is_unblocked(tiny_dataset: Path, tmp_path: Path):
    workspace = ("--workspace", str(tmp_path))

    def run(**changes: str) -> dict:
        command(*run_arguments(tmp_path, overrides(tiny_dataset, **changes)))
        return json.loads((tmp_path / "runs/latest/summary.json").read_text())

    better = {"training.learning_rate": "0.002", "evaluation.max_drop": "1"}
    assert run()["pushed_version"] == 1
    assert run(**better)["pushed_version"] == 2
    lineage = json.loads(command("lineage", "1", "--json", *workspace))

    command("rollback", "--reason", "blurred", *workspace)

    assert served(str(tmp_path / "serving/tiny")).record.restored_from == 1
    again = json.loads(command("lineage", "3", "--json", *workspace))
    assert (again["restoration"]["restored_from"], again["restoration"]["reason"]) == (1, "blurred")
    assert {**again, "restoration": None} == lineage
    refused = run(**better)
    assert refused["blessed"] is True
    assert refused["baseline"]["version"] == 3
    assert refused["pushed_version"] is None
    assert refused["reasons"][-1].startswith("not pushed: version 2, which is this model, was rolled back on ")
    assert refused["reasons"][-1].endswith("(blurred)")

    command("unblock", "2", *workspace)

    unblocked = run(**better)
    assert unblocked["pushed_version"] == 4
    assert "Trainer" in unblocked["cached"]

    # A rollback while a run is under way: what that run was judged against is served no more.
    other = {**better, "training.learning_rate": "0.003"}
    judgements = tmp_path / "artifacts/SegmentationEvaluator/evaluation"
    judged = set(judgements.iterdir())
    arguments = [sys.executable, "local_runner.py", *run_arguments(tmp_path, overrides(tiny_dataset, **other))]
    output = tmp_path / "output.txt"
    with output.open("w") as file, subprocess.Popen(arguments, cwd=ROOT, stdout=file, stderr=file) as under_way:
        wait_for(lambda: set(judgements.iterdir()) - judged or under_way.poll() is not None, "the model is judged")
        command("rollback", "--to", "1", *workspace)
    assert (under_way.returncode, served(str(tmp_path / "serving/tiny")).version) == (TEMPORARY, 5)
    assert "version 5 is served now, but this change was decided when version 4 was; run again" in output.read_text()

    repeated = run(**other)
    assert (repeated["baseline"]["version"], repeated["pushed_version"]) == (5, 6)
    assert "Trainer" in repeated["cached"]
