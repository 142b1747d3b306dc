"""The Dockerfile: what can be checked without building the image."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.doctor.machine import locked_versions

ROOT = Path(__file__).resolve().parents[1]
LINES = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text()).splitlines()


def arguments(instruction: str) -> list[str]:
    return [line.partition(" ")[2] for line in LINES if line.startswith(f"{instruction} ")]


def copied_from_the_project() -> list[str]:
    return [source for words in arguments("COPY") if not words.startswith("--from=") for source in words.split()[:-1]]


def test_the_linter_finds_nothing():
    linter = Path(sys.executable).with_name("hadolint")
    result = subprocess.run([linter, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_the_last_user_is_a_number_other_than_root():
    """Kubernetes' runAsNonRoot refuses a user that is given by name."""
    user = arguments("USER")[-1].partition(":")[0]
    assert int(user) > 0


def test_beams_boot_program_is_of_the_locked_version():
    version = locked_versions(ROOT / "requirements.lock")["apache-beam"]
    assert f"BEAM_VERSION={version}" in arguments("ARG")
    assert "apache/beam_python3.11_sdk:${BEAM_VERSION} AS beam" in arguments("FROM")


@pytest.mark.parametrize("source", copied_from_the_project())
def test_what_is_copied_exists_and_is_let_through(source: str):
    assert (ROOT / source).exists()
    assert f"!{source}" in (ROOT / ".dockerignore").read_text().splitlines()


def test_every_package_of_the_project_is_copied():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages <= set(copied_from_the_project())


def test_the_gpu_image_gets_the_cuda_libraries_with_their_hashes():
    (program,) = re.findall(r"awk '([^']+)' requirements-gpu\.lock", "\n".join(LINES))
    chosen = subprocess.run(
        ["awk", program, ROOT / "requirements-gpu.lock"], capture_output=True, text=True, check=True
    ).stdout
    names = re.findall(r"^([a-z0-9-]+)==", chosen, re.MULTILINE)
    assert "nvidia-cudnn-cu12" in names
    assert all(name.startswith("nvidia-") for name in names)
    assert chosen.count("--hash=sha256:") >= len(names)


@pytest.mark.parametrize(
    ("given", "started"),
    [
        (("python", "local_runner.py", "--help"), "python local_runner.py --help"),
        (("--id=1-1", "--control_endpoint=x"), "boot --id=1-1 --control_endpoint=x"),
    ],
)
def test_the_image_starts_commands_and_beam_workers(given: tuple[str, ...], started: str, tmp_path: Path):
    """`boot` and `python` are stand-ins that say how they were started."""
    boot, python = tmp_path / "boot", tmp_path / "python"
    for program in (boot, python):
        program.write_text('#!/bin/sh\necho "$(basename "$0") $*"\n')
        program.chmod(0o755)
    script = (ROOT / "deploy/entrypoint.sh").read_text().replace("/opt/apache/beam/boot", str(boot))
    result = subprocess.run(
        ["sh", "-c", script, "sh", *given],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == started


def test_the_replay_copies_from_context_and_stages_as_docker_does(tmp_path: Path):
    replay = runpy.run_path(str(ROOT / "scripts/replay_image.py"))
    for file in ("context/a.txt", "context/code/b.py", "packages/opt/venv/bin/python"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(file)
    carried_out = replay["Replay"](tmp_path, {})
    carried_out.stages["packages"] = replay["Stage"](tmp_path / "packages")
    carried_out.stage = replay["Stage"](tmp_path / "final", workdir="/opt/deeplab")

    for argument in ("--from=packages /opt/venv /opt/venv", "a.txt ./", "code ./code", "a.txt /opt/b.txt"):
        carried_out.carry_out("COPY", argument)

    copied = {str(path.relative_to(tmp_path / "final")) for path in (tmp_path / "final").rglob("*") if path.is_file()}
    assert copied == {"opt/venv/bin/python", "opt/deeplab/a.txt", "opt/deeplab/code/b.py", "opt/b.txt"}
