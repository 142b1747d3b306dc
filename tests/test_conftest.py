"""DEEPLAB_NO_SKIPS turns skips into failures, but for those that a platform marker excuses."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")

SKIPPING = """
import pytest

def test_data_is_missing(test_data): ...

@pytest.mark.platform("needs a GPU")
def test_excused():
    pytest.skip("no GPU")

@pytest.mark.platform()
def test_excuse_without_a_reason():
    pytest.skip("no GPU")

@pytest.mark.xfail
def test_expected_to_fail():
    assert False

def test_runs(): ...
"""


def run_pytest(folder: Path, source: str, **settings: str) -> str:
    """Output of pytest on one file below this project's conftest.py."""
    shutil.copy(CONFTEST, folder)
    (folder / "test_it.py").write_text(source)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    platform(reason): excused\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DEEPLAB", "PYTEST"))}
    environment["PYTHONPATH"] = str(CONFTEST.parents[1])
    command = [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", "test_it.py"]
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environment | settings, check=False
    )
    return result.stdout


def test_skips_are_skips_for_a_person(tmp_path: Path):
    output = run_pytest(tmp_path, SKIPPING)

    assert "1 passed, 3 skipped, 1 xfailed" in output


def test_skips_are_failures_where_nothing_may_be_absent(tmp_path: Path):
    output = run_pytest(tmp_path, SKIPPING, DEEPLAB_NO_SKIPS="1")

    assert "does not run here: Skipped: DEEPLAB_TEST_DATA does not name a folder of real datasets" in output
    assert "FAILED test_it.py::test_excuse_without_a_reason" in output
    assert "1 failed, 1 passed, 1 skipped, 1 xfailed, 1 error" in output


@pytest.mark.parametrize(
    "source", ["pytest.importorskip('no_such_library')", "pytest.skip('all', allow_module_level=True)"]
)
def test_a_module_that_skips_itself_fails_too(tmp_path: Path, source: str):
    output = run_pytest(tmp_path, f"import pytest\n{source}\ndef test_runs(): ...\n", DEEPLAB_NO_SKIPS="1")

    assert "1 error" in output
    assert "does not run here" in output
