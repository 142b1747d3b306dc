"""The records of runs, and what differs between their configurations."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import WorkspaceError
from pipeline.report.runs import ConfigChange, config_diff, read_run_record, since_previous
from pipeline.workspace import CONFIG_FILE, Workspace

TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda below: st.dictionaries(st.text("ab", min_size=1, max_size=2), below, max_size=3),
)
CONFIGS = st.dictionaries(st.text("ab", min_size=1, max_size=2), TREES, max_size=3)


def test_settings_that_differ_are_named_by_their_path():
    before = {"model": {"width": 0.5, "stem": {"kind": "a"}}, "training": {"steps": 6}, "old": None}
    after = {"model": {"width": 0.75, "stem": {"kind": "a"}}, "training": {"steps": 6, "seed": "é"}}
    assert config_diff(before, after) == [
        ConfigChange("model.width", "0.5", "0.75"),
        ConfigChange("old", "null", ""),
        ConfigChange("training.seed", "", '"é"'),
    ]


@given(CONFIGS)
def test_a_configuration_does_not_differ_from_itself(config: dict[str, Any]):
    assert config_diff(config, json.loads(json.dumps(config))) == []


def test_a_setting_that_was_renamed_since_is_compared_by_its_current_name() -> None:
    before = {"training": {"loss": {"top_k_fraction": 0.5}}, "augment": {"finish": None}}
    after = {"training": {"loss": {"ohem_fraction": 0.25}}, "augment": {"progressive_resizing": None}}
    assert config_diff(before, after) == [ConfigChange("training.loss.ohem_fraction", "0.5", "0.25")]


@given(CONFIGS, CONFIGS)
def test_back_is_the_reverse(first: dict[str, Any], second: dict[str, Any]):
    back = [ConfigChange(change.key, change.after, change.before) for change in config_diff(second, first)]
    assert config_diff(first, second) == back


def test_the_run_before_is_the_newest_earlier_one_that_began(tmp_path: Path):
    for run_id, steps in (("20260101-000000-000", 1), ("20260102-000000-000", 2), ("20260105-000000-000", 5)):
        (tmp_path / run_id).mkdir()
        (tmp_path / run_id / CONFIG_FILE).write_text(json.dumps({"steps": steps}))
    (tmp_path / "20260103-000000-000").mkdir()
    for damaged in ('{"steps": 3', "[3]", "\udcff"):
        folder = tmp_path / f"20260103-00000{len(damaged)}-000"
        folder.mkdir()
        (folder / CONFIG_FILE).write_text(damaged, errors="surrogateescape")
    (tmp_path / "latest").symlink_to("20260105-000000-000")
    found = since_previous(tmp_path / "20260104-000000-000", {"steps": 4})
    assert found is not None
    assert (found.run_id, found.changes) == ("20260102-000000-000", [ConfigChange("steps", "2", "4")])
    assert since_previous(tmp_path / "20260101-000000-000", {"steps": 1}) is None


def test_a_killed_run_has_nothing_to_report(tmp_path: Path):
    Workspace(tmp_path).start_run("20260101-000000-000")
    with pytest.raises(WorkspaceError, match="there is no summary.json: this run was killed"):
        read_run_record(Workspace(tmp_path), None)


def test_a_run_that_is_not_there_is_named_with_those_that_are(tmp_path: Path):
    Workspace(tmp_path).start_run("20260101-000000-000")
    with pytest.raises(WorkspaceError, match=r"there is no run '\.\./x' .*; its runs are: 20260101-000000-000"):
        read_run_record(Workspace(tmp_path), "../x")
