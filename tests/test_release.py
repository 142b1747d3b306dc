"""scripts/release.sh tags a version that is ready, and refuses one that is not."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "release.sh"
CHANGELOG = """# Changelog

## [Unreleased]

- Not yet.

## [1.2.0] - 2026-02-28

### Added

- `serve` answers.

## [1.1.0] - 2026-01-31

- The first one.
"""


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def commit(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "A change")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository on main that is ready for version 1.2.0; `make check` there notes that it ran."""
    for name, value in {"CONFIG_GLOBAL": "/dev/null", "CONFIG_NOSYSTEM": "1"}.items():
        monkeypatch.setenv(f"GIT_{name}", value)
    for inherited in ("MAKEFLAGS", "MAKELEVEL"):  # `make test` hands them on; the script's make would say where it is
        monkeypatch.delenv(inherited, raising=False)
    for person in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{person}_NAME", "Someone")
        monkeypatch.setenv(f"GIT_{person}_EMAIL", "someone@example.com")
    folder = tmp_path / "project"
    (folder / "scripts").mkdir(parents=True)
    shutil.copy(SCRIPT, folder / "scripts")
    git(folder, "init", "--quiet", "--initial-branch=main")
    (folder / "Makefile").write_text("check:\n\t@touch ../checked\n")
    commit(
        folder, CHANGELOG_md=CHANGELOG, pyproject_toml='[project]\nname = "x"\nversion = "1.1.0"\nx = "version = 1"\n'
    )
    return folder


def release(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the script from another folder, as a person may."""
    return subprocess.run(
        [str(folder / "scripts" / "release.sh"), *arguments],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def state(folder: Path) -> tuple[str, str]:
    """What is committed and tagged, and what differs from it."""
    return git(folder, "for-each-ref"), git(folder, "diff", "HEAD")


def test_a_version_that_is_ready_is_checked_committed_and_tagged(project: Path):
    result = release(project, "1.2.0")

    assert result.returncode == 0, result.stderr
    assert result.stdout == "tagged v1.2.0; to publish it: git push origin main v1.2.0\n"
    assert (project.parent / "checked").exists()
    assert (project / "pyproject.toml").read_text().splitlines()[2:] == ['version = "1.2.0"', 'x = "version = 1"']
    assert git(project, "log", "-1", "--format=%s") == "Version 1.2.0"
    assert git(project, "status", "--porcelain") == ""
    assert git(project, "cat-file", "-t", "v1.2.0") == "tag"
    assert git(project, "rev-parse", "v1.2.0^{commit}") == git(project, "rev-parse", "main")
    message = git(project, "tag", "--list", "--format=%(contents)", "v1.2.0")
    assert message == "Version 1.2.0\n\n### Added\n\n- `serve` answers."


def test_a_version_that_is_set_already_needs_no_commit(project: Path):
    commit(project, pyproject_toml='version = "1.2.0"\n')
    before = git(project, "rev-parse", "main")

    assert release(project, "1.2.0").returncode == 0

    assert git(project, "rev-parse", "v1.2.0^{commit}") == git(project, "rev-parse", "main") == before


def undated(project: Path) -> None:
    commit(project, CHANGELOG_md=CHANGELOG.replace("2026-02-28", "unreleased"))


def impossible_date(project: Path) -> None:
    commit(project, CHANGELOG_md=CHANGELOG.replace("2026-02-28", "2026-02-30"))


def empty(project: Path) -> None:
    commit(project, CHANGELOG_md=CHANGELOG.replace("- `serve` answers.\n", ""))


def other_branch(project: Path) -> None:
    git(project, "switch", "--quiet", "--create", "feature")


def changed_file(project: Path) -> None:
    (project / "Makefile").write_text("check:\n")


def new_file(project: Path) -> None:
    (project / "notes.txt").touch()


def tagged(project: Path) -> None:
    git(project, "tag", "v1.2.0")


def failing_check(project: Path) -> None:
    commit(project, Makefile="check:\n\t@exit 1\n")


def no_version(project: Path) -> None:
    commit(project, pyproject_toml="[project]\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_branch, "this is feature, but versions are tagged on main; git switch main"),
        (changed_file, "the tree is not clean; commit or stash what git status shows"),
        (new_file, "the tree is not clean; commit or stash what git status shows"),
        (tagged, "the tag v1.2.0 is there already; choose the next version"),
        (undated, "CHANGELOG.md: '## [1.2.0] - unreleased' has no date; write: ## [1.2.0] - "),
        (impossible_date, "CHANGELOG.md: '## [1.2.0] - 2026-02-30' has no date; write: ## [1.2.0] - "),
        (empty, "CHANGELOG.md: the section of 1.2.0 lists nothing; say what a user gets"),
        (no_version, "pyproject.toml has no line that begins with 'version = '"),
        (failing_check, "make check fails; nothing was tagged"),
    ],
)
def test_what_is_not_ready_is_refused_and_left_as_it_is(project: Path, change: Callable[[Path], None], message: str):
    change(project)
    before = state(project)

    result = release(project, "1.2.0")

    assert result.returncode == 1
    assert f"release: {message}" in result.stderr
    assert state(project) == before


@pytest.mark.parametrize("arguments", [[], ["1.2"], ["v1.2.0"], ["01.2.0"], ["1.2.0 "], ["1x2x0"]])
def test_what_is_not_a_version_is_refused(project: Path, arguments: list[str]):
    result = release(project, *arguments)

    assert result.returncode == 1
    assert "is not a version; give one such as 1.2.3" in result.stderr


def test_a_version_without_a_section_is_refused(project: Path):
    result = release(project, "1.2.1")

    assert result.returncode == 1
    assert "CHANGELOG.md has no section for 1.2.1; add the line: ## [1.2.1] - " in result.stderr
