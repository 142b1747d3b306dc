"""The curated schema finds what no segmentation dataset should hold, and the validator stops the run with it."""

from pathlib import Path

import pytest
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.components.statistics_gen.component import StatisticsGen
from tfx.types.artifact import Artifact

from components.config import EvaluationConfig, ValidationConfig
from components.validation.schema import DataSchema, make_schema
from components.validation.validator import StrictExampleValidator, read_anomalies
from data import features
from data.errors import DataError
from data.labels import ClassLabel, LabelMap
from data.layouts.base import SPLITS
from tests.components.conftest import channel, columns, read_split, run_node


@pytest.fixture(scope="module")
def statistics(examples: Artifact, labels: LabelMap, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    options = tfdv.StatsOptions(feature_allowlist=features.scalar_keys(labels.names))
    node = StatisticsGen(channel(examples), stats_options=options)
    return run_node(node, tmp_path_factory.mktemp("statistics"))["statistics"]


@pytest.fixture(scope="module")
def rows(examples: Artifact) -> dict[str, list[dict]]:
    """The columns of each split."""
    return {split: [columns(record) for record in read_split(examples, split)] for split in SPLITS}


def validate(
    statistics: Artifact,
    config: ValidationConfig,
    labels: LabelMap,
    folder: Path,
    evaluation: EvaluationConfig = EvaluationConfig(),  # noqa: B008
) -> Artifact:
    schema = DataSchema(validation=config, label_map=labels)
    made = run_node(schema, folder)["schema"]
    validator = StrictExampleValidator(channel(statistics), channel(made), evaluation)
    return run_node(validator, folder)["anomalies"]


def test_good_data_passes(statistics: Artifact, labels: LabelMap, tmp_path: Path):
    assert read_anomalies(validate(statistics, ValidationConfig(), labels, tmp_path)) == []


def test_data_at_the_bounds_passes(statistics: Artifact, labels: LabelMap, rows: dict, tmp_path: Path):
    every = [row for split in SPLITS for row in rows[split]]
    sides = [row[side] for row in every for side in (features.HEIGHT, features.WIDTH)]
    void = max(row[features.VOID_FRACTION] for row in every)
    config = ValidationConfig(min_side=min(sides), max_side=max(sides), max_void_fraction=void)

    assert read_anomalies(validate(statistics, config, labels, tmp_path)) == []


@pytest.mark.parametrize(
    ("setting", "columns_at_fault"),
    [
        ({"min_side": 1000}, (features.HEIGHT, features.WIDTH)),
        ({"max_side": 20}, (features.HEIGHT, features.WIDTH)),
        ({"max_void_fraction": 0.0001}, (features.VOID_FRACTION,)),
    ],
    ids=["too small", "too large", "too much void"],
)
def test_an_anomaly_stops_the_run_with_what_and_where(
    statistics: Artifact, labels: LabelMap, tmp_path: Path, setting: dict, columns_at_fault: tuple[str, ...]
):
    with pytest.raises(DataError) as caught:
        validate(statistics, ValidationConfig(**setting), labels, tmp_path)

    first, *lines = str(caught.value).splitlines()
    assert first == "the data breaks its schema (section `validation` of the configuration):"
    assert [line.split(": ")[0] for line in lines] == [
        f"  split {split}, column {column}" for split in SPLITS for column in sorted(columns_at_fault)
    ]
    assert all("Out-of-range values" in line for line in lines)


def test_one_bad_image_is_enough_and_its_split_is_named(
    statistics: Artifact, labels: LabelMap, rows: dict, tmp_path: Path
):
    widest = {split: max(row[features.WIDTH] for row in rows[split]) for split in SPLITS}
    allowed = sorted(widest.values())[-1] - 1
    at_fault = [split for split in SPLITS if widest[split] > allowed]
    assert 0 < len(at_fault) < 3

    with pytest.raises(DataError) as caught:
        validate(statistics, ValidationConfig(max_side=allowed), labels, tmp_path)

    lines = [line for line in str(caught.value).splitlines() if "column width" in line]
    assert [line.split(",")[0].split()[1] for line in lines] == at_fault


def test_a_column_that_is_missing_stops_the_run(statistics: Artifact, labels: LabelMap, tmp_path: Path):
    more = LabelMap(classes=(*labels.classes, ClassLabel(name="unicorn")))

    with pytest.raises(DataError, match="split train, column pixels/unicorn: Column dropped"):
        validate(statistics, ValidationConfig(), more, tmp_path)


def test_the_schema_names_every_scalar_column_and_its_bounds():
    config = ValidationConfig(min_side=32, max_side=64, max_void_fraction=0.5)

    schema = make_schema(config, ("sky", "road"))

    found = {feature.name: feature for feature in schema.feature}
    assert set(found) == {*features.scalar_keys(("sky", "road")), features.IMAGE, features.MASK}
    assert (found["height"].int_domain.min, found["width"].int_domain.max) == (32, 64)
    assert found["void_fraction"].float_domain.max == 0.5
    assert found["pixels/sky"].int_domain.min == 0
    assert found["source"].type == schema_pb2.BYTES
    assert all(found[name].presence.min_fraction == 1.0 for name in features.scalar_keys(("sky", "road")))
