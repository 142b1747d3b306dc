"""What differs between configurations."""

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.diff import Change, config_diff, since_previous
from pipeline.workspace import CONFIG_FILE

TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda below: st.dictionaries(st.text("ab", min_size=1, max_size=2), below, max_size=3),
)
CONFIGS = st.dictionaries(st.text("ab", min_size=1, max_size=2), TREES, max_size=3)


def test_settings_that_differ_are_named_by_their_path():
    before = {"model": {"width": 0.5, "stem": {"kind": "a"}}, "training": {"steps": 6}, "old": None}
    after = {"model": {"width": 0.75, "stem": {"kind": "a"}}, "training": {"steps": 6, "seed": "é"}}
    assert config_diff(before, after) == [
        Change("model.width", "0.5", "0.75"),
        Change("old", "null", ""),
        Change("training.seed", "", '"é"'),
    ]


@given(CONFIGS)
def test_a_configuration_does_not_differ_from_itself(config: dict[str, Any]):
    assert config_diff(config, json.loads(json.dumps(config))) == []


def test_a_setting_that_was_renamed_since_is_compared_by_its_current_name() -> None:
    before = {"training": {"loss": {"top_k_fraction": 0.5}}, "augment": {"finish": None}}
    after = {"training": {"loss": {"ohem_fraction": 0.25}}, "augment": {"progressive_resizing": None}}
    assert config_diff(before, after) == [Change("training.loss.ohem_fraction", "0.5", "0.25")]


@given(CONFIGS, CONFIGS)
def test_back_is_the_reverse(first: dict[str, Any], second: dict[str, Any]):
    back = [Change(change.key, change.after, change.before) for change in config_diff(second, first)]
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
    assert (found.run_id, found.changes) == ("20260102-000000-000", [Change("steps", "2", "4")])
    assert since_previous(tmp_path / "20260101-000000-000", {"steps": 1}) is None
