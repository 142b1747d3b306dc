"""The machine doctor: whether this machine can run the pipeline, and what to do where it cannot.

Each check is a small function that returns one `Check`. Only the import check is slow (about 20 s, in a process of its
own, so that a crash of a compiled library is a finding and not the end of the doctor); `quick` leaves it out.
"""

import importlib.metadata
import json
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from packaging.utils import NormalizedName, canonicalize_name

from pipeline.backup import backups, count_executions, is_busy, remedy
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.config import MetadataConfig

Status = Literal["ok", "warn", "fail"]

GIB = 1024**3
PROJECT = Path(__file__).resolve().parents[1]

#: Oldest glibc that the locked wheels load with (manylinux_2_28).
MIN_GLIBC = (2, 28)
#: Artifacts hold a copy of the pictures as read and one as transformed, beside models and checkpoints.
DISK_FAIL, DISK_WARN = 1 * GIB, 5 * GIB
#: Importing the stack alone takes 1.1 GiB (resident, measured); batches and Beam's shuffle come on top.
MEMORY_FAIL, MEMORY_WARN = 2 * GIB, 4 * GIB

#: SQLite's locks, which ML Metadata relies on, are not dependable on these (sqlite.org/faq.html, question 5).
NETWORK_FILESYSTEMS = {
    *(
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
    ),
    *("smb3", "smbfs"),
}
NETWORK_FUSE = {
    f"fuse.{name}" for name in ("ceph", "ceph-fuse", "gcsfuse", "glusterfs", "juicefs", "rclone", "s3fs", "sshfs")
}

# tfx comes first: it completes tfx_bsl for tensorflow_data_validation, and tensorflow_model_analysis needs it too.
_PROBE = """
import json, sys
import tfx.v1
import apache_beam, keras, ml_metadata, pycocotools.mask
import tensorflow_data_validation, tensorflow_model_analysis, tensorflow_transform
import tensorflow as tf
gpus = [device.name for device in tf.config.list_physical_devices("GPU")]
print(json.dumps({"tensorflow": tf.__version__, "gpus": gpus}))
"""
_PROBE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Check:
    """One finding of the doctor."""

    name: str
    status: Status
    detail: str
    """What was found, with the value."""
    remedy: str = ""
    """What to do about it; empty where all is well."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What importing the stack in a fresh process showed."""

    gpus: tuple[str, ...] = ()
    """Names of the GPUs that TensorFlow sees."""
    tensorflow: str = ""
    """Version, empty after an error."""
    error: str = ""
    """Last lines of the traceback, or how the process ended."""


def run_checks(workspace: Path, quick: bool = False, metadata: "MetadataConfig | None" = None) -> list[Check]:
    """Examines the machine, the packages and the workspace; changes nothing.

    Args:
        workspace: the workspace folder, which need not exist.
        quick: leave out the import of the stack, and judge GPUs by what is installed.
        metadata: where ML Metadata is kept; None: in the workspace.
    """
    probe = None if quick else probe_imports()
    return [
        check_python(),
        check_platform(),
        check_versions(),
        *([] if probe is None else [check_imports(probe)]),
        check_gpus(probe),
        check_cpu(),
        check_memory(),
        check_disk(workspace),
        check_writable(workspace),
        *(
            [check_filesystem(workspace), check_metadata(workspace / "metadata.sqlite")]
            if metadata is None or metadata.backend == "sqlite"
            else [check_metadata_server(workspace, metadata)]
        ),
        *([check_schedule(workspace)] if (workspace / "schedule").is_dir() else []),
    ]


def has_failures(checks: list[Check]) -> bool:
    """Whether the command line should end with a non-zero status."""
    return any(check.status == "fail" for check in checks)


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> Check:
    """The locks are made for Python 3.11; later ones need the packages of a newer system."""
    found = f"Python {version[0]}.{version[1]}"
    if version == (3, 11):
        return Check("Python", "ok", found)
    remedy = "install Python 3.11 and run `make setup` (the lock is made for it; see docs/dependencies.md)"
    return Check("Python", "warn" if version > (3, 11) else "fail", f"{found}; the tested version is 3.11", remedy)


def check_platform() -> Check:
    """The wheels are for Linux on x86_64 with a glibc that is not too old."""
    libc, version = platform.libc_ver()
    found = f"{platform.system()} {platform.machine()}, {libc or 'no glibc'} {version}".strip()
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return Check("Platform", "fail", found, "use Linux on x86_64: the locked packages are made for it")
    if libc != "glibc" or tuple(map(int, version.split(".")[:2])) < MIN_GLIBC:
        oldest = ".".join(map(str, MIN_GLIBC))
        return Check("Platform", "fail", found, f"use a system with glibc {oldest} or later (Debian 10, Ubuntu 20.04)")
    return Check("Platform", "ok", found)


def locked_versions(lock: Path) -> dict[NormalizedName, str]:
    """Versions by canonical package name, from the `name==version` lines of a lock."""
    lines = re.finditer(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", lock.read_text(), re.MULTILINE)
    return {canonicalize_name(line[1]): line[2] for line in lines}


def check_versions(lock: Path = PROJECT / "requirements.lock") -> Check:
    """The installed packages are those of the lock, the one set that is tested."""
    if not lock.exists():
        return Check("Packages", "warn", f"{lock} is not there, so versions were not compared", "run from a checkout")
    installed = {canonicalize_name(found.name): found.version for found in importlib.metadata.distributions()}
    locked = locked_versions(lock)
    wrong = [
        f"{name} {installed.get(name, 'missing')} (locked: {version})"
        for name, version in locked.items()
        if installed.get(name) != version
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        return Check("Packages", "fail", ", ".join(wrong[:5]) + more, "run `make setup` and use .venv/bin/python")
    return Check("Packages", "ok", f"all {len(locked)} as in {lock.name}")


def probe_imports() -> Probe:
    """Imports the stack in a fresh process."""
    command = [sys.executable, "-c", _PROBE]
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS, env=quiet, check=False)
    except subprocess.TimeoutExpired:
        return Probe(error=f"not done after {_PROBE_SECONDS} seconds")
    if result.returncode < 0:
        return Probe(error=f"the process was ended by signal {-result.returncode}")
    if result.returncode:
        return Probe(error=" ".join(result.stderr.strip().splitlines()[-1:]) or f"exit status {result.returncode}")
    found = json.loads(result.stdout.splitlines()[-1])
    return Probe(gpus=tuple(found["gpus"]), tensorflow=found["tensorflow"])


def check_imports(probe: Probe) -> Check:
    """TFX and its family can be imported together."""
    if not probe.error:
        return Check("Imports", "ok", f"tfx first, then its family and TensorFlow {probe.tensorflow}")
    if "signal 4" in probe.error:
        remedy = "this CPU lacks instructions (AVX) that TensorFlow's wheels use: take another machine"
    else:
        remedy = "run `make setup`; if it goes on, `make clean setup` builds the environment anew"
    return Check("Imports", "fail", probe.error, remedy)


def nvidia_gpus() -> list[str]:
    """GPUs that the NVIDIA driver lists, one line each; empty where there is no driver or no GPU."""
    if not (tool := shutil.which("nvidia-smi")):
        return []
    try:
        result = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in result.stdout.splitlines() if line.startswith("GPU ")]


def has_cuda_libraries() -> bool:
    """Whether the CUDA build is installed: TensorFlow's wheel is the same, the libraries come beside it."""
    return any(canonicalize_name(found.name).startswith("nvidia-cudnn") for found in importlib.metadata.distributions())


def check_gpus(probe: Probe | None) -> Check:
    """TensorFlow sees the GPUs that the driver lists; without a probe, the CUDA libraries are there for them."""
    present = nvidia_gpus()
    if not present:
        return Check("GPUs", "ok", "the NVIDIA driver is absent or lists none: training runs on the CPU")
    if not has_cuda_libraries():
        detail = f"{len(present)} present, but the CUDA libraries are not installed"
        return Check("GPUs", "warn", detail, "run `make setup GPU=1` for the CUDA build of TensorFlow")
    if probe is None:
        return Check("GPUs", "ok", f"{len(present)} present, CUDA libraries installed")
    if len(probe.gpus) < len(present):
        detail = f"{len(present)} present, TensorFlow sees {len(probe.gpus)}"
        return Check(
            "GPUs", "warn", detail, "look at CUDA_VISIBLE_DEVICES; update the NVIDIA driver (CUDA 12.5 or later)"
        )
    return Check("GPUs", "ok", f"TensorFlow sees {len(probe.gpus)}: {', '.join(present)}")


def check_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> Check:
    """Which vector instructions the CPU has; they decide the speed of training on it."""
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    found = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    detail = f"{os.cpu_count()} cores, {', '.join(known) or 'no AVX2'}"
    if "avx2" not in flags:
        return Check("CPU", "warn", detail, "training will be slow: take a machine with AVX2 (2013 and later)")
    if not flags & {"avx512_bf16", "amx_bf16"}:
        remedy = "mixed_bfloat16 gains nothing here, since bfloat16 is emulated: train in float32 on this CPU"
        return Check("CPU", "warn", f"{detail}, no bfloat16 instructions", remedy)
    return Check("CPU", "ok", detail)


def available_memory(meminfo: Path, cgroup: Path) -> int | None:
    """Bytes that can be had: what the kernel says, or the container's limit where that is smaller."""
    if not meminfo.exists() or not (
        found := re.search(r"^MemAvailable:\s*(\d+) kB", meminfo.read_text(), re.MULTILINE)
    ):
        return None
    limit = cgroup.read_text().strip() if cgroup.exists() else "max"
    return min(int(found[1]) * 1024, int(limit) if limit.isdecimal() else sys.maxsize)


def check_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup/memory.max")) -> Check:
    """Enough memory for the stack and a batch."""
    available = available_memory(meminfo, cgroup)
    if available is None:
        return Check("Memory", "warn", f"{meminfo} does not say", f"make sure that {MEMORY_WARN // GIB} GiB are free")
    detail = f"{available / GIB:.1f} GiB available"
    if available >= MEMORY_WARN:
        return Check("Memory", "ok", detail)
    remedy = "free memory or raise the container's limit, or train with smaller batches and crops"
    return Check("Memory", "fail" if available < MEMORY_FAIL else "warn", detail, remedy)


def nearest_existing(path: Path) -> Path:
    """The path, or its nearest ancestor that is there."""
    return next(place for place in (path, *path.parents) if os.path.exists(place))


def check_disk(workspace: Path) -> Check:
    """Room for artifacts on the workspace's disk."""
    place = nearest_existing(workspace.absolute())
    free = shutil.disk_usage(place).free
    detail = f"{free / GIB:.1f} GiB free at {place}"
    if free >= DISK_WARN:
        return Check("Disk", "ok", detail)
    remedy = f"free {DISK_WARN // GIB} GiB, or name a workspace on another disk with --workspace"
    return Check("Disk", "fail" if free < DISK_FAIL else "warn", detail, remedy)


def check_writable(workspace: Path) -> Check:
    """A file can be made in the workspace, or where it would be made."""
    place = nearest_existing(workspace.absolute())
    try:
        with tempfile.TemporaryFile(dir=place):
            return Check("Workspace", "ok", f"{place} is writable")
    except OSError as error:
        remedy = "name a folder that you may write to with --workspace"
        return Check("Workspace", "fail", f"{place} cannot be written to: {error.strerror}", remedy)


def mounts(table: Path) -> Iterator[tuple[Path, str]]:
    """(mount point, file system type) of a table such as /proc/mounts, which writes a space in octal."""
    for line in table.read_text().splitlines():
        _, point, kind, *_ = line.split(" ")
        yield Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), point)), kind


def check_filesystem(workspace: Path, table: Path = Path("/proc/mounts")) -> Check:
    """The workspace's metadata.sqlite lies on a local file system, whose locks work."""
    place = nearest_existing(workspace.absolute()).resolve()
    found = [(point, kind) for point, kind in mounts(table) if place.is_relative_to(point)] if table.exists() else []
    if not found:
        return Check("File system", "warn", f"{table} does not say", "make sure that the workspace is on a local disk")
    # The longest mount point holds the place; of several there, the last mounted.
    point, kind = max(reversed(found), key=lambda mount: len(mount[0].parts))
    if kind in NETWORK_FILESYSTEMS | NETWORK_FUSE:
        remedy = "name a workspace on a local disk with --workspace: SQLite's locks are not dependable on a network"
        return Check("File system", "fail", f"{place} is on {kind} ({point})", remedy)
    return Check("File system", "ok", f"{kind} ({point})")


def check_metadata(database: Path) -> Check:
    """The ML Metadata database, if there is one, is whole and is one."""
    workspace = Workspace(database.parent)
    kept = backups(workspace)
    if not database.exists():
        if kept:
            return Check("ML Metadata", "fail", f"{database} is gone, but has backups", remedy(workspace))
        return Check("ML Metadata", "ok", "no database yet: the first run makes it")
    try:
        executions = count_executions(database, patience=1)
    except sqlite3.Error as error:
        if is_busy(error):
            wait = "wait for the run in this workspace to end, or end the program that holds it"
            return Check("ML Metadata", "warn", f"{database} is in use", wait)
        return Check("ML Metadata", "fail", f"{database} is damaged: {error}", remedy(workspace))
    copies = f"; {len(kept)} backups, the newest {kept[-1].name}" if kept else ""
    return Check("ML Metadata", "ok", f"{executions} executions recorded{copies}")


def check_metadata_server(workspace: Path, config: "MetadataConfig") -> Check:
    """The MySQL server lets ML Metadata in, which makes its tables where the database is empty."""
    from data.errors import MetadataError
    from pipeline.metadata_store import PASSWORD, metadata_config, open_store, server_name

    connection = metadata_config(Workspace(workspace), config)
    try:
        runs = len(open_store(connection).get_contexts_by_type("pipeline_run"))
    except MetadataError as error:
        remedy = f"correct section metadata of the configuration, or {PASSWORD}; or start the server"
        return Check("ML Metadata", "fail", str(error), remedy)
    return Check("ML Metadata", "ok", f"{server_name(connection.mysql)}: {runs} runs recorded")


def check_schedule(workspace: Path, now: datetime | None = None) -> Check:
    """The schedule of the workspace is alive, and its last run did not fail."""
    from pipeline.schedule.scheduler import schedule_lock, schedule_state

    places = Workspace(workspace)
    try:
        holder, state = schedule_lock(places).holder(), schedule_state(places)
        plan, runs = state.plan, state.last(1)
    except sqlite3.Error as error:
        file = places.schedule / "state.sqlite"
        again = f"stop the schedule, move {file} away and start it again; only its history is lost"
        return Check("Schedule", "fail", f"{file} cannot be read: {error}", again)
    last = f"; the last run ended as {runs[0].result}" if runs else ""
    planned = plan.next_run if plan else None
    if planned and planned < (now or datetime.now(UTC)) and not holder:
        detail = f"no schedule runs, and the run of {planned:%Y-%m-%d %H:%M %Z} was due{last}"
        return Check("Schedule", "warn", detail, "start it again: `python local_runner.py schedule ...`")
    if runs and runs[0].result == "failed":
        failed = "`python local_runner.py schedule --status` says why"
        return Check("Schedule", "warn", f"{holder or 'no schedule runs'}{last}", failed)
    return Check("Schedule", "ok", f"{holder or 'no schedule runs'}{last}")
