"""What a quarantine may hold before it stops a run."""

import json
from pathlib import Path

import pytest

from components.ingest.quarantine import BAD, check_bad, check_splits, counts_json
from data.dataset import DataConfig
from data.errors import DataError


def quarantine_of(folder: Path, splits: dict[str, int], bad: int) -> str:
    """A quarantine as ExampleGen leaves it."""
    counts = [(("split", split), count) for split, count in splits.items()] + [((BAD, "unreadable image"), bad)]
    (folder / "counts.json").write_text(counts_json(counts))
    entries = [{"path": f"{number}.png", "reason": "unreadable image: damaged"} for number in range(bad)]
    (folder / "bad.jsonl-00000-of-00001").write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    return str(folder)


def test_as_many_bad_files_as_are_allowed_stop_nothing(tmp_path: Path):
    quarantine = quarantine_of(tmp_path, {"train": 4, "val": 1, "test": 1}, bad=2)

    check_bad(quarantine, DataConfig(path=str(tmp_path), max_bad_fraction=0.25))
    with pytest.raises(DataError, match="2 of 8 images are bad"):
        check_bad(quarantine, DataConfig(path=str(tmp_path), max_bad_fraction=0.24))


def test_a_long_list_of_bad_files_is_cut(tmp_path: Path):
    with pytest.raises(DataError) as caught:
        check_bad(quarantine_of(tmp_path, {"train": 4, "val": 1, "test": 1}, bad=25), DataConfig(path=str(tmp_path)))

    assert len(str(caught.value).splitlines()) == 1 + 20 + 1
    assert str(caught.value).endswith("... and 5 more")


def test_a_dataset_without_a_valid_pair_is_refused(tmp_path: Path):
    with pytest.raises(
        DataError, match=r"no valid pair of image and mask \(3 bad\)\n  0.png: unreadable image: damaged"
    ):
        check_bad(quarantine_of(tmp_path, {}, bad=3), DataConfig(path=str(tmp_path), max_bad_fraction=1.0))


def test_an_empty_split_is_refused_with_what_to_do(tmp_path: Path):
    with pytest.raises(DataError, match="split val is empty .*'val': 0.*data.val_fraction"):
        check_splits(quarantine_of(tmp_path, {"train": 4, "test": 1}, bad=0), DataConfig(path=str(tmp_path)))
