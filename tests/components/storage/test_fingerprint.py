"""The fingerprint of a data folder changes with the data, and with nothing else."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from components.ingest.example_gen import Driver
from components.storage.fingerprint import fingerprint
from data.dataset import DataConfig
from data.files import LocalFiles


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Some files in a folder and in one below it."""
    root = tmp_path / "data"
    for name in ("a.png", "b.png", "below/c.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
        os.utime(root / name, (1_000_000_000, 1_000_000_000))
    return root


def rewrite(root: Path) -> None:
    (root / "a.png").write_bytes(b"A.png")


CHANGES: dict[str, Callable[[Path], object]] = {
    "added": lambda root: (root / "d.png").write_bytes(b""),
    "added below": lambda root: (root / "below/d.png").write_bytes(b""),
    "removed": lambda root: (root / "below/c.png").unlink(),
    "renamed": lambda root: (root / "a.png").rename(root / "z.png"),
    "moved": lambda root: (root / "a.png").rename(root / "below/a.png"),
    "rewritten at the same size": rewrite,
    "names exchanged": lambda root: [
        (root / old).rename(root / new) for old, new in (("a.png", "x"), ("below/c.png", "a.png"), ("x", "below/c.png"))
    ],
    "dangling link": lambda root: (root / "link.png").symlink_to(root / "nowhere"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_it_changes_with_the_files(folder: Path, change: Callable[[Path], object]):
    before = fingerprint(str(folder), LocalFiles())

    change(folder)

    assert fingerprint(str(folder), LocalFiles()) != before


def test_it_stays_when_files_are_read_or_the_folder_is_copied_with_its_times(folder: Path, tmp_path: Path):
    before = fingerprint(str(folder), LocalFiles())

    assert [path.read_bytes() for path in folder.rglob("*.png")]
    copy = shutil.copytree(folder, tmp_path / "elsewhere")

    assert fingerprint(str(folder), LocalFiles()) == before
    assert fingerprint(str(copy), LocalFiles()) == before


class Reversed(LocalFiles):
    """Lists in another order, as another machine may."""

    def stats(self, folder):
        return reversed(list(super().stats(folder)))


def test_it_depends_on_no_order(folder: Path):
    assert fingerprint(str(folder), Reversed()) == fingerprint(str(folder), LocalFiles())


def test_the_driver_puts_it_into_the_cache_key(folder: Path):
    state = Driver(None).state({"config": DataConfig(path=str(folder)).model_dump_json()})

    assert state == {"input_fingerprint": fingerprint(str(folder), LocalFiles())}
