"""Several replicas train as one would: on two devices, in two processes, and after one of these was killed."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from data.errors import ConfigError, TrainingError
from models.config import TrainingConfig
from models.training.strategies import Distribution, distribute, read_cluster
from tests.models.training.distributed_training import STEPS, fit

SCRIPT = Path(__file__).with_name("distributed_training.py")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory, write_records: Callable) -> str:
    """Seven images of a bright disk on dark ground; some are mostly void, one wholly."""
    random_numbers = np.random.default_rng(0)
    pairs = []
    for number in range(7):
        size = 24 + 4 * number
        rows, columns = np.mgrid[:size, : size + 6]
        mask = (np.hypot(rows - size / 2, columns - size / 3) < size / 3).astype(np.uint8)
        pixels = 60 + 110 * mask[:, :, None] + random_numbers.normal(0, 20, (*mask.shape, 3))
        mask[: size * number // 6] = 255
        pairs.append((np.clip(pixels, 0, 255).astype(np.uint8), mask))
    return write_records(tmp_path_factory.mktemp("records") / "Split-train" / "a.gz", pairs)


@pytest.fixture(scope="module")
def expected(records: str, tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """Weights and score after a training on one device."""
    model, result, _ = fit("one_device", records, str(tmp_path_factory.mktemp("one")))
    assert result.steps == STEPS
    return [*model.get_weights(), np.array([result.history[-1].mean_iou])]


def outcome(folder: Path, worker: int) -> list[np.ndarray]:
    """Weights and score that a worker ended with."""
    with np.load(folder / f"weights{worker}.npz") as arrays:
        return [arrays[name] for name in [n for n in arrays.files if n != "score"] + ["score"]]


def assert_same(found: list[np.ndarray], expected: list[np.ndarray], **tolerance: float) -> None:
    for value, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, wanted, **tolerance)


def process(strategy: str, processors: int, records: str, *folders: Path, **environment: str) -> subprocess.Popen[str]:
    for folder in folders:
        folder.mkdir(exist_ok=True)
    command = [sys.executable, str(SCRIPT), strategy, str(processors), records, *map(str, folders)]
    root = Path(__file__).parents[3]
    with (folders[0] / "errors").open("a") as errors:
        return subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": "", **environment},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )


def free_addresses(number: int) -> list[str]:
    """Addresses on this machine at which nobody listens."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


@contextmanager
def workers(records: str, folder: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes that train together; they do not outlive this."""
    cluster = {"worker": free_addresses(2)}
    tasks = [json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}) for index in range(2)]
    started = [process("multi_worker", 1, records, folder, TF_CONFIG=task) for task in tasks]
    try:
        yield started
    finally:
        for worker in started:
            worker.kill()
            worker.wait()
            worker.stdout.close()


def test_two_devices_give_what_one_gives_time_and_again(
    tmp_path: Path, records: str, expected: list[np.ndarray]
) -> None:
    with process("mirrored", 2, records, tmp_path, tmp_path / "again") as mirrored:
        mirrored.communicate()
    assert mirrored.returncode == 0, (tmp_path / "errors").read_text()
    for folder in (tmp_path, tmp_path / "again"):
        assert_same(outcome(folder, 0), expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def undisturbed(records: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training in two processes."""
    folder = tmp_path_factory.mktemp("two")
    with workers(records, folder) as started:
        outputs = [worker.communicate()[0] for worker in started]
        assert [worker.returncode for worker in started] == [0, 0], (folder / "errors").read_text()
    # The chief alone tells.
    assert outputs[0].startswith("begin 0\nstep 1 ") and outputs[1] == ""
    return folder


def test_two_processes_end_alike_and_give_what_one_gives(undisturbed: Path, expected: list[np.ndarray]) -> None:
    assert_same(outcome(undisturbed, 0), outcome(undisturbed, 1), rtol=0)
    assert_same(outcome(undisturbed, 0), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_after_a_kill_all_workers_resume_and_end_alike(tmp_path: Path, records: str, undisturbed: Path) -> None:
    with workers(records, tmp_path) as (chief, other):
        for line in chief.stdout:
            if line.startswith("step 5"):
                other.send_signal(signal.SIGKILL)
                break
        # The chief cannot go on alone; the other one's heartbeat is missed after half a minute or so.
        assert chief.wait(timeout=180) != 0
    assert "TrainingError: worker 0 lost the others after step" in (tmp_path / "errors").read_text()
    assert not list(tmp_path.glob("*.npz"))
    with workers(records, tmp_path) as started:
        outputs = [worker.communicate()[0] for worker in started]
        assert [worker.returncode for worker in started] == [0, 0], (tmp_path / "errors").read_text()
    assert outputs[0].startswith("begin 3\nstep 4 ")
    for worker in range(2):
        assert_same(outcome(tmp_path, worker), outcome(undisturbed, worker), rtol=1e-6, atol=1e-7)


def test_a_machine_without_gpus_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["CPU:0"] if kind == "CPU" else [])
    with pytest.raises(TrainingError, match=r"'mirrored' needs at least 2 GPUs; this machine has 0\..*'one_device'"):
        distribute("mirrored")
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [f"{kind}:0"])
    with pytest.raises(TrainingError, match="this machine has 1"):
        distribute("mirrored")


def test_a_missing_cluster_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ConfigError, match=r"'multi_worker' needs .* TF_CONFIG, which is not set; an example is \{"):
        distribute("multi_worker")


def cluster(kind: str = "worker", index: object = 0, **tasks: list[str]) -> str:
    return json.dumps({"cluster": {"worker": ["a:1", "b:1"], **tasks}, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ("{}", "cannot be read .KeyError: 'cluster'"),
        (cluster(index="x"), "cannot be read"),
        (cluster(index=2), "gives this process the number 2 among the workers"),
        (cluster(index=-1), "the number -1"),
        (cluster(worker=[]), "the number 0 among the workers"),
        (cluster(kind="evaluator"), "has tasks of type evaluator; allowed are workers alone"),
        (cluster(ps=["c:1"]), "has tasks of type ps, worker"),
    ],
)
def test_a_wrong_cluster_is_told(text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        read_cluster(text)


def test_a_cluster_is_read() -> None:
    assert read_cluster(cluster(index=1)) == (["a:1", "b:1"], 1)


def test_an_absent_tpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> tf.distribute.Strategy:
        raise ValueError("Please provide a TPU Name to connect to.")

    with pytest.raises(TrainingError, match=r"'tpu' finds no TPU: Please provide a TPU Name .* TPU_NAME"):
        distribute("tpu", tpu=absent)


def test_a_tpu_is_connected_to_and_initialised_before_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver, strategy, calls = object(), tf.distribute.OneDeviceStrategy("/cpu:0"), []

    def noted(name: str, answer: object = None) -> Callable[[object], object]:
        return lambda found: calls.append((name, found)) or answer

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", lambda: resolver)
    monkeypatch.setattr(tf.config, "experimental_connect_to_cluster", noted("connect"))
    monkeypatch.setattr(tf.tpu.experimental, "initialize_tpu_system", noted("initialize"))
    monkeypatch.setattr(tf.distribute, "TPUStrategy", noted("strategy", strategy))
    assert distribute("tpu") == Distribution("tpu", strategy)
    assert calls == [(name, resolver) for name in ("connect", "initialize", "strategy")]


def test_a_tpu_is_a_strategy_like_any_other() -> None:
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    distribution = distribute("tpu", tpu=lambda: strategy)
    assert distribution == Distribution("tpu", strategy) and distribution.is_chief and distribution.replicas == 1
    assert distribution.sum_over_workers(np.array([3])).tolist() == [3]


class Replicas:
    """As many replicas as a test wants."""

    num_replicas_in_sync = 4


@pytest.mark.parametrize(("batch", "accumulation"), [(6, 1), (12, 2), (4, 2)])
def test_a_batch_that_does_not_split_is_told(batch: int, accumulation: int) -> None:
    config = TrainingConfig(strategy="mirrored", global_batch_size=batch, accumulation=accumulation)
    text = (
        f"global_batch_size {batch} does not split evenly over 4 replicas with training.accumulation {accumulation}; "
        f"allowed are multiples of {4 * accumulation}"
    )
    with pytest.raises(ConfigError, match=text):
        Distribution("mirrored", Replicas()).check(config)


def test_a_batch_that_splits_is_right() -> None:
    config = TrainingConfig(strategy="mirrored", global_batch_size=16, accumulation=2)
    Distribution("mirrored", Replicas()).check(config)
    with pytest.raises(ConfigError, match="is 'mirrored', but the replicas are those of 'one_device'"):
        Distribution("one_device", Replicas()).check(config)
