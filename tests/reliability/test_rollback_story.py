"""A version is rolled back; the pipeline, which still thinks well of its model, does not push it again by itself."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from components.publishing.directory import ModelVersion, served
from data.errors import TEMPORARY
from tests.pipeline.conftest import ROOT, in_process, overrides, run_arguments
from tests.pipeline.schedule.conftest import wait_for

pytestmark = pytest.mark.long


class UnderWay(NamedTuple):
    """A run during which another version came to be served than the one that it was judged against."""

    returncode: int
    output: str
    served: int


class Story(NamedTuple):
    """What became of two versions, of which the second was rolled back."""

    pushed: list[int]
    restored: ModelVersion
    """What is served after the rollback."""
    lineage: dict[str, Any]
    """Of version 1, before the rollback."""
    restored_lineage: dict[str, Any]
    refused: dict[str, Any]
    """The summary of a run like the one that had made version 2."""
    unblocked: dict[str, Any]
    """The same once that is allowed again."""
    under_way: UnderWay
    repeated: dict[str, Any]
    """The summary of a run like the one that was under way."""


@pytest.fixture(scope="module")
def story(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("rollback") / "workspace"
    serving = str(folder / "serving/tiny")

    def command(*arguments: str) -> str:
        result = in_process(*arguments, "--workspace", str(folder))
        assert result.returncode == 0, result.stderr
        return result.stdout

    def run(**changes: str) -> dict[str, Any]:
        result = in_process(*run_arguments(folder, overrides(tiny_dataset, **changes)))
        assert result.returncode == 0, result.stderr
        summary: dict[str, Any] = json.loads((folder / "runs/latest/summary.json").read_text())
        return summary

    better = {"training.learning_rate": "0.002", "evaluation.max_drop": "1"}
    pushed = [run()["pushed_version"], run(**better)["pushed_version"]]
    lineage = json.loads(command("lineage", "1", "--json"))
    command("rollback", "--reason", "blurred")
    restored, restored_lineage = served(serving), json.loads(command("lineage", "3", "--json"))
    assert restored is not None
    refused = run(**better)
    command("unblock", "2")
    unblocked = run(**better)

    other = {**better, "training.learning_rate": "0.003"}
    judgements = folder / "artifacts/SegmentationEvaluator/evaluation"
    judged = set(judgements.iterdir())
    arguments = [sys.executable, "local_runner.py", *run_arguments(folder, overrides(tiny_dataset, **other))]
    output = folder.parent / "output.txt"
    with output.open("w") as file, subprocess.Popen(arguments, cwd=ROOT, stdout=file, stderr=file) as process:
        wait_for(lambda: set(judgements.iterdir()) - judged or process.poll() is not None, "the model is judged")
        command("rollback", "--to", "1")
    now = served(serving)
    assert now is not None
    under_way = UnderWay(process.returncode, output.read_text(), now.version)
    return Story(pushed, restored, lineage, restored_lineage, refused, unblocked, under_way, run(**other))


def test_a_rollback_serves_the_earlier_version_again_under_a_new_number(story: Story):
    assert story.pushed == [1, 2]
    assert (story.restored.version, story.restored.record.restored_from) == (3, 1)
    restoration = story.restored_lineage["restoration"]
    assert (restoration["restored_from"], restoration["reason"]) == (1, "blurred")
    assert {**story.restored_lineage, "restoration": None} == story.lineage


def test_what_was_rolled_back_is_not_pushed_again(story: Story):
    assert story.refused["blessed"] is True
    assert story.refused["baseline"]["version"] == 3
    assert story.refused["pushed_version"] is None
    assert story.refused["reasons"][-1].startswith("not pushed: version 2, which is this model, was rolled back on ")
    assert story.refused["reasons"][-1].endswith("(blurred)")


def test_once_unblocked_it_is_pushed_again_without_training(story: Story):
    assert story.unblocked["pushed_version"] == 4
    assert "Trainer" in story.unblocked["cached"]


def test_a_run_pushes_nothing_that_was_judged_against_what_is_served_no_more(story: Story):
    assert (story.under_way.returncode, story.under_way.served) == (TEMPORARY, 5)
    why = "version 5 is served now, but this change was decided when version 4 was; run again"
    assert why in story.under_way.output


def test_the_next_run_judges_it_against_what_is_served_now(story: Story):
    assert (story.repeated["baseline"]["version"], story.repeated["pushed_version"]) == (5, 6)
    assert "Trainer" in story.repeated["cached"]
