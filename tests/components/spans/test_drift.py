"""What is measured between spans, what is found, and what the validator does with it."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import statistics_pb2
from tfx.types import standard_artifacts
from tfx.types.artifact import Artifact

from components.artifacts import Spans
from components.config import DriftConfig, EvaluationConfig, ValidationConfig
from components.spans.drift import STATISTICS_FILE, SpanDrift, measure_drift, read_drift
from components.spans.records import WINDOW_FILE, SpanRecord, WindowRecord, columns_file
from components.validation.schema import DataSchema
from components.validation.validator import StrictExampleValidator
from data import features
from data.errors import DataError
from data.labels import ClassLabel, LabelMap
from data.masks import UNKNOWN_LABEL
from tests.components.conftest import artifact, channel, run_node

CLASSES = ("sky", "road", "car")
AREA = 100


def images(
    count: int,
    seed: int = 0,
    shares: Iterable[float] = (0.5, 0.3, 0.2),
    brightness: float = 0.5,
    side: int = 10,
    void: float = 0.0,
) -> pd.DataFrame:
    """Scalar columns of images that all have the same shares of classes."""
    random = np.random.default_rng(seed)
    pixels = {features.pixels_key(name): int(AREA * share) for name, share in zip(CLASSES, shares, strict=True)}
    return pd.DataFrame(
        {
            "split": "train",
            features.SOURCE: "all",
            features.HEIGHT: side,
            features.WIDTH: 10,
            features.BRIGHTNESS: random.normal(brightness, 0.05, count).astype(np.float32),
            features.CONTRAST: random.normal(0.2, 0.02, count).astype(np.float32),
            features.VOID_FRACTION: (random.uniform(0, 0.1, count) + void).astype(np.float32),
            **pixels,
        }
    )


def span(number: int, role: str = "window", **settings: object) -> SpanRecord:
    values: dict = {"images": {}, "bad": {}, "cached": False, "fingerprint": "", "folder": "", **settings}
    return SpanRecord(number=number, version=0, name=f"span-{number}", role=role, **values)


def window(*spans: SpanRecord, repeated: float = 0.0) -> WindowRecord:
    return WindowRecord(spans=list(spans), skipped={}, repeated=repeated)


def findings(newest: pd.DataFrame, older: pd.DataFrame, config: DriftConfig | None = None) -> list[str]:
    """What is wrong with a span that comes after another one."""
    frames = {"span-1": older, "span-2": newest}
    return measure_drift(window(span(1), span(2)), frames, CLASSES, config or DriftConfig()).findings


def test_spans_alike_have_small_distances_and_no_finding():
    made = measure_drift(
        window(span(1, "reference"), span(2), span(3)),
        {"span-1": images(60, 1), "span-2": images(60, 2), "span-3": images(60, 3)},
        CLASSES,
        DriftConfig(),
    )

    assert made.findings == []
    assert (made.newest, made.compared_with) == ("span-3", ["span-1", "span-2"])
    assert {item.column for item in made.comparisons} == {
        "class",
        features.HEIGHT,
        features.WIDTH,
        features.BRIGHTNESS,
        features.CONTRAST,
        features.VOID_FRACTION,
    }
    assert all(item.value < 0.15 for item in made.comparisons)
    assert [summary.name for summary in made.spans] == ["span-1", "span-2", "span-3"]


def test_class_frequencies_are_compared_by_their_shares_of_the_pixels():
    made = measure_drift(
        window(span(1), span(2)),
        {"span-1": images(40, shares=(0.5, 0.3, 0.2)), "span-2": images(80, shares=(0.1, 0.3, 0.6))},
        CLASSES,
        DriftConfig(),
    )

    (distance,) = (item for item in made.comparisons if item.column == "class")
    assert distance.value == pytest.approx(0.4, abs=1e-6)
    assert made.findings == [
        "class drifted: L-infinity distance 0.400 from the spans before, more than "
        "validation.drift.class_frequencies=0.3"
    ]
    assert made.spans[1].class_shares == pytest.approx({"sky": 0.1, "road": 0.3, "car": 0.6})


@pytest.mark.parametrize(
    ("change", "column", "field"),
    [
        ({"brightness": 0.8}, "brightness", "brightness"),
        ({"side": 20}, "height", "image_size"),
        ({"void": 0.5}, "void_fraction", "void_fraction"),
    ],
)
def test_a_changed_distribution_is_named_with_its_threshold(change: dict, column: str, field: str):
    (finding,) = findings(images(50, 1, **change), images(50, 2))

    assert finding.startswith(f"{column} drifted: Jensen-Shannon divergence ")
    assert f"validation.drift.{field}=" in finding
    assert findings(images(50, 1, **change), images(50, 2), DriftConfig(**{field: 1.0})) == []


def test_few_images_are_not_compared():
    assert findings(images(29, 1, brightness=0.9), images(50, 2)) == []
    assert findings(images(50, 1, brightness=0.9), images(29, 2)) == []
    assert findings(images(29, 1, brightness=0.9), images(29, 2), DriftConfig(min_images=29))


def test_a_class_that_many_images_should_hold_and_none_does_has_vanished():
    older = images(40)
    older.loc[4:, features.pixels_key("car")] = 0  # a tenth of the images has a car
    without = images(70, shares=(0.6, 0.4, 0.0))

    # 0.9^65 = 0.00106, 0.9^66 = 0.00096
    assert findings(without[:65], older) == []
    (finding,) = findings(without[:66], older)
    assert finding.startswith("class 'car' vanished: it is in 10% of the images before and in none of 66")
    assert findings(without, older, DriftConfig(vanished_class=0.0)) == []


def test_new_classes_and_duplicates_are_found_even_in_a_first_span():
    record = window(
        span(1, bad={UNKNOWN_LABEL: 3, "size mismatch": 1}, unknown_label="span-1/a.png: label outside"), repeated=0.25
    )

    made = measure_drift(record, {"span-1": images(5)}, CLASSES, DriftConfig())

    assert made.findings == [
        "new class: 3 images hold a label that the label map lacks, such as span-1/a.png: label outside",
        "duplicates: 25% of the images are there twice or in another span too, more than validation.drift.repeated=0.1",
    ]
    assert (made.compared_with, made.comparisons, made.spans[0].bad) == ([], [], 4)


def test_a_span_in_numbers():
    frame = images(3, shares=(0.5, 0.5, 0.0))
    frame[features.BRIGHTNESS] = np.array([0.1, 0.2, 0.6], np.float32)

    (summary,) = measure_drift(window(span(7)), {"span-7": frame}, CLASSES, DriftConfig()).spans

    assert (summary.name, summary.number, summary.images) == ("span-7", 7, 3)
    assert summary.class_images == {"sky": 1.0, "road": 1.0, "car": 0.0}
    brightness = summary.columns[features.BRIGHTNESS]
    assert brightness.mean == pytest.approx(0.3)
    assert brightness.quantiles == pytest.approx((0.1, 0.15, 0.2, 0.4, 0.6))


@pytest.fixture(scope="module")
def drift(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The measured drift of a span that is far too bright."""
    folder = tmp_path_factory.mktemp("drift")
    spans = artifact(Spans, folder / "spans")
    record = window(span(1), span(2))
    (folder / "spans" / WINDOW_FILE).write_text(record.model_dump_json())
    (folder / "spans" / "pictures").mkdir()
    for item, frame in zip(record.spans, (images(40, 1), images(40, 2, brightness=0.9)), strict=True):
        pyarrow.parquet.write_table(pa.Table.from_pandas(frame), columns_file(spans.uri, item))
    labels = LabelMap(classes=tuple(ClassLabel(name=name) for name in CLASSES))
    node = SpanDrift(
        spans=channel(spans),
        config=DriftConfig(),
        label_map=labels,
    )
    return run_node(node, folder)["drift"]


def test_the_numbers_are_kept_with_tfdvs_statistics_of_each_span(drift: Artifact):
    made = read_drift(drift.uri)

    assert [finding.partition(":")[0] for finding in made.findings] == ["brightness drifted"]
    listed = statistics_pb2.DatasetFeatureStatisticsList.FromString(Path(drift.uri, STATISTICS_FILE).read_bytes())
    assert [(data.name, data.num_examples) for data in listed.datasets] == [("span-1", 40), ("span-2", 40)]


def validate(drift: Artifact | None, on_drift: str | None, folder: Path) -> None:
    """Runs the validator on statistics that break no schema."""
    labels = LabelMap(classes=tuple(ClassLabel(name=name) for name in CLASSES))
    schema = DataSchema(validation=ValidationConfig(min_side=1), label_map=labels)
    made = run_node(schema, folder)["schema"]
    statistics = artifact(standard_artifacts.ExampleStatistics, folder / "statistics")
    statistics.split_names = '["train"]'
    (folder / "statistics" / "Split-train").mkdir()
    frame = images(5).drop(columns="split")
    proto = tfdv.generate_statistics_from_dataframe(frame, n_jobs=1)
    (folder / "statistics" / "Split-train" / "FeatureStats.pb").write_bytes(proto.SerializeToString())
    node = StrictExampleValidator(
        statistics=channel(statistics),
        schema=channel(made),
        evaluation=EvaluationConfig(),
        drift=channel(drift) if drift else None,
        on_drift=on_drift,
    )
    run_node(node, folder)


def test_drift_stops_the_run_with_what_to_do(drift: Artifact, tmp_path: Path):
    with pytest.raises(DataError) as caught:
        validate(drift, "stop", tmp_path)

    first, finding, advice = str(caught.value).splitlines()
    assert first == "span span-2 is not like the data before it (compared with span-1):"
    assert finding.startswith("  brightness drifted: ")
    assert "validation.on_drift=warn" in advice


def test_drift_may_be_let_pass(drift: Artifact, tmp_path: Path):
    validate(drift, "warn", tmp_path)


def test_without_spans_nothing_is_asked_of_drift(tmp_path: Path):
    validate(None, None, tmp_path)
