"""Local paths and URIs each get their file system, and local ones do not wait for Beam."""

import subprocess
import sys
from pathlib import Path

import pytest

from components.storage.beam_files import BeamFiles
from components.storage.file_systems import file_system, is_local
from data.files import LocalFiles

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("path", ["/data/set", "data", "./a:b", "", "C:/data"])
def test_a_path_is_local(path: str):
    assert is_local(path)
    assert isinstance(file_system(path), LocalFiles)


@pytest.mark.parametrize("path", ["gs://bucket/set", "s3://bucket", "hdfs://host/set"])
def test_a_uri_is_read_through_beam(path: str):
    assert not is_local(path)
    assert isinstance(file_system(path), BeamFiles)


@pytest.mark.parametrize(("path", "imported"), [("/data", "False"), ("gs://bucket", "True")])
def test_beam_is_imported_for_a_uri_only(path: str, imported: str):
    script = f"import sys; from components.storage.file_systems import file_system; file_system({path!r}); "
    script += "print('apache_beam' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)

    assert result.stdout == f"{imported}\n"


def test_sizes_and_times_of_all_files_below_a_local_folder_are_told(tmp_path: Path):
    (tmp_path / "below/deeper").mkdir(parents=True)
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "below/deeper/b").write_bytes(b"")

    stats = {path: (size, changed) for path, size, changed in file_system(str(tmp_path)).stats(str(tmp_path))}

    assert stats == {
        "a": (3, (tmp_path / "a").stat().st_mtime),
        "below/deeper/b": (0, (tmp_path / "below/deeper/b").stat().st_mtime),
    }
    assert list(file_system("absent").stats(str(tmp_path / "absent"))) == []
