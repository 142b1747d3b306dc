"""SpanDrift: measures how the newest span differs from those before it. `StrictExampleValidator` judges it.

Measuring and judging are apart, so that the numbers of a span that stops a run are there for its report.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import tensorflow_data_validation as tfdv
from absl import logging
from pydantic import BaseModel, ConfigDict
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter

from components.artifacts import Drift, Spans
from components.config import DriftConfig
from components.function_component import function_component
from components.spans.records import WindowRecord, read_pictures, read_window
from components.storage.atomic import create
from components.storage.file_systems import file_system
from data import features
from data.labels import LabelMap
from data.masks import UNKNOWN_LABEL

DRIFT_FILE = "drift.json"
STATISTICS_FILE = "statistics.pb"

JENSEN_SHANNON = "Jensen-Shannon divergence"
L_INFINITY = "L-infinity distance"

#: The columns of the frame by which TFDV compares class frequencies: a class, and how much it weighs.
CLASS, PIXELS = "class", "pixels"

#: Column -> field of `DriftConfig` with its threshold.
THRESHOLDS = {
    features.HEIGHT: "image_size",
    features.WIDTH: "image_size",
    features.BRIGHTNESS: "brightness",
    features.CONTRAST: "contrast",
    features.VOID_FRACTION: "void_fraction",
}
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


class Column(BaseModel):
    """How a scalar column is spread over the images of a span."""

    model_config = ConfigDict(frozen=True)

    mean: float
    quantiles: tuple[float, ...]
    """At `QUANTILES`."""


class SpanSummary(BaseModel):
    """One span in numbers."""

    model_config = ConfigDict(frozen=True)

    name: str
    number: int
    version: int
    images: int
    bad: int
    class_shares: dict[str, float]
    """Class -> share of the labelled pixels."""
    class_images: dict[str, float]
    """Class -> share of the images that have it."""
    columns: dict[str, Column]


class Comparison(BaseModel):
    """One distance between the newest span and all before it."""

    model_config = ConfigDict(frozen=True)

    column: str
    """Of the examples; `class` for the class frequencies."""
    measure: str
    value: float
    threshold: float


class DriftRecord(BaseModel):
    """`drift.json`."""

    model_config = ConfigDict(frozen=True)

    newest: str
    compared_with: list[str]
    """Names of the older spans."""
    spans: list[SpanSummary]
    """Oldest first, the newest last."""
    comparisons: list[Comparison]
    """Empty where there are too few images, or nothing to compare with."""
    findings: list[str]
    """What is wrong, a line each."""


def read_drift(drift_uri: str) -> DriftRecord:
    """The record in a `Drift` artifact."""
    with file_system(drift_uri).open(os.path.join(drift_uri, DRIFT_FILE)) as file:
        return DriftRecord.model_validate_json(file.read())


def class_pixels(images: pd.DataFrame, class_names: tuple[str, ...]) -> "pd.Series[int]":
    """Class -> pixels in all images together."""
    return pd.Series({name: int(images[features.pixels_key(name)].sum()) for name in class_names})


def statistics(
    frame: pd.DataFrame, name: str, weight: str | None = None
) -> statistics_pb2.DatasetFeatureStatisticsList:
    """TFDV's statistics of a frame, as a data set of that name."""
    options = tfdv.StatsOptions(weight_feature=weight)
    made = tfdv.generate_statistics_from_dataframe(frame, options, n_jobs=1)
    made.datasets[0].name = name
    return made


def scalar_statistics(images: pd.DataFrame, name: str) -> statistics_pb2.DatasetFeatureStatisticsList:
    """TFDV's statistics of the columns that are compared."""
    return statistics(images[list(THRESHOLDS)], name)


def class_statistics(pixels: "pd.Series[int]", name: str) -> statistics_pb2.DatasetFeatureStatisticsList:
    """TFDV's statistics of one column, the class of a pixel."""
    frame = pd.DataFrame({CLASS: list(pixels.index), PIXELS: pixels.to_numpy(float)})
    return statistics(frame, name, weight=PIXELS)


def scalar_schema(config: DriftConfig) -> schema_pb2.Schema:
    """Thresholds of the scalar columns."""
    schema = schema_pb2.Schema()
    for column, field in THRESHOLDS.items():
        kind = schema_pb2.INT if column in (features.HEIGHT, features.WIDTH) else schema_pb2.FLOAT
        feature = schema.feature.add(name=column, type=kind)
        feature.drift_comparator.jensen_shannon_divergence.threshold = getattr(config, field)
    return schema


def class_schema(config: DriftConfig) -> schema_pb2.Schema:
    """The threshold of the class frequencies."""
    schema = schema_pb2.Schema()
    feature = schema.feature.add(name=CLASS, type=schema_pb2.BYTES)
    feature.drift_comparator.infinity_norm.threshold = config.class_frequencies
    schema.feature.add(name=PIXELS, type=schema_pb2.FLOAT)
    return schema


def measured(
    schema: schema_pb2.Schema,
    newest: statistics_pb2.DatasetFeatureStatisticsList,
    older: statistics_pb2.DatasetFeatureStatisticsList,
) -> Iterator[Comparison]:
    """The distances that TFDV's drift comparators find, with their thresholds."""
    anomalies = tfdv.validate_statistics(newest, schema, previous_statistics=older)
    l_infinity = anomalies_pb2.DriftSkewInfo.Measurement.L_INFTY
    for info in anomalies.drift_skew_info:
        for distance in info.drift_measurements:
            measure = L_INFINITY if distance.type == l_infinity else JENSEN_SHANNON
            yield Comparison(
                column=info.path.step[0], measure=measure, value=distance.value, threshold=distance.threshold
            )


def compare(
    newest: pd.DataFrame, older: pd.DataFrame, class_names: tuple[str, ...], config: DriftConfig
) -> list[Comparison]:
    """All distances between the images of the newest span and those of the spans before."""
    if min(len(newest), len(older)) < config.min_images:
        return []
    pixels = [class_pixels(images, class_names) for images in (newest, older)]
    new_class, old_class = (class_statistics(counts, "") for counts in pixels)
    scalars = measured(scalar_schema(config), scalar_statistics(newest, ""), scalar_statistics(older, ""))
    return [*measured(class_schema(config), new_class, old_class), *scalars]


def vanished(
    newest: pd.DataFrame, older: pd.DataFrame, class_names: tuple[str, ...], config: DriftConfig
) -> Iterator[str]:
    """Names the classes that the newest span lacks, though that many images should hold one of them by chance."""
    for name in class_names:
        column = features.pixels_key(name)
        share = float((older[column] > 0).mean())
        if not (newest[column] > 0).any() and (1.0 - share) ** len(newest) < config.vanished_class:
            yield (
                f"class {name!r} vanished: it is in {share:.0%} of the images before and in none of {len(newest)} "
                f"(validation.drift.vanished_class={config.vanished_class:g})"
            )


def findings(
    record: WindowRecord,
    images: Mapping[str, pd.DataFrame],
    comparisons: list[Comparison],
    class_names: tuple[str, ...],
    config: DriftConfig,
) -> Iterator[str]:
    """What is wrong with the newest span, a line each."""
    newest = record.newest
    unknown = newest.bad.get(UNKNOWN_LABEL, 0)
    if unknown:
        yield f"new class: {unknown} images hold a label that the label map lacks, such as {newest.unknown_label}"
    if record.repeated > config.repeated:
        yield (
            f"duplicates: {record.repeated:.0%} of the images are there twice or in another span too, more than "
            f"validation.drift.repeated={config.repeated:g}"
        )
    if record.older:
        older = pd.concat([images[span.name] for span in record.older])
        yield from vanished(images[newest.name], older, class_names, config)
    for item in comparisons:
        if item.value > item.threshold:
            field = THRESHOLDS.get(item.column, "class_frequencies")
            yield (
                f"{item.column} drifted: {item.measure} {item.value:.3f} from the spans before, more than "
                f"validation.drift.{field}={item.threshold:g}"
            )


def summarize_span(
    name: str, number: int, version: int, bad: int, images: pd.DataFrame, class_names: tuple[str, ...]
) -> SpanSummary:
    """A span in numbers, for tables and plots."""
    pixels = class_pixels(images, class_names)
    return SpanSummary(
        name=name,
        number=number,
        version=version,
        images=len(images),
        bad=bad,
        class_shares=(pixels / max(pixels.sum(), 1)).to_dict(),
        class_images={name: float((images[features.pixels_key(name)] > 0).mean()) for name in class_names},
        columns={
            column: Column(
                mean=float(images[column].mean()),
                quantiles=tuple(float(images[column].quantile(q)) for q in QUANTILES),
            )
            for column in THRESHOLDS
        },
    )


def measure_drift(
    record: WindowRecord, images: Mapping[str, pd.DataFrame], class_names: tuple[str, ...], config: DriftConfig
) -> DriftRecord:
    """Compares the newest span of a run with those before it.

    Args:
        record: The spans of the run.
        images: Name of a span -> scalar columns of its images.
        class_names: In the order of their ids.
        config: What is too much.
    """
    newest, older = record.newest, record.older
    comparisons = []
    if older:
        before = pd.concat([images[span.name] for span in older])
        comparisons = compare(images[newest.name], before, class_names, config)
    return DriftRecord(
        newest=newest.name,
        compared_with=[span.name for span in older],
        spans=[
            summarize_span(span.name, span.number, span.version, sum(span.bad.values()), images[span.name], class_names)
            for span in [*older, newest]
        ],
        comparisons=comparisons,
        findings=list(findings(record, images, comparisons, class_names, config)),
    )


@function_component()
def SpanDrift(
    spans: InputArtifact[Spans],
    drift: OutputArtifact[Drift],
    config: Parameter[str],
    label_map: Parameter[str],
    code_hash: Parameter[str],
) -> None:
    """Writes a `Drift` artifact; `config` and `label_map` are the JSON of section `validation.drift` and of the map."""
    record = read_window(spans.uri)
    images = {span.name: read_pictures(spans.uri, span) for span in [*record.older, record.newest]}
    made = measure_drift(
        record, images, LabelMap.model_validate_json(label_map).names, DriftConfig.model_validate_json(config)
    )
    for finding in made.findings:
        logging.warning("span %s: %s", made.newest, finding)
    listed = statistics_pb2.DatasetFeatureStatisticsList()
    for name, frame in images.items():
        listed.datasets.extend(scalar_statistics(frame, name).datasets)
    files: dict[str, Any] = {
        DRIFT_FILE: made.model_dump_json(indent=2).encode(),
        STATISTICS_FILE: listed.SerializeToString(deterministic=True),
    }
    for name, content in files.items():
        with create(os.path.join(drift.uri, name)) as file:
            file.write(content)
