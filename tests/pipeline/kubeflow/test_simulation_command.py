"""What the command `simulate` prints and how it ends."""

from pathlib import Path

import pytest

from data.errors import ProjectError
from pipeline.cli.kubeflow_simulate import simulate
from tests.pipeline.kubeflow.hand_made import Pipeline


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    monkeypatch.setenv("COLUMNS", "200")
    return Pipeline(tmp_path, name=("STRING", "rug"))


def rows(printed: str) -> dict[str, list[str]]:
    """The table's lines: step -> its other cells."""
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if line.startswith("│")]
    return {line[0]: line[1:] for line in lines}


def test_a_table_says_how_each_step_went(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.shell("first", "true", cache=True)
    pipeline.shell("second", "true", dependentTasks=["first"])
    for expected in ("succeeded", "cached"):
        simulate(spec=pipeline.write(), set_=["name=ball"], store=tmp_path / "store")
        found = rows(capsys.readouterr().out)
        assert found["first"][:2] == [expected, "1" if expected == "succeeded" else ""]
        assert found["second"][0] == "succeeded"
        assert float(found["second"][2]) >= 0


def test_a_failed_run_is_an_error_that_names_the_steps_and_where_the_logs_are(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.shell("good", "true")
    pipeline.shell("bad", "echo because; exit 2")
    with pytest.raises(ProjectError, match=r"the run failed: bad$"):
        simulate(spec=pipeline.write(), store=tmp_path / "store")
    printed = capsys.readouterr().out
    assert rows(printed)["bad"][0] == "failed"
    assert "exit status 2" in rows(printed)["bad"][3]
    logs = Path(printed.split("logs: ")[1].strip())
    assert (logs / "bad" / "0.log").read_text() == "because\n"
