"""The machine and its packages. Each check is one function that returns a `Finding`.

Only the import check is slow (about 20 s). It runs in a separate process, so that a crash of a compiled library is a
finding and does not end the doctor.
"""

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.utils import NormalizedName, canonicalize_name

from pipeline.hardware import cpu_flags, has_bfloat16

PROJECT = Path(__file__).resolve().parents[2]

GIB = 1024**3

#: Oldest glibc that supports the locked wheels (manylinux_2_28).
MIN_GLIBC = (2, 28)
#: Importing the stack takes 1.1 GiB (resident, measured); batches and Beam's shuffle need memory in addition.
MEMORY_FAIL, MEMORY_WARN = 2 * GIB, 4 * GIB

# tfx is first: it completes tfx_bsl for tensorflow_data_validation, and tensorflow_model_analysis needs it too.
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
class Finding:
    """The result of one check of the doctor."""

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    """What was found, with the value."""
    remedy: str = ""
    """What to do about it; empty if the check passed."""


@dataclass(frozen=True, slots=True)
class ImportProbe:
    """The result of importing the stack in a new process."""

    gpus: tuple[str, ...] = ()
    """Names of the GPUs that TensorFlow sees."""
    tensorflow: str = ""
    """Version of TensorFlow; empty after an error."""
    error: str = ""
    """Last lines of the traceback, or the exit status of the process; empty without an error."""


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> Finding:
    """Python is 3.11, for which the locks are made; later versions need newer packages."""
    found = f"Python {version[0]}.{version[1]}"
    if version == (3, 11):
        return Finding("Python", "ok", found)
    remedy = "install Python 3.11 and run `make setup` (the lock is made for it; see docs/dependencies.md)"
    return Finding("Python", "warn" if version > (3, 11) else "fail", f"{found}; the tested version is 3.11", remedy)


def check_platform() -> Finding:
    """The platform is Linux on x86_64 with a recent enough glibc, for which the wheels are built."""
    libc, version = platform.libc_ver()
    found = f"{platform.system()} {platform.machine()}, {libc or 'no glibc'} {version}".strip()
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return Finding("Platform", "fail", found, "use Linux on x86_64: the locked packages are made for it")
    if libc != "glibc" or tuple(map(int, version.split(".")[:2])) < MIN_GLIBC:
        oldest = ".".join(map(str, MIN_GLIBC))
        return Finding(
            "Platform", "fail", found, f"use a system with glibc {oldest} or later (Debian 10, Ubuntu 20.04)"
        )
    return Finding("Platform", "ok", found)


def locked_versions(lock: Path) -> dict[NormalizedName, str]:
    """Versions by canonical package name, from the `name==version` lines of a lock."""
    lines = re.finditer(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", lock.read_text(), re.MULTILINE)
    return {canonicalize_name(line[1]): line[2] for line in lines}


def check_versions(lock: Path = PROJECT / "requirements.lock") -> Finding:
    """The installed packages are those of the lock, which is the only tested set."""
    if not lock.exists():
        return Finding("Packages", "warn", f"{lock} is not there, so versions were not compared", "run from a checkout")
    installed = {canonicalize_name(found.name): found.version for found in importlib.metadata.distributions()}
    locked = locked_versions(lock)
    wrong = [
        f"{name} {installed.get(name, 'missing')} (locked: {version})"
        for name, version in locked.items()
        if installed.get(name) != version
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        return Finding("Packages", "fail", ", ".join(wrong[:5]) + more, "run `make setup` and use .venv/bin/python")
    return Finding("Packages", "ok", f"all {len(locked)} as in {lock.name}")


def probe_imports() -> ImportProbe:
    """Imports the stack in a new process."""
    command = [sys.executable, "-c", _PROBE]
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS, env=quiet, check=False)
    except subprocess.TimeoutExpired:
        return ImportProbe(error=f"not done after {_PROBE_SECONDS} seconds")
    if result.returncode < 0:
        return ImportProbe(error=f"the process was ended by signal {-result.returncode}")
    if result.returncode:
        return ImportProbe(
            error=" ".join(result.stderr.strip().splitlines()[-1:]) or f"exit status {result.returncode}"
        )
    found = json.loads(result.stdout.splitlines()[-1])
    return ImportProbe(gpus=tuple(found["gpus"]), tensorflow=found["tensorflow"])


def check_imports(probe: ImportProbe) -> Finding:
    """TFX and its companion packages can be imported together."""
    if not probe.error:
        return Finding("Imports", "ok", f"tfx first, then its family and TensorFlow {probe.tensorflow}")
    if "signal 4" in probe.error:
        remedy = "this CPU lacks instructions (AVX) that TensorFlow's wheels use: take another machine"
    else:
        remedy = "run `make setup`; if that does not help, `make clean setup` builds the environment from scratch"
    return Finding("Imports", "fail", probe.error, remedy)


def nvidia_gpus() -> list[str]:
    """GPUs that the NVIDIA driver lists, one line each; empty if there is no driver or no GPU."""
    if not (tool := shutil.which("nvidia-smi")):
        return []
    try:
        result = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in result.stdout.splitlines() if line.startswith("GPU ")]


def has_cuda_libraries() -> bool:
    """Whether the CUDA libraries are installed; TensorFlow's wheel is the same with and without them."""
    return any(canonicalize_name(found.name).startswith("nvidia-cudnn") for found in importlib.metadata.distributions())


def check_gpus(probe: ImportProbe | None) -> Finding:
    """TensorFlow sees the GPUs that the driver lists; without a probe, the CUDA libraries for them are installed."""
    present = nvidia_gpus()
    if not present:
        return Finding("GPUs", "ok", "the NVIDIA driver is absent or lists none: training runs on the CPU")
    if not has_cuda_libraries():
        detail = f"{len(present)} present, but the CUDA libraries are not installed"
        return Finding("GPUs", "warn", detail, "run `make setup GPU=1` for the CUDA build of TensorFlow")
    if probe is None:
        return Finding("GPUs", "ok", f"{len(present)} present, CUDA libraries installed")
    if len(probe.gpus) < len(present):
        detail = f"{len(present)} present, TensorFlow sees {len(probe.gpus)}"
        return Finding(
            "GPUs", "warn", detail, "look at CUDA_VISIBLE_DEVICES; update the NVIDIA driver (CUDA 12.5 or later)"
        )
    return Finding("GPUs", "ok", f"TensorFlow sees {len(probe.gpus)}: {', '.join(present)}")


def check_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> Finding:
    """Reports the CPU's vector instructions, which determine the speed of training on it."""
    flags = cpu_flags(cpuinfo)
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    detail = f"{os.cpu_count()} cores, {', '.join(known) or 'no AVX2'}"
    if "avx2" not in flags:
        return Finding("CPU", "warn", detail, "training will be slow: take a machine with AVX2 (2013 and later)")
    if not has_bfloat16(cpuinfo):
        remedy = "mixed_bfloat16 gains nothing here, since bfloat16 is emulated: train in float32 on this CPU"
        return Finding("CPU", "warn", f"{detail}, no bfloat16 instructions", remedy)
    return Finding("CPU", "ok", detail)


def available_memory(meminfo: Path, cgroup: Path) -> int | None:
    """Available memory in bytes: the kernel's value, or the container's limit if that is smaller."""
    if not meminfo.exists() or not (
        found := re.search(r"^MemAvailable:\s*(\d+) kB", meminfo.read_text(), re.MULTILINE)
    ):
        return None
    limit = cgroup.read_text().strip() if cgroup.exists() else "max"
    return min(int(found[1]) * 1024, int(limit) if limit.isdecimal() else sys.maxsize)


def check_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup/memory.max")) -> Finding:
    """There is enough memory for the stack and a batch."""
    available = available_memory(meminfo, cgroup)
    if available is None:
        return Finding("Memory", "warn", f"{meminfo} does not say", f"make sure that {MEMORY_WARN // GIB} GiB are free")
    detail = f"{available / GIB:.1f} GiB available"
    if available >= MEMORY_WARN:
        return Finding("Memory", "ok", detail)
    remedy = "free memory or raise the container's limit, or train with smaller batches and crops"
    return Finding("Memory", "fail" if available < MEMORY_FAIL else "warn", detail, remedy)
