"""Going back to an earlier version, and what keeps the later one from coming back by itself."""

from pathlib import Path

import pytest

from components.publishing.directory import prune, publish, published, served
from components.publishing.pins_and_blocklist import blocked, pin, pinned
from data.errors import WorkspaceBusy, WorkspaceError
from pipeline.rollback import (
    choose_serving_dir,
    find_version,
    pin_version,
    restored_version,
    roll_back,
    unblock_version,
    unpin_version,
)
from tests.pipeline.conftest import in_process
from tests.serving_changes import overtaken


def push(serving: Path, content: str, name: str = "tiny") -> None:
    """Publishes a model of one file."""
    folder = serving.parent / "model"
    folder.mkdir(exist_ok=True)
    (folder / "saved_model.pb").write_text(content)
    publish(str(folder), str(serving / name), ["sky"], {"assets.extra/warmup": b"requests"})


def models(serving: Path, name: str = "tiny") -> str:
    """The content of all versions, oldest first."""
    return "".join(Path(version.path, "saved_model.pb").read_text() for version in published(str(serving / name)))


@pytest.fixture
def serving(tmp_path: Path) -> Path:
    """Versions with the models A, B, B."""
    for content in "ABB":
        push(tmp_path / "serving", content)
    return tmp_path / "serving"


def test_the_newest_other_model_comes_back_by_default(serving: Path):
    restored = roll_back(str(serving / "tiny"), None, "blurred")

    assert models(serving) == "ABBA"
    assert served(str(serving / "tiny")) == restored
    assert (restored.version, restored.record.restored_from, restored.record.rollback_of) == (4, 1, 3)
    (entry,) = blocked(str(serving / "tiny")).values()
    assert (entry.version, entry.reason) == (3, "blurred")


def test_a_second_rollback_goes_further_back_and_not_to_what_was_blocked(serving: Path):
    push(serving, "C")

    roll_back(str(serving / "tiny"), None)
    roll_back(str(serving / "tiny"), None)

    assert models(serving) == "ABBCBA"
    assert {entry.version for entry in blocked(str(serving / "tiny")).values()} == {4, 5}
    with pytest.raises(WorkspaceError, match="nothing to go back to: no version before 6 holds another model"):
        roll_back(str(serving / "tiny"), None)
    assert models(serving) == "ABBCBA"


def test_a_blocked_version_that_is_asked_for_comes_back_and_is_blocked_no_more(serving: Path):
    roll_back(str(serving / "tiny"), None)

    roll_back(str(serving / "tiny"), to=2)

    assert models(serving) == "ABBAB"
    (entry,) = blocked(str(serving / "tiny")).values()
    assert entry.version == 4


def test_a_rollback_to_what_is_served_or_is_not_there_changes_nothing(serving: Path):
    with pytest.raises(WorkspaceError, match="version 2 holds the very model that is served as version 3"):
        roll_back(str(serving / "tiny"), to=2)
    with pytest.raises(WorkspaceError, match="there is no version 9; there is: 1, 2, 3"):
        roll_back(str(serving / "tiny"), to=9)

    assert models(serving) == "ABB"
    assert blocked(str(serving / "tiny")) == {}


@pytest.mark.parametrize("to", [None, 1])
def test_a_version_pushed_at_the_last_moment_is_not_rolled_back_unseen(serving: Path, to: int | None):
    with pytest.raises(WorkspaceBusy, match=r"version 4 is served now, but .* when version 3 was; run again"):
        overtaken(lambda: roll_back(str(serving / "tiny"), to), str(serving / "tiny"), lambda: push(serving, "C"))

    assert models(serving) == "ABBC"
    assert blocked(str(serving / "tiny")) == {}


def test_a_version_that_is_removed_at_the_last_moment_is_not_pinned(serving: Path):
    with pytest.raises(WorkspaceError, match="there is no version 2; there is: 3"):
        overtaken(
            lambda: pin_version(str(serving / "tiny"), 2),
            str(serving / "tiny"),
            lambda: prune(str(serving / "tiny"), 1),
        )

    assert pinned(str(serving / "tiny")) == frozenset()


def test_a_damaged_earlier_version_is_not_served(serving: Path):
    (serving / "tiny/1/saved_model.pb").write_text("damage")

    with pytest.raises(WorkspaceError, match="tiny/1: damaged"):
        roll_back(str(serving / "tiny"), None)

    assert served(str(serving / "tiny")).version == 3


def test_an_unblocked_model_may_be_pushed_again(serving: Path):
    roll_back(str(serving / "tiny"), None)

    assert not unblock_version(str(serving / "tiny"), 1)
    assert unblock_version(str(serving / "tiny"), 3)
    assert blocked(str(serving / "tiny")) == {}


def test_a_version_that_a_rollback_published_is_known_with_its_reason(serving: Path):
    restored = roll_back(str(serving / "tiny"), None, "blurred")

    found = [restored_version(serving, None, version) for version in (1, 2, 3, 4, 5)]
    assert found == [None, None, None, restored, None]
    record = restored.record
    assert (record.first_version, record.rollback_of, record.rollback_reason) == (1, 3, "blurred")
    push(serving, "D", name="other")
    assert restored_version(serving, "other", 1) is None
    assert restored_version(serving, "tiny", 4) == restored


def test_what_is_not_pinned_is_not_unpinned(serving: Path):
    pin(str(serving / "tiny"), 2)

    with pytest.raises(WorkspaceError, match="tiny: version 77 is not pinned; pinned versions: 2$"):
        unpin_version(str(serving / "tiny"), 77)
    unpin_version(str(serving / "tiny"), 2)
    with pytest.raises(WorkspaceError, match="tiny: version 2 is not pinned; pinned versions: none$"):
        unpin_version(str(serving / "tiny"), 2)


def test_the_model_is_named_where_there_are_several(serving: Path):
    (serving / "never pushed").mkdir()
    assert choose_serving_dir(str(serving), None) == str(serving / "tiny")
    push(serving, "D", name="other")

    assert choose_serving_dir(str(serving), "other") == str(serving / "other")
    with pytest.raises(WorkspaceError, match="holds several models; choose one with --model: other, tiny"):
        choose_serving_dir(str(serving), None)
    with pytest.raises(WorkspaceError, match="no model 'third' is pushed yet; there is: other, tiny"):
        choose_serving_dir(str(serving), "third")
    with pytest.raises(WorkspaceError, match="absent: no model is pushed yet"):
        choose_serving_dir(str(serving / "absent"), None)
    with pytest.raises(WorkspaceError, match=f"holds the versions of one model; give the folder above it: {serving}$"):
        choose_serving_dir(str(serving / "tiny"), None)


def test_one_version_is_found_by_its_number(serving: Path):
    assert find_version(str(serving / "tiny"), 2).path == str(serving / "tiny/2")


def test_the_commands_say_what_they_did(serving: Path):
    workspace = ("--workspace", str(serving.parent))

    back = in_process("rollback", "--reason", "blurred [edges]", *workspace)
    assert back.returncode == 0, back.stderr
    assert "version 4 is version 1 again" in back.stdout
    assert "version 3 is blocked" in back.stdout
    assert in_process("pin", "2", *workspace).stdout.endswith("pinned versions: 2\n")
    assert pinned(str(serving / "tiny")) == {2}
    assert prune(str(serving / "tiny"), 1) == [1, 3]
    unknown = in_process("pin", "3", "--serving", str(serving))
    assert (unknown.returncode, unknown.stderr) == (
        1,
        f"error: {serving / 'tiny'}: there is no version 3; there is: 2, 4\n",
    )
    assert in_process("unpin", "2", *workspace).stdout.endswith("pinned versions: none\n")
    assert "of version 3 may be pushed again" in in_process("unblock", "3", *workspace).stdout
    again = in_process("readmit", "3", *workspace)  # what the command was called before
    assert (again.returncode, again.stderr) == (1, f"error: {serving / 'tiny'}: version 3 was not rolled back\n")


def test_a_damaged_record_of_another_version_stops_no_rollback(serving: Path):
    record = serving / "tiny/2/PUBLISHED"
    record.write_text("{")

    with pytest.raises(WorkspaceError, match=f"{record}: damaged record"):
        roll_back(choose_serving_dir(str(serving), None), to=2)
    assert roll_back(choose_serving_dir(str(serving), None), None).record.restored_from == 1


def test_what_is_rolled_back_must_be_known(serving: Path):
    record = serving / "tiny/3/PUBLISHED"
    record.write_text("{")

    with pytest.raises(WorkspaceError, match=f"{record}: damaged record"):
        roll_back(choose_serving_dir(str(serving), None), None)
