"""The soak test's short form: ten scheduled runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.conftest import ROOT


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_ten_scheduled_runs_take_no_more_and_more_disk_or_memory(tmp_path: Path):
    command = [sys.executable, "benchmarks/soak.py", "--runs", "10", "--folder", str(tmp_path)]
    result = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stdout + result.stderr
    assert len((tmp_path / "usage.jsonl").read_text().splitlines()) == 10
