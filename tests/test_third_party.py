"""THIRD_PARTY.md states the licence of every package that the lock installs, at its version."""

import re
from pathlib import Path

from packaging.utils import canonicalize_name

from pipeline.doctor.machine import locked_versions

ROOT = Path(__file__).resolve().parents[1]


def test_every_locked_package_is_listed_at_its_version():
    rows = re.findall(r"^\| (\S+) +\| (\S+) +\| (\S.*?) *\|$", (ROOT / "THIRD_PARTY.md").read_text(), re.MULTILINE)
    listed = {canonicalize_name(name): version for name, version, _ in rows if name != "Name"}

    assert listed == locked_versions(ROOT / "requirements.lock"), "run scripts/third_party.sh after `make setup`"
