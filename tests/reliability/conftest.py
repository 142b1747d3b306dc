"""What the tests of reliability share: a tiny dataset, and disks that can be full."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data.synthetic import write_dataset


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 train, 3 val and 4 test images of the sample dataset."""
    return write_dataset(tmp_path_factory.mktemp("data") / "sample", num_train=8, num_val=3, num_test=4)


def enlarge(folder: Path, size: str) -> None:
    """Gives a disk that `small_disk` made another size."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, str], Path]]:
    """Puts a file system of a given size at a folder, which is made; only root can."""
    mounted: list[Path] = []

    def mount(folder: Path, size: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        result = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
        )
        if result.returncode:
            pytest.skip(f"no file system can be mounted here: {result.stderr.decode().strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        shutil.rmtree(folder, ignore_errors=True)
