"""Keeps the noise of third-party libraries off the terminal: it goes to a log file instead."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.console import TERMINAL_FD


@contextmanager
def output_to(path: Path | None) -> Iterator[None]:
    """Leads standard output and error into a file (None: nowhere) at the level of the operating system.

    That catches what C++ libraries write as well. `data.console.terminal` still reaches the terminal.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    target = os.open(path or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    outer = os.environ.get(TERMINAL_FD)
    os.environ[TERMINAL_FD] = outer or str(saved[1])
    try:
        os.dup2(target, 1)
        os.dup2(target, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for descriptor in (*saved, target):
            os.close(descriptor)
        if outer is None:
            del os.environ[TERMINAL_FD]
