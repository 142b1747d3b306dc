"""Copies of folders, and the fingerprint of what is in them."""

from pathlib import Path

import pytest

from components.storage import trees
from components.storage.trees import content_fingerprint, copy_tree, file_names, remove_tree


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of three files, one of which is empty."""
    for name, content in {"graph.pb": b"graph", "assets/a.txt": b"a", "extra/b": b""}.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "source"


def contents(root: Path) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in file_names(str(root))}


def test_a_copy_has_every_file_but_those_that_are_excluded(folder: Path, tmp_path: Path):
    copy_tree(str(folder), str(tmp_path / "whole"))
    copy_tree(str(folder), str(tmp_path / "part"), exclude=("extra/", "graph"))

    assert contents(tmp_path / "whole") == contents(folder)
    assert contents(tmp_path / "part") == {"assets/a.txt": b"a"}


def test_the_last_file_is_copied_after_all_others(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made, create = [], trees.create
    monkeypatch.setattr(trees, "create", lambda path: made.append(path) or create(path))

    copy_tree(str(folder), str(tmp_path / "copy"), last="assets/a.txt")

    assert [Path(path).relative_to(tmp_path / "copy").as_posix() for path in made] == [
        "extra/b",
        "graph.pb",
        "assets/a.txt",
    ]


def test_the_fingerprint_changes_with_names_and_contents_of_the_files_that_count(folder: Path):
    seen = {content_fingerprint(str(folder)), content_fingerprint(str(folder), exclude=("extra/",))}
    without = content_fingerprint(str(folder), exclude=("extra/",))
    (folder / "extra/b").write_bytes(b"changed")
    assert content_fingerprint(str(folder), exclude=("extra/",)) == without

    seen.add(content_fingerprint(str(folder)))
    (folder / "graph.pb").rename(folder / "other.pb")
    seen.add(content_fingerprint(str(folder)))

    assert len(seen) == 4


def test_a_folder_or_a_file_is_removed(folder: Path):
    remove_tree(str(folder / "assets"))
    remove_tree(str(folder / "graph.pb"))

    assert contents(folder) == {"extra/b": b""}
