"""What this machine computes with. Importing it takes the standard library alone, as the doctor needs it."""

import re
import time
from functools import cache
from pathlib import Path


def has_gpu() -> bool:
    """Whether this machine has an NVIDIA GPU with a driver, on which nothing here was measured."""
    return Path("/proc/driver/nvidia/version").exists()


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """The instruction sets of the CPU as Linux names them; empty where it does not say."""
    found = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text() if cpuinfo.exists() else "", re.MULTILINE)
    return set(found[1].split()) if found else set()


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU computes in bfloat16; others emulate it, which is slower than float32."""
    return bool(cpu_flags(cpuinfo) & {"avx512_bf16", "amx_bf16"})


@cache
def matrix_speed() -> float:
    """Float32 multiply-adds a second, times two, of a matrix product here; timed once for a fraction of a second."""
    import numpy as np  # The doctor reads this module, too, and says what is missing.

    matrix = np.ones((1536, 1536), np.float32)
    matrix @ matrix
    begin = time.perf_counter()
    for _ in range(3):
        matrix @ matrix
    return 3 * 2 * len(matrix) ** 3 / (time.perf_counter() - begin)
