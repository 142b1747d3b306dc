"""The checks of the machine and its packages."""

import os
from pathlib import Path

import pytest

from pipeline.doctor import machine

GPU_LINE = "GPU 0: NVIDIA L4 (UUID: GPU-1)"


def put_on_path(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes an executable of the name the first on PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that lists one GPU."""
    put_on_path(tmp_path / "bin", "nvidia-smi", f'[ "$1" = -L ] && echo "{GPU_LINE}"', monkeypatch)


@pytest.mark.parametrize(("version", "status"), [((3, 10), "fail"), ((3, 11), "ok"), ((3, 12), "warn")])
def test_the_python_of_the_lock_is_asked_for(version: tuple[int, int], status: str):
    check = machine.check_python(version)

    assert check.status == status
    assert f"{version[0]}.{version[1]}" in check.detail


def test_this_platform_is_one_that_the_lock_is_for():
    assert machine.check_platform().status == "ok"


@pytest.mark.parametrize(
    ("libc", "status"), [(("glibc", "2.27"), "fail"), (("glibc", "2.28"), "ok"), (("", ""), "fail")]
)
def test_an_old_or_foreign_c_library_fails(libc: tuple[str, str], status: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("platform.libc_ver", lambda: libc)

    assert machine.check_platform().status == status


def test_installed_versions_equal_the_lock(tmp_path: Path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        f"# by hand\npytest=={pytest.__version__} \\\n    --hash=sha256:00\n    # via\n    #   deeplab-tfx\n"
    )

    assert machine.check_versions(lock) == machine.Finding("Packages", "ok", "all 1 as in requirements.lock")


def test_a_wrong_and_a_missing_package_are_named_with_both_versions(tmp_path: Path):
    lock = tmp_path / "requirements.lock"
    lock.write_text("pytest==1.0 \\\n    --hash=sha256:00\nno_such.package[extra]==2.5 \\\n    --hash=sha256:00\n")

    check = machine.check_versions(lock)

    assert check.status == "fail"
    assert f"pytest {pytest.__version__} (locked: 1.0)" in check.detail
    assert "no-such-package missing (locked: 2.5)" in check.detail
    assert "make setup" in check.remedy


def test_many_wrong_versions_are_counted_not_listed(tmp_path: Path):
    lock = tmp_path / "requirements.lock"
    lock.write_text("".join(f"absent-{number}==1\n" for number in range(8)))

    assert machine.check_versions(lock).detail.endswith("absent-4 missing (locked: 1) and 3 more")


def test_the_projects_own_lock_is_read_whole():
    locked = machine.locked_versions(machine.PROJECT / "requirements.lock")

    assert locked["tfx"] == "1.21.0"
    assert len(locked) > 200


def test_without_a_lock_versions_are_not_judged(tmp_path: Path):
    assert machine.check_versions(tmp_path / "requirements.lock").status == "warn"


def test_a_failing_import_is_reported_in_its_own_words(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "_PROBE", "import json\nimport no_such_library")

    probe = machine.probe_imports()

    assert probe.error == "ModuleNotFoundError: No module named 'no_such_library'"
    check = machine.check_imports(probe)
    assert (check.status, check.detail) == ("fail", probe.error)


def test_a_crash_while_importing_is_a_finding(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "_PROBE", "import os, signal\nos.kill(os.getpid(), signal.SIGILL)")

    check = machine.check_imports(machine.probe_imports())

    assert check.status == "fail"
    assert "signal 4" in check.detail
    assert "AVX" in check.remedy


def test_an_endless_import_is_a_finding(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "_PROBE", "import time\ntime.sleep(60)")
    monkeypatch.setattr(machine, "_PROBE_SECONDS", 1)

    assert machine.probe_imports().error == "not done after 1 seconds"


def test_the_stack_imports_together():
    check = machine.check_imports(machine.probe_imports())

    assert check.status == "ok", check.detail


def test_no_driver_means_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    assert machine.check_gpus(machine.ImportProbe()).status == "ok"


def test_a_driver_that_does_not_answer_means_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put_on_path(tmp_path / "bin", "nvidia-smi", "echo NVIDIA-SMI has failed; exit 9", monkeypatch)

    assert machine.nvidia_gpus() == []


@pytest.mark.usefixtures("one_gpu")
def test_a_gpu_without_the_cuda_libraries_asks_for_the_cuda_build(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "has_cuda_libraries", lambda: False)

    check = machine.check_gpus(None)

    assert check.status == "warn"
    assert "make setup GPU=1" in check.remedy


@pytest.mark.usefixtures("one_gpu")
def test_a_gpu_that_tensorflow_does_not_see_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "has_cuda_libraries", lambda: True)

    assert machine.check_gpus(machine.ImportProbe()).detail == "1 present, TensorFlow sees 0"
    assert (
        machine.check_gpus(machine.ImportProbe(gpus=("/physical_device:GPU:0",))).detail
        == f"TensorFlow sees 1: {GPU_LINE}"
    )


@pytest.mark.parametrize(
    ("flags", "status", "detail"),
    [
        ("fpu sse4_2 avx", "warn", "no AVX2"),
        ("fpu avx avx2", "warn", "no bfloat16"),
        ("fpu avx avx2 avx512f avx512_bf16 amx_bf16", "ok", "avx2, avx512f, avx512_bf16, amx_bf16"),
    ],
)
def test_cpu_features_are_read_and_only_warned_of(tmp_path: Path, flags: str, status: str, detail: str):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: none\n")

    check = machine.check_cpu(cpuinfo)

    assert check.status == status
    assert detail in check.detail


@pytest.mark.parametrize(
    ("limit", "status", "detail"),
    [("max", "ok", "8.0 GiB"), (str(3 * machine.GIB), "warn", "3.0 GiB"), (str(machine.GIB), "fail", "1.0 GiB")],
)
def test_a_containers_memory_limit_counts(tmp_path: Path, limit: str, status: str, detail: str):
    (tmp_path / "meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n")
    (tmp_path / "memory.max").write_text(f"{limit}\n")

    check = machine.check_memory(tmp_path / "meminfo", tmp_path / "memory.max")

    assert check.status == status
    assert check.detail == f"{detail} available"
