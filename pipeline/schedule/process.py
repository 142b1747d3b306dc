"""One run of the pipeline in a process of its own: what it leaks goes with it, and it can be stopped."""

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from data.errors import TEMPORARY

#: A run gets none of these: it sends no events.
_SECRETS = ("DEEPLAB_WEBHOOK_URL", "DEEPLAB_WEBHOOK_SECRET")

#: How much of the output is searched for the error.
_TAIL = 20_000


@dataclass(frozen=True)
class Ending:
    """How a process ended."""

    status: int
    """Its exit status; negative is the signal that killed it."""
    error: str = ""
    """Its own words, where it failed."""

    @property
    def transient(self) -> bool:
        """Whether another try may help: it said so, or was killed, as for want of memory."""
        return self.status == TEMPORARY or self.status < 0


class RunProcess:
    """Starts a command, and can end it with all that it has started.

    Args:
        command: Program and arguments.
        output: File for what it prints.
        patience: Seconds that it may take to end when it is told to, before it is killed.
    """

    def __init__(self, command: Sequence[str], output: Path, patience: float):
        self._command = list(command)
        self._output = output
        self._patience = patience
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run(self, attempt: int) -> Ending:
        """Runs the command to its end.

        Args:
            attempt: 1 begins the output anew; what later attempts print follows it.
        """
        environment = {key: value for key, value in os.environ.items() if key not in _SECRETS}
        with self._output.open("wb" if attempt == 1 else "ab", buffering=0) as output:
            if attempt > 1:
                output.write(f"\n--- attempt {attempt} ---\n".encode())
            begin = output.tell()
            with self._lock:
                if self._stopped:
                    return Ending(-signal.SIGTERM)
                # A session of its own: Ctrl-C reaches the schedule alone, and a signal the run and all its children.
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                )
            status = self._process.wait()
        return Ending(status, "" if status == 0 else self._error(status, begin))

    def stop(self) -> None:
        """Asks the run to end; kills it after a while. No other can be started."""
        with self._lock:
            self._stopped = True
            process = self._process
        if process is None or process.poll() is not None:
            return
        _signal_group(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(self._patience)
        _signal_group(process, signal.SIGKILL)  # What it started may have outlived it.

    def _error(self, status: int, begin: int) -> str:
        """What follows the last line of the output from `begin` on that begins with `error:`, or else its last line."""
        text = self._output.read_bytes()[begin:][-_TAIL:].decode(errors="replace").rstrip()
        before, found, message = ("\n" + text).rpartition("\nerror: ")
        reason = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        last_line = before.rpartition("\n")[2] if not found else ""
        return message if found else f"{reason}: {last_line or text.rpartition(chr(10))[2] or 'it printed nothing'}"


def _signal_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
