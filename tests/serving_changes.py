"""Two who change a serving directory at the same moment."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from components.publishing.lock import serving_lock

_Result = TypeVar("_Result")


class _Waiting(logging.Handler):
    """Notices that somebody waits for a lock."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.noticed = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if "waiting" in record.getMessage():
            self.noticed.set()


def overtaken(act: Callable[[], _Result], serving_dir: str, change: Callable[[], object]) -> _Result:
    """Runs `act` in a thread; when it comes to change the directory, `change` has done so first.

    Whatever `act` looked at before it waited for the lock of the directory is out of date when it gets the lock.
    """
    logger, waiting = logging.getLogger("filelock"), _Waiting()
    level = logger.level
    logger.addHandler(waiting)
    logger.setLevel(logging.DEBUG)
    try:
        with ThreadPoolExecutor(1) as pool:
            with serving_lock(serving_dir):
                result = pool.submit(act)
                assert waiting.noticed.wait(60), "it did not wait for the lock"
                change()
            return result.result()
    finally:
        logger.removeHandler(waiting)
        logger.setLevel(level)
