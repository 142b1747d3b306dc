"""The lock of a serving directory: one push, rollback, clean-up or pin at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from components.storage.file_systems import is_local
from data.errors import WorkspaceBusy

LOCK = ".lock"
#: Seconds to wait for another change; publishing a large model to a slow disk takes a while.
_TIMEOUT = 600.0


@contextmanager
def serving_lock(serving_dir: str) -> Iterator[None]:
    """Holds the lock of a serving directory, which is made if absent; readers do not need it.

    A thread that holds the lock may take it again, so that several changes become one. An object store has no locks:
    there, make sure that no run is pushing while you roll back.

    Raises:
        WorkspaceBusy: Another process or thread did not release the lock within ten minutes.
    """
    if not is_local(serving_dir):
        yield
        return
    os.makedirs(serving_dir, exist_ok=True)
    lock = FileLock(os.path.join(serving_dir, LOCK), is_singleton=True)
    try:
        lock.acquire(timeout=_TIMEOUT)
    except Timeout:
        raise WorkspaceBusy(f"{serving_dir}: another process has been changing it for {_TIMEOUT:g} s") from None
    try:
        yield
    finally:
        lock.release()
