"""A schedule that retrains repeatedly on tiny data: do disk and memory usage stay bounded?

Data change, the schedule notices, a whole run follows, a version is pushed: `--runs` times in one workspace. One line
is printed for each run, and at the end what was used in the first and in the last third of the runs. The command fails
if a run did, or if something grew. A soak that was interrupted resumes where it stopped, given its folder again.

Usage: PYTHONPATH=. python benchmarks/soak.py [--runs 200] [--folder DIR]      (about a minute a run on 2 cores)
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data.synthetic import write_dataset
from pipeline.schedule.state import ScheduledRun, schedule_state
from pipeline.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {
    "name": "soak",
    "model.width": 0.35,
    "model.aspp_channels": 8,
    "model.decoder_channels": 8,
    "model.low_level_channels": 8,
    "augment.crop": 48,
    "training.steps": 6,
    "training.global_batch_size": 2,
    "training.warmup_steps": 1,
    "training.eval_every": 3,
    "training.checkpoint_every": 3,
    "infra.requests": 1,
    "evaluation.max_drop": 1,
    "evaluation.allow_degenerate": "true",
    "push.keep": 2,
    "retention.keep_runs": 3,
    "schedule.debounce_seconds": 1,
    "schedule.backoff_seconds": 1,
}
#: A line for each run that was measured.
LOG = "usage.jsonl"
#: By how much the last third of the runs may use more than the first.
TOLERANCE = 1.1
#: Runs at the beginning that do not count: so many it takes until anything is old enough to be removed.
WARM_UP = 4
#: By how much ML Metadata may grow with each run, for their history is never cut. Bytes.
HISTORY = 100_000


@dataclass(frozen=True)
class Usage:
    """The usage after one run."""

    run: int
    result: str
    seconds: float
    disk: int
    """Bytes in the workspace, without ML Metadata and its backups."""
    metadata: int
    """Bytes of ML Metadata, a backup not counted."""
    files: int
    scheduler_memory: int
    """Bytes resident in the schedule's process."""
    run_memory: int
    """The largest number of bytes resident in the run's process."""


def change(data: Path, seed: int) -> None:
    """Changes the pixels of one training image."""
    names = (data / "ImageSets/Segmentation/train.txt").read_text().split()
    path = data / "JPEGImages" / f"{names[seed % len(names)]}.jpg"
    with Image.open(path) as image:
        pixels = np.asarray(image).astype(int)
    noise = np.random.default_rng(seed).integers(-8, 9, pixels.shape)
    new = path.with_suffix(".new")
    Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(new, format="JPEG")
    new.replace(path)


def sizes(folder: Path) -> dict[str, int]:
    """Relative path -> bytes; a file with several names counts once."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            status = path.lstat()
            found[status.st_ino] = (str(path.relative_to(folder)), status.st_size)
    return dict(found.values())


def memory(process: int, field: str) -> int:
    """Bytes, from the kernel's table; 0 if the process is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)


def children(process: int) -> list[int]:
    """Processes that a process has started, from any of its threads."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


@contextmanager
def schedule(workspace: Path, data: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The schedule, watching the data."""
    settings = [f"data.path={data}", *(f"{key}={value}" for key, value in SETTINGS.items())]
    options = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "local_runner.py", "schedule", "--watch", "--workspace", str(workspace), *options]
    with (workspace.parent / "schedule.txt").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)


def next_run(process: "subprocess.Popen[bytes]", workspace: Workspace, after: int) -> tuple[ScheduledRun, int]:
    """Waits until a run with a number above `after` has ended; the run, and the most memory that it took."""
    peak, state = 0, schedule_state(workspace)
    while process.poll() is None:
        peak = max([peak, *(memory(child, "VmHWM") for child in children(process.pid))])
        ended = [run for run in state.last(5) if run.id > after and run.result not in ("running", "interrupted")]
        if ended:
            return ended[-1], peak
        time.sleep(0.2)
    raise SystemExit(f"the schedule ended by itself: see {workspace.root.parent / 'schedule.txt'}")


def measure(process: int, workspace: Workspace, run: ScheduledRun, peak: int) -> Usage:
    """What is in use after a run."""
    found = sizes(workspace.root)
    disk = sum(size for name, size in found.items() if not name.startswith(("metadata.sqlite", "backups/")))
    return Usage(
        run=run.id,
        result=run.result,
        seconds=run.seconds or 0.0,
        disk=disk,
        metadata=found["metadata.sqlite"],
        files=len(found),
        scheduler_memory=memory(process, "VmRSS"),
        run_memory=peak,
    )


def begin(folder: Path) -> tuple[Path, list[Usage]]:
    """The data, made unless they are there, and what was measured before the soak was interrupted."""
    data, log = folder / "data", folder / LOG
    if not log.exists():
        shutil.rmtree(data, ignore_errors=True)
        write_dataset(data, num_train=8, num_val=3, num_test=4)
        log.touch()
    return data, [Usage(**json.loads(line)) for line in log.read_text().splitlines()]


def soak(folder: Path, runs: int) -> list[Usage]:
    """Lets the schedule run so many times, those of an interrupted soak included; what was in use after each."""
    data, usage = begin(folder)
    workspace = Workspace(folder / "workspace")
    workspace.root.mkdir(exist_ok=True)
    last = max((run.id for run in schedule_state(workspace).last(1)), default=0)
    if last:
        change(data, last)
    with schedule(workspace.root, data) as process, (folder / LOG).open("a") as log:
        while len(usage) < runs:
            run, peak = next_run(process, workspace, last)
            last = run.id
            usage.append(measure(process.pid, workspace, run, peak))
            log.write(json.dumps(asdict(usage[-1])) + "\n")
            log.flush()
            print(asdict(usage[-1]), flush=True)
            if len(usage) < runs:
                change(data, last)
    return usage


def problems(usage: list[Usage]) -> list[str]:
    """What is wrong; prints what was used at first and at last."""
    wrong = [f"run {entry.run} ended as {entry.result}" for entry in usage if entry.result != "pushed"]
    counted = usage[WARM_UP:]
    third = max(len(counted) // 3, 1)
    for name in ("seconds", "disk", "files", "scheduler_memory", "run_memory"):
        first, last = (
            statistics.median(getattr(e, name) for e in part) for part in (counted[:third], counted[-third:])
        )
        print(f"{name:17} first third {first:>14,.0f}   last third {last:>14,.0f}")
        if name != "seconds" and last > TOLERANCE * first:
            wrong.append(f"{name} grew from {first:,.0f} to {last:,.0f}")
    growth = (counted[-1].metadata - counted[0].metadata) / max(len(counted) - 1, 1)
    print(f"metadata          {counted[-1].metadata:,} bytes at the end, {growth:,.0f} more with each run")
    if growth > HISTORY:
        wrong.append(f"metadata grow by {growth:,.0f} bytes a run, more than {HISTORY:,}")
    return wrong


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help=f"at least {WARM_UP + 2}")
    parser.add_argument("--folder", type=Path, help="is kept; without it, a temporary one is removed in the end")
    arguments = parser.parse_args()
    if arguments.runs < WARM_UP + 2:
        parser.error(f"--runs {arguments.runs}: at least {WARM_UP + 2}")
    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="soak-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the schedule ends, too
    wrong = problems(soak(folder, arguments.runs))
    if not arguments.folder:
        shutil.rmtree(folder)
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
