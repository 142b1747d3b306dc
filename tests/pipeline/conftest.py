"""A workspace in which the whole pipeline has run once, on a few tiny images, started as a person starts it."""

import io
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from data.synthetic import write_dataset
from local_runner import app
from pipeline.cli.application import answer
from tests.pipeline.mysql_server import Server, mysql_server

ROOT = Path(__file__).resolve().parents[2]

#: Makes every stage as short as it can be; the scores do not matter here.
TINY = {
    "model.backbone": "mobilenet_v3_small",
    "model.head": "lraspp",
    "model.width": "0.35",
    "model.aspp_channels": "8",
    "augment.crop": "48",
    "training.steps": "6",
    "training.global_batch_size": "2",
    "training.warmup_steps": "1",
    "training.eval_every": "3",
    "training.checkpoint_every": "3",
    "evaluation.allow_degenerate": "true",
    "infra.requests": "1",
    "push.model_name": "tiny",
}


def overrides(data: Path, **changes: str) -> list[str]:
    """`section.key=value` for a tiny run on a dataset."""
    return [f"{key}={value}" for key, value in {"data.path": str(data), **TINY, **changes}.items()]


def command_line(*arguments: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """Runs `local_runner.py` as a person would, in a process of its own, which imports TensorFlow and TFX anew."""
    return subprocess.run(
        [sys.executable, "local_runner.py", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        check=False,
    )


def in_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Answers a command line in this process as `local_runner.py` does, with its exit status and what it prints."""
    out, error, on_sigterm = io.StringIO(), io.StringIO(), signal.getsignal(signal.SIGTERM)
    try:
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(error):
            patch.setattr(sys, "argv", ["local_runner.py", *arguments])
            with pytest.raises(SystemExit) as ended:
                answer(app)
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)
    return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), out.getvalue(), error.getvalue())


def run_arguments(workspace: Path, settings: list[str], *more: str) -> list[str]:
    """The arguments of a `run`."""
    return ["run", "--workspace", str(workspace), *(part for s in settings for part in ("--set", s)), *more]


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every user can reach, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
        Path(folder).chmod(0o755)


@contextmanager
def as_no_root() -> Iterator[None]:
    """This process without root's right to read and write whatever it likes."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 train, 3 val and 4 test images of the sample dataset."""
    return write_dataset(tmp_path_factory.mktemp("data") / "sample", num_train=8, num_val=3, num_test=4)


@pytest.fixture(scope="session")
def mysql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A MariaDB server; the test is skipped unless DEEPLAB_TEST_MYSQL is 1."""
    with mysql_server(tmp_path_factory.mktemp("mysql")) as server:
        yield server
