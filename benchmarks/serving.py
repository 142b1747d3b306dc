"""Load on the embedded server: throughput and latency against calling the SavedModel directly, and no failed request
while versions come and go.

Usage: PYTHONPATH=. python benchmarks/serving.py [--workspace workspace] [--seconds 60] [--swap-every 20] [--clients 2]

Without --workspace the model is a MobileNetV2 network with random weights: as fast as a trained one. The images
are those of the sample dataset. Server and clients share the machine. Ends with status 1 if any request failed.
"""

import argparse
import base64
import io
import itertools
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from components.publishing.directory import prune, publish, published
from data.synthetic import render
from pipeline.rollback import choose_serving_dir

NAME = "bench"
IMAGES = 32
ROUNDS, ROUND_SECONDS = 3, 5.0
BATCH = 8

Call = Callable[[int], None]


@dataclass
class Result:
    """The result of one kind of load."""

    images_per_call: int = 1
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """CPU time of all threads of the process that computes; it depends little on what else the machine does."""
    latencies: list[float] = field(default_factory=list)
    """Latency of each call, in seconds."""
    errors: list[str] = field(default_factory=list)

    def measure(self, call: Call, threads: int, seconds: float, pid: int) -> None:
        """Calls a function from several threads, without a pause, for some time; adds to what was measured before."""
        numbers = itertools.count()
        started, cpu = time.perf_counter(), cpu_seconds(pid)

        def work() -> None:
            while time.perf_counter() - started < seconds:
                begun = time.perf_counter()
                try:
                    call(next(numbers))
                except Exception as error:  # noqa: BLE001 - whatever it is, it is counted and shown.
                    self.errors.append(f"{type(error).__name__}: {error}")
                self.latencies.append(time.perf_counter() - begun)

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        self.seconds += time.perf_counter() - started
        self.cpu_seconds += cpu_seconds(pid) - cpu

    @property
    def images(self) -> int:
        """Number of answered images."""
        return (len(self.latencies) - len(self.errors)) * self.images_per_call


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def sample_images() -> list[bytes]:
    """JPEG files of different sizes."""
    found = []
    for index in range(IMAGES):
        stream = io.BytesIO()
        Image.fromarray(render(index)[0]).save(stream, "JPEG", quality=90)
        found.append(stream.getvalue())
    return found


def export_random_model(path: Path) -> None:
    """A model of the default configuration, untrained."""
    from data.config import PreprocessConfig
    from data.labels import ClassLabel, LabelMap
    from models.config import ModelConfig
    from models.export.saved_model import export_saved_model
    from models.network.deeplab import build_model

    labels = LabelMap(classes=tuple(ClassLabel(name=f"class {number}") for number in range(8)))
    export_saved_model(build_model(ModelConfig(), 8), path, label_map=labels, preprocess=PreprocessConfig())


def direct_calls(model: Path, images: list[bytes]) -> tuple[Call, Call]:
    """The signature, called in this process: with one image, and with BATCH images."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(model))
    signature = loaded.signatures["serving_default"]

    def one(number: int) -> None:
        signature(image_bytes=tf.constant([images[number % IMAGES]]))["mask_bytes"].numpy()

    def batch(number: int) -> None:
        chosen = [images[(number * BATCH + offset) % IMAGES] for offset in range(BATCH)]
        signature(image_bytes=tf.constant(chosen))["mask_bytes"].numpy()

    return one, batch


def server_call(client: httpx.Client, images: list[bytes]) -> Call:
    """A request with one image by TensorFlow Serving's REST API."""
    bodies = [{"instances": [{"b64": base64.b64encode(image).decode()}]} for image in images]

    def ask(number: int) -> None:
        response = client.post(f"/v1/models/{NAME}:predict", json=bodies[number % IMAGES])
        response.raise_for_status()
        base64.b64decode(response.json()["predictions"][0]["mask_bytes"]["b64"])

    return ask


@contextmanager
def serving(root: Path, log: Path) -> Iterator[tuple[str, int]]:
    """The server as a separate process; yields its address and process id."""
    command = [sys.executable, "local_runner.py", "serve", "--serving", str(root), "--port", "0"]
    with log.open("w") as output, subprocess.Popen(command, stderr=output) as process:
        try:
            yield address(log, process), process.pid
        finally:
            process.terminate()
            process.wait(60)


def address(log: Path, process: subprocess.Popen[bytes]) -> str:
    """Where the server listens, once it is ready."""
    while process.poll() is None:
        found = re.search(r"http://\S+", log.read_text())
        if found and httpx.get(f"{found[0]}/v2/health/ready", trust_env=False).is_success:
            return found[0]
        time.sleep(0.2)
    raise SystemExit(f"the server ended:\n{log.read_text()}")


def resident(pid: int) -> int:
    """Memory of a process, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) // 1024  # type: ignore[index]


@contextmanager
def swapping(model: Path, directory: Path, every: float) -> Iterator[list[int]]:
    """Pushes the model as a new version at a fixed interval; yields the versions pushed."""
    stop, pushed = threading.Event(), []

    def work() -> None:
        while not stop.wait(every):
            pushed.append(publish(str(model), str(directory), [], extra={}).version)
            prune(str(directory), keep=2)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield pushed
    finally:
        stop.set()
        thread.join()


def measure(model: Path, options: argparse.Namespace, folder: Path) -> dict[str, Result]:
    """All kinds of load; those that are compared take turns, so that a busy spell of the machine meets all."""
    directory, images, own = folder / "serving" / NAME, sample_images(), os.getpid()
    publish(str(model), str(directory), [], extra={})
    with (
        serving(folder / "serving", folder / "log") as (url, pid),
        httpx.Client(base_url=url, timeout=60, trust_env=False) as client,
    ):
        one, batch = direct_calls(model, images)
        ask, many = server_call(client, images), options.clients
        for number in range(IMAGES):
            one(number), ask(number)
        loads = {
            "SavedModel, 1 thread": (one, 1, own),
            f"SavedModel, {many} threads": (one, many, own),
            f"SavedModel, {BATCH} images a call": (batch, 1, own),
            "server, 1 client": (ask, 1, pid),
            f"server, {many} clients": (ask, many, pid),
        }
        results = {name: Result(BATCH if call is batch else 1) for name, (call, _, _) in loads.items()}
        for _ in range(ROUNDS):
            for name, (call, threads, process) in loads.items():
                results[name].measure(call, threads, ROUND_SECONDS, process)
        results["the same, versions swapped"] = swapped = Result()
        before = resident(pid)
        with swapping(model, directory, options.swap_every) as pushed:
            swapped.measure(ask, many, options.seconds, pid)
        loaded = re.search(r'loads_total\{result="loaded"\} (\d+)', client.get("/metrics").text)
        print(f"versions pushed: {len(pushed)}, loaded: {int(loaded[1]) - 1 if loaded else 0}")
        print(f"memory of the server: {before} MiB before the swaps, {resident(pid)} MiB after")
    return results


def show(results: dict[str, Result]) -> None:
    """Prints a table."""
    table = Table("", "images/s", "p50 ms", "p99 ms", "max ms", "CPU ms a image", "calls", "errors")
    for name, result in results.items():
        latencies = (f"{1000 * value:.0f}" for value in np.percentile(result.latencies, [50, 99, 100]))
        rate, cpu = result.images / result.seconds, 1000 * result.cpu_seconds / max(result.images, 1)
        counts = str(len(result.latencies)), str(len(result.errors))
        table.add_row(name, f"{rate:.1f}", *latencies, f"{cpu:.0f}", *counts)
    Console(width=120).print(table)


def main() -> None:
    """Measures, prints, and fails if a request did."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workspace", type=Path, help="takes the model that is served there")
    parser.add_argument("--seconds", type=float, default=60, help="of load with swaps")
    parser.add_argument("--swap-every", type=float, default=20, help="seconds between versions")
    parser.add_argument("--clients", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.workspace:
            model = Path(published(choose_serving_dir(str(options.workspace / "serving"), None))[-1].path)
        else:
            model = folder / "model"
            export_random_model(model)
        results = measure(model, options, folder)
    show(results)
    errors = [error for result in results.values() for error in result.errors]
    if errors:
        raise SystemExit(f"{len(errors)} requests failed, first: {errors[0]}")


if __name__ == "__main__":
    main()
