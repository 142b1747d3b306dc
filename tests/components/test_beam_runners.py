"""ExampleGen, StatisticsGen, Transform and Evaluator give the same on every Beam runner.

The workers of all runners but the direct one are processes of their own.
"""

import json
from collections.abc import Callable
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

from components.artifacts import PRESENT
from components.config import EvaluationConfig, ValidationConfig
from components.evaluation.evaluator import SegmentationEvaluator
from components.evaluation.results import SliceKey, read_scores
from components.ingest.example_gen import ImageExampleGen
from components.transform import CLASS_PIXELS, ImageTransform
from components.validation.schema import DataSchema
from data import features
from data.config import PreprocessConfig
from data.labels import LabelMap
from data.layouts.base import SPLITS
from models.metrics.scores import SliceScores
from pipeline.sections.beam import BeamConfig
from tests.components.conftest import artifact, channel, read_split, resolved, run_node

pytestmark = pytest.mark.long


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
    config = resolved(dataset)

    def run(node: Any, name: str) -> dict[str, Artifact]:
        return run_node(node, folder / name, beam.arguments())

    examples = run(ImageExampleGen(config), "examples")["examples"]
    options = tfdv.StatsOptions(feature_allowlist=features.scalar_keys(labels.names))
    statistics = run(StatisticsGen(channel(examples), stats_options=options), "statistics")["statistics"]
    schema = run(DataSchema(validation=ValidationConfig(), label_map=labels), "s")
    transform = run(
        ImageTransform(
            channel(examples),
            channel(schema["schema"]),
            PreprocessConfig(),
            labels,
        ),
        "transform",
    )
    absent = artifact(standard_artifacts.Model, folder / "absent")
    absent.set_int_custom_property(PRESENT, 0)
    evaluated = run(
        SegmentationEvaluator(
            channel(examples),
            channel(model),
            channel(absent),
            channel(schema["schema"]),
            EvaluationConfig(slice_by=(features.SOURCE,)),
            labels,
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
        scores=read_scores(evaluated["evaluation"].uri, labels.names).candidate,
        blessed=bool(evaluated["blessing"].get_int_custom_property("blessed")),
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
