"""A minute of load while versions come and go."""

import os
import subprocess
import sys

import pytest

from tests.pipeline.conftest import ROOT


@pytest.mark.long
def test_no_request_fails_in_a_minute_of_load_with_a_new_version_every_ten_seconds():
    command = [sys.executable, "benchmarks/serving.py", "--seconds", "60", "--swap-every", "10"]
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "the same, versions swapped" in ended.stdout
