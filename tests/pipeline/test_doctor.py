import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline import doctor
from pipeline.backup import back_up
from pipeline.config import MetadataConfig
from pipeline.schedule.scheduler import schedule_lock, schedule_state
from pipeline.schedule.state import Plan
from pipeline.workspace import Workspace

GPU_LINE = "GPU 0: NVIDIA L4 (UUID: GPU-1)"


#: Is killed in the middle of a transaction that it has begun to write to disk.
KILLED_WRITER = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN")
connection.executemany("INSERT INTO Execution (name) VALUES (?)", [("x" * 5000,)] * 500)
os.kill(os.getpid(), signal.SIGKILL)
"""


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


def test_the_quick_doctor_looks_at_everything_but_the_imports(tmp_path: Path):
    checks = doctor.run_checks(tmp_path / "workspace", quick=True)

    names = [check.name for check in checks]
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

    checks = doctor.run_checks(file / "workspace", quick=True)

    assert doctor.has_failures(checks)
    assert all(check.remedy for check in checks if check.status != "ok")
    assert not any(check.remedy for check in checks if check.status == "ok")


@pytest.mark.parametrize(("version", "status"), [((3, 10), "fail"), ((3, 11), "ok"), ((3, 12), "warn")])
def test_the_python_of_the_lock_is_asked_for(version: tuple[int, int], status: str):
    check = doctor.check_python(version)

    assert check.status == status
    assert f"{version[0]}.{version[1]}" in check.detail


def test_this_platform_is_one_that_the_lock_is_for():
    assert doctor.check_platform().status == "ok"


@pytest.mark.parametrize(
    ("libc", "status"), [(("glibc", "2.27"), "fail"), (("glibc", "2.28"), "ok"), (("", ""), "fail")]
)
def test_an_old_or_foreign_c_library_fails(libc: tuple[str, str], status: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("platform.libc_ver", lambda: libc)

    assert doctor.check_platform().status == status


def test_installed_versions_equal_the_lock(tmp_path: Path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        f"# by hand\npytest=={pytest.__version__} \\\n    --hash=sha256:00\n    # via\n    #   deeplab-tfx\n"
    )

    assert doctor.check_versions(lock) == doctor.Check("Packages", "ok", "all 1 as in requirements.lock")


def test_a_wrong_and_a_missing_package_are_named_with_both_versions(tmp_path: Path):
    lock = tmp_path / "requirements.lock"
    lock.write_text("pytest==1.0 \\\n    --hash=sha256:00\nno_such.package[extra]==2.5 \\\n    --hash=sha256:00\n")

    check = doctor.check_versions(lock)

    assert check.status == "fail"
    assert f"pytest {pytest.__version__} (locked: 1.0)" in check.detail
    assert "no-such-package missing (locked: 2.5)" in check.detail
    assert "make setup" in check.remedy


def test_many_wrong_versions_are_counted_not_listed(tmp_path: Path):
    lock = tmp_path / "requirements.lock"
    lock.write_text("".join(f"absent-{number}==1\n" for number in range(8)))

    assert doctor.check_versions(lock).detail.endswith("absent-4 missing (locked: 1) and 3 more")


def test_the_projects_own_lock_is_read_whole():
    locked = doctor.locked_versions(doctor.PROJECT / "requirements.lock")

    assert locked["tfx"] == "1.21.0"
    assert len(locked) > 200


def test_without_a_lock_versions_are_not_judged(tmp_path: Path):
    assert doctor.check_versions(tmp_path / "requirements.lock").status == "warn"


def test_a_failing_import_is_reported_in_its_own_words(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "_PROBE", "import json\nimport no_such_library")

    probe = doctor.probe_imports()

    assert probe.error == "ModuleNotFoundError: No module named 'no_such_library'"
    check = doctor.check_imports(probe)
    assert (check.status, check.detail) == ("fail", probe.error)


def test_a_crash_while_importing_is_a_finding(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "_PROBE", "import os, signal\nos.kill(os.getpid(), signal.SIGILL)")

    check = doctor.check_imports(doctor.probe_imports())

    assert check.status == "fail"
    assert "signal 4" in check.detail
    assert "AVX" in check.remedy


def test_an_endless_import_is_a_finding(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "_PROBE", "import time\ntime.sleep(60)")
    monkeypatch.setattr(doctor, "_PROBE_SECONDS", 1)

    assert doctor.probe_imports().error == "not done after 1 seconds"


def test_the_stack_imports_together():
    check = doctor.check_imports(doctor.probe_imports())

    assert check.status == "ok", check.detail


def test_no_driver_means_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    assert doctor.check_gpus(doctor.Probe()).status == "ok"


def test_a_driver_that_does_not_answer_means_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put_on_path(tmp_path / "bin", "nvidia-smi", "echo NVIDIA-SMI has failed; exit 9", monkeypatch)

    assert doctor.nvidia_gpus() == []


@pytest.mark.usefixtures("one_gpu")
def test_a_gpu_without_the_cuda_libraries_asks_for_the_cuda_build(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "has_cuda_libraries", lambda: False)

    check = doctor.check_gpus(None)

    assert check.status == "warn"
    assert "make setup GPU=1" in check.remedy


@pytest.mark.usefixtures("one_gpu")
def test_a_gpu_that_tensorflow_does_not_see_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "has_cuda_libraries", lambda: True)

    assert doctor.check_gpus(doctor.Probe()).detail == "1 present, TensorFlow sees 0"
    assert doctor.check_gpus(doctor.Probe(gpus=("/physical_device:GPU:0",))).detail == f"TensorFlow sees 1: {GPU_LINE}"


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

    check = doctor.check_cpu(cpuinfo)

    assert check.status == status
    assert detail in check.detail


@pytest.mark.parametrize(
    ("limit", "status", "detail"),
    [("max", "ok", "8.0 GiB"), (str(3 * doctor.GIB), "warn", "3.0 GiB"), (str(doctor.GIB), "fail", "1.0 GiB")],
)
def test_a_containers_memory_limit_counts(tmp_path: Path, limit: str, status: str, detail: str):
    (tmp_path / "meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n")
    (tmp_path / "memory.max").write_text(f"{limit}\n")

    check = doctor.check_memory(tmp_path / "meminfo", tmp_path / "memory.max")

    assert check.status == status
    assert check.detail == f"{detail} available"


@pytest.mark.parametrize(("free_gib", "status"), [(0.5, "fail"), (3, "warn"), (50, "ok")])
def test_little_disk_is_told_before_it_runs_out(
    tmp_path: Path, free_gib: float, status: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=free_gib * doctor.GIB))

    check = doctor.check_disk(tmp_path / "not" / "there")

    assert check.status == status
    assert str(tmp_path) in check.detail


def test_a_workspace_below_a_file_is_not_writable(tmp_path: Path):
    file = tmp_path / "file"
    file.touch()

    check = doctor.check_writable(file / "workspace")

    assert check.status == "fail"
    assert check.detail == f"{file} cannot be written to: Not a directory"


def test_a_workspace_that_is_not_there_yet_is_judged_by_its_parent(tmp_path: Path):
    assert doctor.check_writable(tmp_path / "a" / "b").detail == f"{tmp_path} is writable"


def test_a_network_file_system_fails_by_the_longest_mount_point(tmp_path: Path):
    share = tmp_path / "my share"
    (share / "runs").mkdir(parents=True)
    table = tmp_path / "mounts"
    escaped = str(share).replace(" ", "\\040")
    table.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/export {escaped} nfs4 rw 0 0\n")

    assert doctor.check_filesystem(tmp_path, table).status == "ok"
    check = doctor.check_filesystem(share / "runs" / "workspace", table)
    assert check.status == "fail"
    assert "nfs4" in check.detail


def test_the_last_of_two_mounts_on_one_point_counts(tmp_path: Path):
    table = tmp_path / "mounts"
    table.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/x {tmp_path} nfs rw 0 0\ntmpfs {tmp_path} tmpfs rw 0 0\n")

    assert doctor.check_filesystem(tmp_path, table) == doctor.Check("File system", "ok", f"tmpfs ({tmp_path})")


def write_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE Execution (id INTEGER PRIMARY KEY, name TEXT)")
        connection.executemany("INSERT INTO Execution (name) VALUES (?)", [(f"run {n} " * 100,) for n in range(200)])


def test_a_whole_database_is_counted(tmp_path: Path):
    write_database(tmp_path / "metadata.sqlite")

    check = doctor.check_metadata(tmp_path / "metadata.sqlite")

    assert check == doctor.Check("ML Metadata", "ok", "200 executions recorded")


def test_no_database_yet_is_well(tmp_path: Path):
    assert doctor.check_metadata(tmp_path / "metadata.sqlite").status == "ok"


@pytest.mark.parametrize("content", [b"this is not a database, but it is long enough " * 50, b""])
def test_something_else_in_the_databases_place_fails(tmp_path: Path, content: bytes):
    database = tmp_path / "metadata.sqlite"
    database.write_bytes(content)

    check = doctor.check_metadata(database)

    assert check.status == "fail"
    assert str(database) in check.remedy


def test_an_overwritten_page_fails(tmp_path: Path):
    database = tmp_path / "metadata.sqlite"
    write_database(database)
    with database.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 4096)

    check = doctor.check_metadata(database)

    assert check.status == "fail"
    assert str(database) in check.detail


def test_a_database_in_use_is_not_called_damaged(tmp_path: Path):
    database = tmp_path / "metadata.sqlite"
    write_database(database)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("BEGIN EXCLUSIVE")

        check = doctor.check_metadata(database)

    assert check.status == "warn"
    assert "in use" in check.detail


def test_backups_are_counted_and_offered_where_the_database_is_damaged(tmp_path: Path):
    database = tmp_path / "metadata.sqlite"
    write_database(database)
    back_up(Workspace(tmp_path), keep=3)
    assert (
        doctor.check_metadata(database).detail
        == "200 executions recorded; 1 backups, the newest metadata-000001.sqlite"
    )
    database.write_bytes(b"damage" * 1000)

    check = doctor.check_metadata(database)

    assert (check.status, check.remedy) == (
        "fail",
        "`python local_runner.py doctor --restore` puts the newest good backup back",
    )


def test_what_a_killed_run_had_begun_to_write_is_not_called_damage(tmp_path: Path):
    database = tmp_path / "metadata.sqlite"
    write_database(database)
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run([sys.executable, "-c", KILLED_WRITER, str(database)], check=True)
    assert Path(f"{database}-journal").stat().st_size > 0

    assert doctor.check_metadata(database) == doctor.Check("ML Metadata", "ok", "200 executions recorded")


def schedule(workspace: Path, next_run: datetime, *results: str) -> None:
    state = schedule_state(Workspace(workspace))
    state.plan = Plan(cron="0 3 * * *", timezone="UTC", watch=False, next_run=next_run)
    for result in results:
        state.end(state.begin("cron", next_run).model_copy(update={"result": result}))


def test_a_schedule_that_does_not_run_is_told_once_a_run_was_due(tmp_path: Path):
    due = datetime(2026, 3, 1, 3, tzinfo=UTC)
    schedule(tmp_path, due, "pushed")

    before = doctor.check_schedule(tmp_path, now=due - timedelta(minutes=1))
    after = doctor.check_schedule(tmp_path, now=due + timedelta(minutes=1))

    assert before == doctor.Check("Schedule", "ok", "no schedule runs; the last run ended as pushed")
    assert (after.status, after.detail) == (
        "warn",
        "no schedule runs, and the run of 2026-03-01 03:00 UTC was due; the last run ended as pushed",
    )
    with schedule_lock(Workspace(tmp_path)).held():
        alive = doctor.check_schedule(tmp_path, now=due + timedelta(minutes=1))
    assert (alive.status, alive.detail) == ("ok", f"process {os.getpid()}; the last run ended as pushed")


def test_a_schedule_whose_last_run_failed_or_whose_state_is_damaged_is_told(tmp_path: Path):
    now = datetime.now(UTC)
    schedule(tmp_path, now + timedelta(days=1), "pushed", "failed")
    assert doctor.check_schedule(tmp_path).status == "warn"
    assert "the last run ended as failed" in doctor.check_schedule(tmp_path).detail
    (tmp_path / "schedule/state.sqlite").write_bytes(b"damage" * 1000)

    check = doctor.check_schedule(tmp_path)

    assert check.status == "fail"
    assert "state.sqlite" in check.detail and "move" in check.remedy


def test_only_sqlite_metadata_need_a_local_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checked: list[str] = []
    monkeypatch.setattr(doctor, "check_filesystem", lambda _: checked.append("file system"))
    monkeypatch.setattr(doctor, "check_metadata_server", lambda *_: checked.append("server"))

    doctor.run_checks(tmp_path, quick=True, metadata=MetadataConfig(backend="mysql"))
    assert checked == ["server"]
    doctor.run_checks(tmp_path, quick=True, metadata=MetadataConfig())
    assert checked == ["server", "file system"]
