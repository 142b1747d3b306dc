"""Output: messages of libraries go to a log file, results for the user to the terminal."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

#: Environment variable with the number of a file descriptor that still is the terminal while output is captured.
TERMINAL_FD = "DEEPLAB_TERMINAL_FD"


def terminal() -> Console:
    """A console on the terminal, or on standard error where nothing was redirected."""
    descriptor = os.environ.get(TERMINAL_FD)
    if descriptor is None:
        return Console(file=sys.stderr)
    return Console(file=os.fdopen(int(descriptor), "w", encoding="utf-8", closefd=False))


@contextmanager
def capture_output(path: Path | None) -> Iterator[None]:
    """A context in which standard output and error go to the end of a file; None discards them.

    The descriptors themselves are redirected, which catches what C++ libraries write as well. `terminal` still reaches
    the terminal.
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
