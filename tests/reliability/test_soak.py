"""The soak test's short form: ten scheduled runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.conftest import ROOT


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_ten_scheduled_runs_in_two_parts_take_no_more_and_more_disk_or_memory(tmp_path: Path):
    for runs in (6, 10):
        command = [sys.executable, "benchmarks/soak.py", "--runs", str(runs), "--folder", str(tmp_path)]
        result = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
        )

        assert result.returncode == 0, result.stdout + result.stderr
        lines = (tmp_path / "usage.jsonl").read_text().splitlines()
        assert [json.loads(line)["run"] for line in lines] == list(range(1, runs + 1))
