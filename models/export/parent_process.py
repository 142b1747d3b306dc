"""A process that must not outlive the one that started it, however that one ends."""

import ctypes
import os
import signal

#: linux/prctl.h
_SET_DEATH_SIGNAL = 1


def end_with_parent(parent: int) -> None:
    """Has the kernel kill this process when its parent dies, be it by SIGKILL (prctl(2), PR_SET_PDEATHSIG).

    Args:
        parent: Its process id, as it gave it: should it have died before this call, this process ends at once.
    """
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
