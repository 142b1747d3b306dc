"""Whole runs whose clock is behind that of the run before: versions, runs and cache go on as if it were not.

libfaketime (Debian's package of that name) sets the clock of every process of a run, compiled libraries included.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from components.publishing.directory import published
from pipeline.workspace import run_folders
from tests.pipeline.conftest import command_line, in_process, overrides, run_arguments

pytestmark = [pytest.mark.long, pytest.mark.platform("libfaketime has to be installed")]

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


@pytest.fixture
def set_back(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets processes that start from now on see a clock that is some days behind; times of files stay true."""
    if LIBRARY is None:
        pytest.skip("libfaketime is not installed")

    def back(days: int) -> None:
        monkeypatch.setenv("NO_FAKE_STAT", "1")
        monkeypatch.setenv("LD_PRELOAD", str(LIBRARY))
        monkeypatch.setenv("FAKETIME", f"-{days}d")

    return back


def test_a_clock_that_jumps_back_changes_nothing(
    tiny_dataset: Path, tmp_path: Path, set_back: Callable[[int], None]
) -> None:
    def run(**changes: str) -> dict:
        result = command_line(*run_arguments(tmp_path, overrides(tiny_dataset, **changes)))
        assert result.returncode == 0, result.stderr
        summary: dict = json.loads((tmp_path / "runs/latest/summary.json").read_text())
        return summary

    changes = {"training.learning_rate": "0.002", "evaluation.max_drop": "1"}
    summaries = [run()]
    set_back(1)
    summaries.append(run(**changes))
    set_back(3)
    summaries.append(run(**changes))

    assert [summary["pushed_version"] for summary in summaries] == [1, 2, None]
    assert summaries[1]["baseline"]["version"] == 1
    assert {"ImageExampleGen", "ImageTransform"} <= set(summaries[1]["cached"])
    assert "Trainer" not in summaries[1]["cached"]
    assert set(summaries[2]["timings"]) - set(summaries[2]["cached"]) == {
        "ServedModel",
        "SegmentationEvaluator",
        "ModelPusher",
    }
    assert summaries[2]["reasons"][-1] == "not pushed: already served as version 2"
    first, second = (version.record.published_at for version in published(str(tmp_path / "serving/tiny")))
    assert second < first, "the clock did go back"
    names = [summary["run_id"] for summary in summaries]
    assert names == sorted(names) == [folder.name for folder in run_folders(tmp_path / "runs")][::-1]
    lineage = in_process("lineage", "2", "--json", "--workspace", str(tmp_path))
    assert json.loads(lineage.stdout)["run_id"] == names[1]
