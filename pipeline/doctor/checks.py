"""All checks of a machine and a workspace, in the order in which they are shown."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.doctor.machine import (
    Finding,
    check_cpu,
    check_gpus,
    check_imports,
    check_memory,
    check_platform,
    check_python,
    check_versions,
    probe_imports,
)
from pipeline.doctor.workspace import (
    AS_OWNER,
    check_disk,
    check_filesystem,
    check_metadata,
    check_metadata_server,
    check_schedule,
    check_writable,
)

if TYPE_CHECKING:
    from pipeline.sections.workspace import MetadataConfig


def run_checks(workspace: Path, quick: bool = False, metadata: "MetadataConfig | None" = None) -> list[Finding]:
    """Examines the machine, the packages and the workspace; changes nothing.

    Args:
        workspace: the workspace folder, which need not exist.
        quick: skip the import of the stack, and check GPUs by the installed packages.
        metadata: where ML Metadata is stored; None for the workspace.
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
            [check_filesystem(workspace), examine("ML Metadata", check_metadata, workspace / "metadata.sqlite")]
            if metadata is None or metadata.backend == "sqlite"
            else [check_metadata_server(workspace, metadata)]
        ),
        *([examine("Schedule", check_schedule, workspace)] if os.path.isdir(workspace / "schedule") else []),
    ]


def examine(name: str, check: Callable[[Path], Finding], path: Path) -> Finding:
    """Runs a check of a file or folder; the check fails if this user lacks the permission."""
    try:
        return check(path)
    except OSError as error:
        return Finding(name, "fail", f"{error.filename}: {error.strerror}", AS_OWNER)
