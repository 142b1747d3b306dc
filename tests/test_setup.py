"""What `make setup` says and does, and that the locks agree with each other and with the overrides."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-gpu.lock")

Tools = dict[str, str]


def versions(lock: str) -> dict[str, str]:
    """Version of each package of a lock."""
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[.*?\])?==(\S+) \\$", (ROOT / lock).read_text(), re.MULTILINE))


def requirements(text: str) -> list[Requirement]:
    """The requirements of a file such as overrides.txt, comments left out."""
    return [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what setting up needs, without an environment."""
    for name in ("scripts", "Makefile", *LOCKS):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    return tmp_path


def make_setup(project: Path, tools: Tools, *settings: str) -> subprocess.CompletedProcess[str]:
    """`make setup` with programs of our own before those of the system."""
    bin_folder = project / "bin"
    bin_folder.mkdir(exist_ok=True)
    for name, script in tools.items():
        (bin_folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (bin_folder / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    environment = {name: value for name, value in environment.items() if not name.startswith(("MAKE", "GPU", "PYTHON"))}
    command = ["make", "-C", str(project), "setup", *settings]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


def python_that_says(version: str) -> str:
    return f'case "$2" in *version_info*) echo {version} ;; esac'


@pytest.mark.parametrize(
    ("tools", "settings", "message"),
    [
        ({"uname": '[ "$1" = -s ] && echo Darwin || echo arm64'}, [], "this machine is Darwin arm64"),
        ({"getconf": "echo glibc 2.17"}, [], "has glibc 2.17; the locked packages need glibc 2.28"),
        ({"getconf": "exit 1"}, [], "has no glibc"),
        ({"df": "echo Header; echo /dev/vda 100 1 3145728 1% /"}, [], "3 GB are free on the disk that holds"),
        ({"df": "echo Header; echo /dev/vda 100 1 8388608 1% /"}, ["GPU=1"], "about 10 GB are needed"),
        (
            {name: python_that_says("3.9") for name in ("python3.11", "python3", "python")},
            [],
            "Python 3.11 is needed; found: python3.11 is Python 3.9, python3 is Python 3.9, python is Python 3.9",
        ),
        (dict.fromkeys(("python3.11", "python3", "python"), "exit 127"), [], "found: none that runs"),
        ({"python3.11": 'case "$2" in *version*) echo 3.11 ;; *) exit 1 ;; esac'}, [], "python3.11 has no venv module"),
        ({"old": python_that_says("3.8")}, ["PYTHON=old"], "found: old is Python 3.8"),
        ({}, ["GPU=yes"], "GPU=yes is not understood; allowed are GPU=1"),
    ],
)
def test_what_is_missing_is_said_in_one_line(project: Path, tools: Tools, settings: list[str], message: str):
    result = make_setup(project, tools, *settings)

    assert result.returncode != 0
    said = [line for line in result.stderr.splitlines() if not line.startswith("make: ***")]
    assert len(said) == 1, result.stderr
    assert said[0].startswith("make setup: ")
    assert message in said[0]
    assert not (project / ".venv").exists()


@pytest.fixture
def installed(project: Path) -> Path:
    """A project whose environment holds the CPU build, as far as the stamp says."""
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "python $*" >>calls\n')
    python.chmod(0o755)
    stamp = subprocess.run(["sha256sum", LOCKS[1]], capture_output=True, text=True, cwd=project, check=True).stdout
    (project / ".venv" / "installed.sha256").write_text(stamp)
    return project


def test_an_environment_that_holds_the_lock_is_left_alone(installed: Path):
    result = make_setup(installed, {})

    assert result.returncode == 0
    assert not (installed / "calls").exists()


def test_a_changed_lock_is_installed_once(installed: Path):
    with (installed / LOCKS[1]).open("a") as lock:
        lock.write("# changed\n")

    assert make_setup(installed, {}).returncode == 0
    assert make_setup(installed, {}).returncode == 0

    syncs = [line for line in (installed / "calls").read_text().splitlines() if "uv pip sync" in line]
    assert syncs == ["python -m uv pip sync --python .venv/bin/python --require-hashes requirements-dev.lock"]


def test_the_cuda_build_stays_until_the_cpu_build_is_asked_for(installed: Path):
    for settings in (["GPU=1"], [], ["GPU=0"], []):
        assert make_setup(installed, {"df": "echo; echo x 1 1 99999999 1% /"}, *settings).returncode == 0

    syncs = [line for line in (installed / "calls").read_text().splitlines() if "uv pip sync" in line]
    assert [line.split()[-1] for line in syncs] == ["requirements-gpu.lock", "requirements-dev.lock"]


def test_a_failed_installation_is_not_taken_for_done(installed: Path):
    python = installed / ".venv" / "bin" / "python"
    python.write_text("#!/bin/sh\n[ \"$2\" != uv ] || { echo 'no route to the index' >&2; exit 2; }\n")
    (installed / LOCKS[1]).write_text("uv==1 \\\n    --hash=sha256:00\n")

    for _ in range(2):
        result = make_setup(installed, {})
        assert result.returncode != 0
        assert "no route to the index\nmake setup: the packages of requirements-dev.lock could not be" in result.stderr


def test_uv_is_bootstrapped_from_the_lock_with_its_hashes(installed: Path):
    (installed / LOCKS[1]).write_text(
        "urllib3==2 \\\n    --hash=sha256:11\nuv==0.13.8 \\\n    --hash=sha256:22 \\\n    --hash=sha256:33\n"
        "    # via deeplab-tfx\nuvicorn==1 \\\n    --hash=sha256:44\n"
    )

    assert make_setup(installed, {}).returncode == 0

    bootstrap = (installed / ".venv" / "uv.txt").read_text()
    assert bootstrap == "uv==0.13.8 \\\n    --hash=sha256:22 \\\n    --hash=sha256:33\n    # via deeplab-tfx\n"


def test_the_locks_agree():
    runtime, dev, gpu = (versions(lock) for lock in LOCKS)

    assert runtime.items() <= dev.items() <= gpu.items()
    assert {name.split("-")[0] for name in gpu.keys() - dev.keys()} == {"nvidia"}
    assert {"uv", "pip"} <= dev.keys()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_hashes_and_no_address(lock: str):
    text = (ROOT / lock).read_text()

    assert "://" not in text
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_lock_meets_every_override():
    locked = versions("requirements.lock")

    for override in requirements((ROOT / "overrides.txt").read_text()):
        assert locked[override.name] in override.specifier


def test_every_override_states_its_reason():
    lines = (ROOT / "overrides.txt").read_text().splitlines()
    overrides = [number for number, line in enumerate(lines) if line and not line.startswith("#")]

    assert overrides
    assert all(lines[number - 1].startswith("#") for number in overrides)
