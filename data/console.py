"""The terminal of the person who waits, also where standard error has been led into a log file."""

import os
import sys

from rich.console import Console

#: Number of a file descriptor that still is the terminal; a command line sets it before it redirects the standard ones.
TERMINAL_FD = "DEEPLAB_TERMINAL_FD"


def terminal() -> Console:
    """A console on the terminal, or on standard error where nothing was redirected."""
    descriptor = os.environ.get(TERMINAL_FD)
    if descriptor is None:
        return Console(file=sys.stderr)
    return Console(file=os.fdopen(os.dup(int(descriptor)), "w", encoding="utf-8"))
