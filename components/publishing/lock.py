"""One change of a serving directory at a time: a push, a rollback, a clean-up, a pin."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from components.storage.file_systems import is_local
from data.errors import WorkspaceBusy

LOCK = ".lock"
#: How long to wait for another change, in seconds; publishing a large model to a slow disk takes a while.
_PATIENCE = 600.0


@contextmanager
def changing(serving_dir: str) -> Iterator[None]:
    """Holds a serving directory, which is made if absent; readers need no lock.

    A thread that holds it already may enter again, so that several changes become one.

    An object store has no locks: there, whoever rolls back sees to it that no run is pushing at that moment.

    Raises:
        WorkspaceBusy: Another process or thread did not let go of it within ten minutes.
    """
    if not is_local(serving_dir):
        yield
        return
    os.makedirs(serving_dir, exist_ok=True)
    lock = FileLock(os.path.join(serving_dir, LOCK), is_singleton=True)
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        raise WorkspaceBusy(f"{serving_dir}: another process has been changing it for {_PATIENCE:g} s") from None
    try:
        yield
    finally:
        lock.release()
