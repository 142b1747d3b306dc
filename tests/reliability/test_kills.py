"""A run that is killed again and again, at random moments, comes to the same end as one that nobody disturbed.

DEEPLAB_KILLS says how often it is killed, DEEPLAB_SEED at which moments.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from components.publishing.directory import published, served
from pipeline.metadata.backup import require_whole
from pipeline.metadata.store import metadata_config, open_store
from pipeline.sections.workspace import MetadataConfig
from pipeline.workspace import Workspace
from tests.pipeline.conftest import ROOT, command_line, overrides, run_arguments

pytestmark = pytest.mark.long

KILLS = int(os.environ.get("DEEPLAB_KILLS", "5"))
SEED = int(os.environ.get("DEEPLAB_SEED", "0"))

SETTINGS = {
    "training.deterministic": "true",
    "training.steps": "12",
    "training.checkpoint_every": "3",
    "training.eval_every": "6",
    "evaluation.max_drop": "1",
}
#: Seconds of the start, and of what follows the last stage: record, report, clean-up, backup.
START, END = 15.0, 3.0


class Moment(NamedTuple):
    """When a run is killed."""

    stage: str
    """'' is the start of the process."""
    seconds: float
    """After the stage has begun."""


def moments(timings: dict[str, float], kills: int, seed: int) -> list[Moment]:
    """Random moments in the order of the stages; none is left out as long as there are kills for all."""
    lasts = {"": START, **timings}
    lasts[list(timings)[-1]] += END
    generator = random.Random(seed)
    rounds = [generator.sample(list(lasts), len(lasts)) for _ in range(kills // len(lasts) + 1)]
    chosen = [stage for stages in rounds for stage in stages][:kills]
    order = list(lasts)
    return [Moment(stage, generator.uniform(0, lasts[stage])) for stage in sorted(chosen, key=order.index)]


def kill_at(moment: Moment, arguments: list[str]) -> bool:
    """Starts a run and kills it, with all that it started; whether it had not ended before."""
    command = [sys.executable, "local_runner.py", *arguments]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    reached = threading.Event()

    def listen() -> None:
        for line in process.stderr:
            if line.strip() == moment.stage:
                reached.set()
        reached.set()

    listener = threading.Thread(target=listen)
    listener.start()
    if moment.stage:
        assert reached.wait(600), f"{moment.stage} did not begin within ten minutes"
    with suppress(subprocess.TimeoutExpired):
        process.wait(moment.seconds)
    killed = process.poll() is None
    if killed:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    listener.join()
    process.stderr.close()
    return killed


@contextmanager
def poller(serving_dir: Path, image: Path, folder: Path) -> Iterator[Path]:
    """A process that loads every version that appears; the file with what it printed."""
    output, stop = folder / "poller.txt", folder / "stop"
    command = [sys.executable, "-m", "tests.reliability.poller", str(serving_dir), str(image), str(stop)]
    with output.open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield output
        stop.touch()
        assert process.wait(300) == 0, output.read_text()
    finally:
        process.kill()
        process.wait()


def weights(model: str) -> list[np.ndarray]:
    """The values of all variables of a SavedModel, in order of their names."""
    reader = tf.train.load_checkpoint(f"{model}/variables/variables")
    names = sorted(name for name in reader.get_variable_to_dtype_map() if not name.startswith("_CHECKPOINTABLE"))
    return [reader.get_tensor(name) for name in names]


def summary(workspace: Path) -> dict:
    return json.loads((workspace / "runs/latest/summary.json").read_text())


def test_a_run_that_is_killed_many_times_ends_like_one_that_is_not(tiny_dataset: Path, tmp_path: Path):
    settings = overrides(tiny_dataset, **SETTINGS)
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    result = command_line(*run_arguments(undisturbed, settings))
    assert result.returncode == 0, result.stderr
    expected = summary(undisturbed)
    image = next((tiny_dataset / "JPEGImages").iterdir())

    with poller(disturbed / "serving/tiny", image, tmp_path) as answers:
        plan = moments(expected["timings"], KILLS, SEED)
        killed = [kill_at(moment, run_arguments(disturbed, settings)) for moment in plan]
        result = command_line(*run_arguments(disturbed, settings))
    assert result.returncode == 0, result.stderr
    assert sum(killed) >= 0.7 * KILLS, f"hardly a run was killed: {list(zip(plan, killed, strict=True))}"

    found = summary(disturbed)
    assert found["metrics"] == expected["metrics"]
    assert found["blessed"] is expected["blessed"] is True
    (version,) = published(str(disturbed / "serving/tiny"))
    reference = served(str(undisturbed / "serving/tiny"))
    assert reference is not None and version.version == reference.version == 1
    for mine, theirs in zip(weights(version.path), weights(reference.path), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert "version 1 answers" in answers.read_text()
    assert_tidy(disturbed)


def assert_tidy(root: Path) -> None:
    """Nothing of the killed runs is in the way: no half version, no damaged metadata, nothing left to remove."""
    workspace = Workspace(root)
    assert not list(workspace.serving.glob("*/.staging-*"))
    require_whole(workspace)
    store = open_store(metadata_config(workspace, MetadataConfig()))
    there = {Path(artifact.uri) for artifact in store.get_artifacts()}
    for folder in workspace.artifacts.glob("*/*/*"):
        assert not folder.name.isdecimal() or folder in there, f"{folder}: nothing knows of it"
