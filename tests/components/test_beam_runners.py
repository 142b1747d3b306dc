"""ExampleGen, StatisticsGen, Transform and Evaluator give the same on every Beam runner.

The workers of all runners but the direct one are processes of their own. The Flink cluster is a job manager, a task
manager and Beam's job server, each its own process; its jars are fetched where DEEPLAB_TEST_FLINK is set.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
import tensorflow_transform as tft
from google.protobuf import json_format
from tfx.components.statistics_gen.component import StatisticsGen
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.artifact import Artifact

from components import baseline
from components.config import EvaluationConfig, ValidationConfig
from components.evaluation_results import SliceKey, read_scores
from components.evaluator import SegmentationEvaluator
from components.example_gen import ImageExampleGen
from components.schema import DataSchema
from components.transform import CLASS_PIXELS, ImageTransform
from data import features
from data.config import PreprocessConfig
from data.labels import LabelMap
from data.layouts.base import SPLITS
from models.scores import SliceScores
from pipeline.beam import BeamConfig
from tests.components.conftest import artifact, channel, read_split, resolved, run_node

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]

#: Seconds for a server to answer; much, for the machine may be busy.
STARTUP = 300.0


@dataclass
class Outcome:
    """What the four stages made."""

    examples: dict[str, list[bytes]]
    """Split -> its records, sorted."""
    statistics: dict[str, Any]
    """Split -> its statistics, as JSON, each column's by its name; floats to six digits."""
    transformed: dict[str, list[str]]
    """Split -> its transformed records with the analyzers' values, sorted."""
    analyzed: dict[str, np.ndarray]
    """What the transform graph computes from the first raw record."""
    scores: dict[SliceKey, SliceScores]
    blessed: bool


def run_stages(beam: BeamConfig, dataset: Path, model: Artifact, labels: LabelMap, folder: Path) -> Outcome:
    """Runs the four stages with the Beam options of a configuration."""
    config, label_map = resolved(dataset), labels.model_dump_json()

    def run(node: Any, name: str) -> dict[str, Artifact]:
        return run_node(node, folder / name, beam.arguments())

    examples = run(ImageExampleGen(config, code_hash=""), "examples")["examples"]
    options = tfdv.StatsOptions(feature_allowlist=features.scalar_keys(labels.names))
    statistics = run(StatisticsGen(channel(examples), stats_options=options), "statistics")["statistics"]
    schema = run(DataSchema(validation=ValidationConfig().model_dump_json(), label_map=label_map, code_hash=""), "s")
    transform = run(
        ImageTransform(
            channel(examples),
            channel(schema["schema"]),
            preprocess=PreprocessConfig().model_dump_json(),
            label_map=label_map,
            code_hash="",
        ),
        "transform",
    )
    absent = artifact(standard_artifacts.Model, folder / "absent")
    absent.set_int_custom_property(baseline.PRESENT, 0)
    judged = run(
        SegmentationEvaluator(
            channel(examples),
            channel(model),
            channel(absent),
            channel(schema["schema"]),
            EvaluationConfig(slice_by=(features.SOURCE,)),
            labels,
            code_hash="",
        ),
        "evaluation",
    )
    graph = tft.TFTransformOutput(transform["transform_graph"].uri)
    return Outcome(
        examples={split: sorted(read_split(examples, split)) for split in SPLITS},
        statistics={split: split_statistics(statistics, split) for split in SPLITS},
        transformed={
            split: sorted(map(example_text, read_split(transform["transformed_examples"], split)))
            for split in SPLITS[:2]
        },
        analyzed=apply_graph(graph, min(read_split(examples, SPLITS[0]))),
        scores=read_scores(judged["evaluation"].uri, labels.names).candidate,
        blessed=bool(judged["blessing"].get_int_custom_property("blessed")),
    )


def split_statistics(statistics: Artifact, split: str) -> dict[str, Any]:
    """The statistics of a split; the order of columns means nothing, nor does the last digit of a mean."""
    path = Path(artifact_utils.get_split_uri([statistics], split), "FeatureStats.pb")
    (dataset,) = tfdv.load_stats_binary(str(path)).datasets
    columns = {column.path.step[0]: rounded(json_format.MessageToDict(column)) for column in dataset.features}
    return {"num_examples": dataset.num_examples, "columns": columns}


def rounded(value: Any) -> Any:
    """JSON with its floats to six significant digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def example_text(serialized: bytes) -> str:
    """An example as text, its columns in order: serialisation leaves that open."""
    columns = json_format.MessageToDict(tf.train.Example.FromString(serialized))["features"]["feature"]
    return json.dumps(columns, sort_keys=True)


def apply_graph(graph: tft.TFTransformOutput, record: bytes) -> dict[str, np.ndarray]:
    raw = tf.io.parse_example([record], graph.raw_feature_spec())
    return {name: value.numpy() for name, value in graph.transform_features_layer()(raw).items()}


RunStages = Callable[[BeamConfig], Outcome]


@pytest.fixture(scope="module")
def run(dataset: Path, model: Artifact, labels: LabelMap, tmp_path_factory: pytest.TempPathFactory) -> RunStages:
    """Runs the four stages on a runner."""
    return lambda beam: run_stages(beam, dataset, model, labels, tmp_path_factory.mktemp(beam.runner))


@pytest.fixture(scope="module")
def direct(run: RunStages) -> Outcome:
    """What the other runners must give."""
    return run(BeamConfig())


def require_equal(one: Outcome, other: Outcome) -> None:
    assert one.examples == other.examples
    assert one.statistics == other.statistics
    assert one.transformed == other.transformed
    np.testing.assert_equal(one.analyzed, other.analyzed)
    assert one.scores.keys() == other.scores.keys()
    for key, scores in one.scores.items():
        np.testing.assert_equal(vars(scores), vars(other.scores[key]))
    assert one.blessed == other.blessed


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(log: Path, *command: str, port: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command, from the time its port answers; its output goes to a file."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)
    try:
        if port:
            wait_for(lambda: answers(port), process, log)
        yield process
    finally:
        process.terminate()
        process.wait(60)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + STARTUP
    while not ready():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)


@pytest.fixture(scope="module")
def worker_pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `local_runner.py beam-workers`, started as a person starts it."""
    port, log = free_port(), tmp_path_factory.mktemp("pool") / "log"
    with server(log, sys.executable, "local_runner.py", "beam-workers", "--port", str(port), port=port):
        yield f"localhost:{port}"


@pytest.fixture(scope="module")
def job_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of Beam's own job server, which is for tests."""
    port, log = free_port(), tmp_path_factory.mktemp("jobs") / "log"
    main = "apache_beam.runners.portability.local_job_service_main"
    with server(log, sys.executable, "-m", main, "--port", str(port), port=port):
        yield f"localhost:{port}"


@pytest.fixture(scope="module")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of Beam's job server for a Flink cluster of two slots."""
    if not os.environ.get("DEEPLAB_TEST_FLINK"):
        pytest.skip("DEEPLAB_TEST_FLINK is not set: it fetches 150 MB of jars")
    if missing := [tool for tool in ("java", "mvn") if not shutil.which(tool)]:
        pytest.skip(f"Flink needs {' and '.join(missing)}")
    jars = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "deeplab-tfx", "flink")
    subprocess.run(["deploy/flink/fetch.sh", str(jars)], cwd=ROOT, check=True)
    folder = tmp_path_factory.mktemp("flink")
    rpc, rest, jobs = free_port(), free_port(), free_port()
    ports = ["-D", f"jobmanager.rpc.port={rpc}", "-D", f"rest.port={rest}"]

    def slots() -> int:
        try:
            with urllib.request.urlopen(f"http://localhost:{rest}/overview", timeout=60) as answer:
                return int(json.load(answer)["slots-total"])
        except OSError:  # its port answers before it does
            return 0

    def start(role: str, *arguments: str, port: int | None = None) -> subprocess.Popen[bytes]:
        command = ["deploy/flink/run.sh", role, str(jars), *arguments]
        return stack.enter_context(server(folder / role, *command, port=port))

    with ExitStack() as stack:
        start("jobmanager", *ports, port=rest)
        tasks = start("taskmanager", *ports)
        wait_for(lambda: slots() == 2, tasks, folder / "taskmanager")
        addresses = ["--flink-master", f"localhost:{rest}", "--job-port", str(jobs), "--artifact-port", "0"]
        start("jobserver", *addresses, "--expansion-port", "-1", "--artifacts-dir", str(folder), port=jobs)
        yield f"localhost:{jobs}"


def test_the_direct_runner_computes_what_it_should(direct: Outcome, labels: LabelMap):
    assert {split: len(records) for split, records in direct.examples.items()} == {"train": 8, "val": 3, "test": 4}
    assert {split: s["num_examples"] for split, s in direct.statistics.items()} == {"train": 8, "val": 3, "test": 4}
    assert direct.statistics["train"]["columns"].keys() == set(features.scalar_keys(labels.names))
    assert {split: len(records) for split, records in direct.transformed.items()} == {"train": 8, "val": 3}
    assert direct.analyzed[CLASS_PIXELS].sum() > 0
    assert direct.scores[()].confusion_matrix.sum() > 0


def test_two_worker_processes_give_what_the_direct_runner_gives(run: RunStages, direct: Outcome):
    require_equal(run(BeamConfig(runner="multi_processing", workers=2)), direct)


def test_a_job_server_with_a_worker_pool_gives_what_the_direct_runner_gives(
    run: RunStages, direct: Outcome, job_server: str, worker_pool: str
):
    require_equal(run(BeamConfig(runner="portable", endpoint=job_server, worker_pool=worker_pool)), direct)


@pytest.mark.platform(reason="Flink is Java, and its jars are fetched where DEEPLAB_TEST_FLINK asks for it")
def test_a_flink_cluster_gives_what_the_direct_runner_gives(
    run: RunStages, direct: Outcome, flink: str, worker_pool: str
):
    require_equal(run(BeamConfig(runner="flink", workers=2, endpoint=flink, worker_pool=worker_pool)), direct)
