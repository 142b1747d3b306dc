"""Workspaces that an earlier version of the project has made keep working.

`tests/fixtures/old-workspace.tar.xz` holds two of them, as that version has left them; `tests/fixtures/README.md` says
how they were made. They record absolute paths, so each test leads these to a copy of its own by a symbolic link, which
is how docs/runbook.md moves a workspace.
"""

import base64
import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from tests.pipeline.conftest import command_line, in_process
from tests.pipeline.serving.conftest import running

ARCHIVE = Path(__file__).resolve().parents[1] / "fixtures/old-workspace.tar.xz"

#: Where the workspaces lay when they were made.
HOME = Path("/var/tmp/deeplab-old")

#: The settings of the training that was killed.
UNFINISHED = ("--set", "training.steps=300", "--set", "training.checkpoint_every=20")

#: What trainings as short as these need to be pushed in any case.
ANY_MODEL = ("--set", "evaluation.allow_degenerate=true")

#: Images of the test split.
IMAGES = ("beach_00007", "dusk_00008")


@pytest.fixture(autouse=True)
def copy(tmp_path: Path) -> Iterator[None]:
    """Leads the old paths to a fresh copy: `plain/`, whose data are one folder, and `spans/`, where they come in spans.

    One test at a time, of all that run on this machine, can use the paths.
    """
    with FileLock(f"{HOME}.lock"):
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(tmp_path / "copy", filter="tar")
        HOME.unlink(missing_ok=True)  # It may be there from a test that was killed.
        HOME.symlink_to(tmp_path / "copy", target_is_directory=True)
        yield
        HOME.unlink()


def at(which: str) -> tuple[str, str]:
    """The option that names a workspace, 'plain' or 'spans'."""
    return "--workspace", str(HOME / which / "workspace")


def configured(which: str) -> tuple[str, str]:
    return "--config", str(HOME / which / "config.yaml")


def ask(which: str, *arguments: str) -> str:
    """What a command prints that succeeds."""
    result = in_process(*arguments, *at(which))
    assert result.returncode == 0, result.stderr
    return result.stdout


def asked_then(now: Any, then: Any) -> Any:
    """What is said now, without the fields that were not there then: fields may be added."""
    if isinstance(now, dict) and isinstance(then, dict):
        return {key: asked_then(now.get(key), value) for key, value in then.items()}
    if isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        return [asked_then(*pair) for pair in zip(now, then, strict=True)]
    return now


def image_path(name: str) -> Path:
    return HOME / f"plain/data/JPEGImages/{name}.jpg"


def predicted(folder: Path) -> list[np.ndarray]:
    """The masks that the served version makes now, (height, width) uint8."""
    ask("plain", "predict", *(str(image_path(name)) for name in IMAGES), "--out", str(folder))
    return masks(folder)


def masks(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(folder / f"{name}_mask.png")) for name in IMAGES]


def agreement(found: list[np.ndarray], then: list[np.ndarray]) -> float:
    """Fraction of equal pixels."""
    return float(np.mean(np.concatenate([(a == b).ravel() for a, b in zip(found, then, strict=True)])))


def contents(folder: Path) -> Counter[tuple[str, str]]:
    """Names and digests of all files below a folder, wherever they lie."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return Counter((path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files)


@pytest.mark.parametrize(
    ("which", "answer", "question"),
    [
        ("plain", "status", ("status",)),
        ("plain", "schedule", ("schedule", "--status")),
        ("plain", "lineage-1", ("lineage", "1")),
        ("plain", "lineage-2", ("lineage", "2")),
        ("plain", "lineage-3", ("lineage", "3")),
        ("plain", "first-image", ("lineage", "--data", str(image_path("meadow_00000")))),
        ("plain", "late-image", ("lineage", "--data", str(image_path("beach_00004")))),
        ("spans", "status", ("status",)),
        ("spans", "lineage-1", ("lineage", "1")),
        ("spans", "lineage-2", ("lineage", "2")),
    ],
)
def test_what_is_on_record_is_told_as_it_was_then(which: str, answer: str, question: tuple[str, ...]):
    then = json.loads((HOME / which / f"answers/{answer}.json").read_text())

    assert asked_then(json.loads(ask(which, *question, "--json")), then) == then


def test_the_served_version_predicts_what_it_did_then(tmp_path: Path):
    """It is version 1 again, after a rollback. Another processor may round differently at a few pixels."""
    served = predicted(tmp_path / "served")

    assert agreement(served, masks(HOME / "plain/masks/1")) > 0.99
    assert agreement(served, masks(HOME / "plain/masks/2")) < 0.9


def test_an_earlier_version_is_served_again():
    ask("plain", "rollback", "--to", "2", "--reason", "the edges are sharp enough")

    assert json.loads(ask("plain", "status", "--json"))["serving"] == {"tiny": [1, 2, 3, 4]}
    restoration = json.loads(ask("plain", "lineage", "4", "--json"))["restoration"]
    assert (restoration["restored_from"], restoration["rollback_of"]) == (2, 3)


def test_what_was_decided_of_versions_is_remembered():
    assert "the model of version 2 may be pushed again" in ask("plain", "readmit", "2")
    assert ask("plain", "unpin", "2").endswith("pinned versions: none\n")


def test_pages_of_the_old_runs_are_written_again():
    newest, second, first = (run["run_id"] for run in json.loads(ask("plain", "status", "--json"))["runs"])
    runs = HOME / "plain/workspace/runs"
    pages = [runs / first / "report.html", runs / second / f"compare-{first}.html", runs / "index.html"]
    for page in pages:
        page.unlink(missing_ok=True)

    ask("plain", "report", first)
    ask("plain", "report", second, "--compare", first)
    ask("plain", "report", "--index")

    report, comparison, index = (page.read_text() for page in pages)
    assert "<svg" in report, "the curves of the training"
    assert report.count("data:image/") > 2, "images of the test split"
    assert first in comparison and second in comparison
    assert all(run in index for run in (newest, second, first))


def test_lost_metadata_come_back_from_their_backup():
    then = json.loads(ask("plain", "lineage", "2", "--json"))
    (HOME / "plain/workspace/metadata.sqlite").unlink()

    ask("plain", "doctor", "--restore")

    assert json.loads(ask("plain", "lineage", "2", "--json")) == then


@pytest.mark.parametrize("which", ["plain", "spans"])
def test_the_next_run_can_be_planned(which: str):
    workspace = HOME / which / "workspace"
    before = contents(workspace)

    planned = ask(which, "run", "--dry-run", *configured(which))

    assert "Trainer" in planned and "never ran here" not in planned
    assert contents(workspace) == before


@pytest.mark.long
def test_a_server_goes_over_to_a_version_that_is_rolled_back_to(tmp_path: Path):
    serving = HOME / "plain/workspace/serving"
    rows = [{"b64": base64.b64encode(image_path(name).read_bytes()).decode()} for name in IMAGES]
    with running(serving, tmp_path / "log") as server:

        def answered(version: int) -> list[np.ndarray]:
            path = f"/v1/models/tiny/versions/{version}:predict"
            predictions = server.client.post(path, json={"instances": rows}).json()["predictions"]
            found = [base64.b64decode(row["mask_bytes"]["b64"]) for row in predictions]
            return [np.asarray(Image.open(io.BytesIO(mask))) for mask in found]

        assert agreement(answered(3), masks(HOME / "plain/masks/1")) > 0.99
        ask("plain", "rollback", "--to", "2")
        server.until(lambda: server.states().get("4") == "AVAILABLE")
        assert agreement(answered(4), masks(HOME / "plain/masks/2")) > 0.99


@pytest.mark.long
def test_training_goes_on_above_what_was_served():
    """From other code, or another checkout, a training starts anew; what the killed one has saved waits until then."""
    workspace = HOME / "plain/workspace"
    checkpoints = contents(workspace / "checkpoints")
    too_small = ("--set", "validation.max_side=20")
    failed = in_process("run", *configured("plain"), *UNFINISHED, *too_small, *at("plain"))
    assert (failed.returncode, "the data breaks its schema" in failed.stderr) == (1, True), failed.stderr
    assert contents(workspace / "checkpoints") >= checkpoints

    keep_little = ("--set", "push.keep=1", "--set", "retention.keep_runs=1")
    scheduled = command_line(
        *("schedule", "--once", *configured("plain"), *UNFINISHED, *ANY_MODEL, *keep_little, *at("plain"))
    )
    assert scheduled.returncode == 0, scheduled.stderr

    summary = json.loads((workspace / "runs/latest/summary.json").read_text())
    assert (summary["pushed_version"], summary["baseline"]["version"]) == (4, 3)
    assert summary["model"]["planned_steps"] == 300
    newest, before = json.loads(ask("plain", "schedule", "--status", "--json"))["runs"]
    assert [(run["id"], run["cause"], run["result"], run["version"]) for run in (newest, before)] == [
        (2, "once", "pushed", 4),
        (1, "data", "pushed", 2),
    ]
    status = json.loads(ask("plain", "status", "--json"))
    assert status["serving"] == {"tiny": [2, 4]}, "version 2 is pinned"
    pinned = json.loads(ask("plain", "lineage", "2", "--json"))
    assert [run["run_id"] for run in status["runs"]] == [summary["run_id"], pinned["run_id"]]
    assert not pinned["data"][0]["examples"]["removed"]
    assert json.loads(ask("plain", "lineage", "4", "--json"))["evaluation"]["baseline_version"] == 3
    assert json.loads(ask("plain", "lineage", "1", "--json"))["removed"]


@pytest.mark.long
def test_a_new_span_trains_the_old_model_on():
    ask("spans", "run", *configured("spans"), *ANY_MODEL)

    summary = json.loads((HOME / "spans/workspace/runs/latest/summary.json").read_text())
    assert (summary["pushed_version"], summary["baseline"]["version"], summary["model"]["started_from"]) == (3, 2, 2)
    assert (summary["data"]["spans"], summary["data"]["replayed"]) == ([3], {"span-1": 2, "span-2": 2})
    assert summary["data"]["images"] == {"train": 6, "val": 1, "test": 1}
