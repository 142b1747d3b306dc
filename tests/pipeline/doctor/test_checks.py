"""All checks together."""

from pathlib import Path

import pytest

from pipeline.doctor import checks
from pipeline.sections.workspace import MetadataConfig


def test_the_quick_doctor_looks_at_everything_but_the_imports(tmp_path: Path):
    findings = checks.run_checks(tmp_path / "workspace", quick=True)

    names = [finding.name for finding in findings]
    assert names == [
        "Python",
        "Platform",
        "Packages",
        "GPUs",
        "CPU",
        "Memory",
        "Disk",
        "Workspace",
        "File system",
        "ML Metadata",
    ]
    assert not (tmp_path / "workspace").exists()


def test_whatever_is_not_ok_says_what_to_do(tmp_path: Path):
    file = tmp_path / "file"
    file.touch()

    findings = checks.run_checks(file / "workspace", quick=True)

    assert "fail" in [finding.status for finding in findings]
    assert all(finding.remedy for finding in findings if finding.status != "ok")
    assert not any(finding.remedy for finding in findings if finding.status == "ok")


def test_only_sqlite_metadata_need_a_local_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checked: list[str] = []
    monkeypatch.setattr(checks, "check_filesystem", lambda _: checked.append("file system"))
    monkeypatch.setattr(checks, "check_metadata_server", lambda *_: checked.append("server"))

    checks.run_checks(tmp_path, quick=True, metadata=MetadataConfig(backend="mysql"))
    assert checked == ["server"]
    checks.run_checks(tmp_path, quick=True, metadata=MetadataConfig())
    assert checked == ["server", "file system"]
