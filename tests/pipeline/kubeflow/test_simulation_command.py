"""What the command `simulate` prints and how it ends."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from data.errors import ConfigError, ProjectError
from pipeline.cli import kubeflow_simulate
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


def test_the_rehearsal_of_a_configuration_compiles_it_with_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({"data": {"path": "data"}}))
    given: list[Any] = []

    def resolved_config(*arguments: Any) -> None:
        given.append(arguments)
        raise ConfigError("enough")

    monkeypatch.setattr(kubeflow_simulate, "resolved_config", resolved_config)
    with pytest.raises(ConfigError, match="enough"):
        kubeflow_simulate.simulate([tmp_path / "my.yaml"], store=tmp_path / "store")

    assert given == [([tmp_path / "my.yaml"], [f'data.path="{tmp_path}/data"'])]
