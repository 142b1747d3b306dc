"""One run of the pipeline in a separate process, which can be stopped, and whose memory is freed at its end."""

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from data.errors import TEMPORARY

#: Environment variables that are removed for a run, since it does not send events.
_SECRETS = ("DEEPLAB_WEBHOOK_URL", "DEEPLAB_WEBHOOK_SECRET")

#: How many bytes at the end of the output are searched for the error.
_TAIL = 20_000


@dataclass(frozen=True)
class ProcessResult:
    """How a process ended."""

    status: int
    """Its exit status; if negative, the signal that killed it."""
    error: str = ""
    """Its error message, if it failed."""

    @property
    def transient(self) -> bool:
        """Whether a retry may help: the exit status indicates it, or the process was killed, as when out of memory."""
        return self.status == TEMPORARY or self.status < 0


class RunProcess:
    """Starts a command, and can stop it together with its child processes.

    Args:
        command: Program and arguments.
        output: File for the command's output.
        patience: Seconds that it may take to end after it was asked to, before it is killed.
    """

    def __init__(self, command: Sequence[str], output: Path, patience: float):
        self._command = list(command)
        self._output = output
        self._patience = patience
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run(self, attempt: int) -> ProcessResult:
        """Runs the command to its end.

        Args:
            attempt: Number of the attempt; 1 truncates the output file, later ones append to it.
        """
        environment = {key: value for key, value in os.environ.items() if key not in _SECRETS}
        with self._output.open("wb" if attempt == 1 else "ab", buffering=0) as output:
            if attempt > 1:
                output.write(f"\n--- attempt {attempt} ---\n".encode())
            begin = output.tell()
            with self._lock:
                if self._stopped:
                    return ProcessResult(-signal.SIGTERM)
                # In a new session: Ctrl-C reaches only the schedule, and a signal the run with all its children.
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                )
            status = self._process.wait()
        return ProcessResult(status, "" if status == 0 else self._error(status, begin))

    def stop(self) -> None:
        """Asks the run to end, and kills it after a while. No other run can be started afterwards."""
        with self._lock:
            self._stopped = True
            process = self._process
        if process is None or process.poll() is not None:
            return
        _signal_group(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(self._patience)
        _signal_group(process, signal.SIGKILL)  # Its child processes may have outlived it.

    def _error(self, status: int, begin: int) -> str:
        """The output from `begin` on, after its last `error:` at the beginning of a line, or else its last line."""
        text = self._output.read_bytes()[begin:][-_TAIL:].decode(errors="replace").rstrip()
        before, found, message = ("\n" + text).rpartition("\nerror: ")
        reason = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        last_line = before.rpartition("\n")[2] if not found else ""
        return message if found else f"{reason}: {last_line or text.rpartition(chr(10))[2] or 'it printed nothing'}"


def _signal_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
