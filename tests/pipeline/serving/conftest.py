"""A tiny model, a serving directory with it, and the server as a process of its own."""

import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from components.publishing.directory import ModelVersion, publish

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("sky", "road", "tree & <bush>")

StartServer = Callable[..., AbstractContextManager["Server"]]


def blocks(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Random blocks of 8 x 8 pixels, (height, width, 3) uint8."""
    colors = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
    return colors.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]


def encode(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel whose random classes vary over a picture."""
    import keras

    from data.config import PreprocessConfig
    from data.labels import ClassLabel, LabelMap
    from models.config import ModelConfig
    from models.export.saved_model import export_saved_model
    from models.network.deeplab import build_model

    keras.utils.set_random_seed(0)
    config = ModelConfig(width=0.35, aspp_channels=8, decoder_channels=8, low_level_channels=4, batch_norm_momentum=0.0)
    model = build_model(config, len(NAMES), mean=[120, 110, 100], variance=[3000, 2900, 3100])
    model(np.stack([blocks(64, 64, seed) for seed in range(4)]), training=True)
    model.classifier.kernel.assign(model.classifier.kernel * 100.0)
    path = tmp_path_factory.mktemp("saved") / "model"
    labels = LabelMap(classes=tuple(ClassLabel(name=name) for name in NAMES))
    export_saved_model(model, path, label_map=labels, preprocess=PreprocessConfig())
    return path


@dataclass(frozen=True)
class ServingDirectory:
    """The serving directory of the model `tiny`, to which versions are pushed."""

    root: Path
    saved_model: Path

    def push(self, model: Path | None = None) -> ModelVersion:
        return publish(str(model or self.saved_model), str(self.root / "tiny"), list(NAMES), extra={})


@pytest.fixture
def directory(saved_model: Path, tmp_path: Path) -> ServingDirectory:
    """With version 1."""
    serving = ServingDirectory(tmp_path / "serving", saved_model)
    serving.push()
    return serving


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    process: subprocess.Popen[str]
    client: httpx.Client
    log: Path

    def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def ready(self) -> bool:
        return self.client.get("/v2/health/ready").status_code == 200

    def states(self) -> dict[str, str]:
        found = self.client.get("/v1/models/tiny").json()["model_version_status"]
        return {entry["version"]: entry["state"] for entry in found}


@contextmanager
def running(root: Path, log: Path, *arguments: str, token: str = "", **settings: object) -> Iterator[Server]:
    """`local_runner.py serve` on a free port, ready to answer."""
    options = [part for name, value in settings.items() for part in ("--set", f"serving.{name}={value}")]
    protected = ["--token-env", "TOKEN"] if token else []
    command = [sys.executable, "local_runner.py", "serve", "--serving", str(root), "--port", "0"]
    environment = {**os.environ, "TOKEN": token}
    with (
        log.open("w") as output,
        subprocess.Popen(
            [*command, *protected, *options, *arguments], stderr=output, text=True, cwd=ROOT, env=environment
        ) as process,
    ):
        try:
            address = _address(process, log)
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            with httpx.Client(base_url=address, headers=headers, timeout=60, trust_env=False) as client:
                server = Server(process, client, log)
                server.until(server.ready)
                yield server
        finally:
            process.kill()


def _address(process: subprocess.Popen[str], log: Path) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"http://\S+", log.read_text()):
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"the server does not listen:\n{log.read_text()}")


@pytest.fixture(scope="session")
def protected(saved_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a token and small limits, shared by tests that change nothing."""
    folder = tmp_path_factory.mktemp("protected")
    directory = ServingDirectory(folder / "serving", saved_model)
    directory.push()
    limits = {"max_body_bytes": 1_000_000, "max_pixels": 40_000}
    with running(directory.root, folder / "log", token="secret", **limits) as server:
        yield server
