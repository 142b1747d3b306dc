"""SpanDrift: measures how the newest span differs from those before it. `StrictExampleValidator` acts on it.

Two stages measure and decide, so that the measurements of a span that stops a run are there for its report.
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
from components.spans.records import WindowRecord, read_columns, read_window
from components.storage.atomic import write_small
from components.storage.file_systems import read_file
from data import features
from data.labels import LabelMap
from data.masks import UNKNOWN_LABEL

DRIFT_FILE = "drift.json"
STATISTICS_FILE = "statistics.pb"

JENSEN_SHANNON = "Jensen-Shannon divergence"
L_INFINITY = "L-infinity distance"

#: The columns of the frame from which TFDV computes class frequencies: a class, and its weight in pixels.
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
    """The distribution of a scalar column over the images of a span."""

    model_config = ConfigDict(frozen=True)

    mean: float
    quantiles: tuple[float, ...]
    """The values at `QUANTILES`."""


class SpanSummary(BaseModel):
    """The statistics of one span."""

    model_config = ConfigDict(frozen=True)

    name: str
    number: int
    version: int
    images: int
    bad: int
    class_shares: dict[str, float]
    """Class -> share of the labelled pixels."""
    class_images: dict[str, float]
    """Class -> share of the images that have a pixel of it."""
    columns: dict[str, Column]


class Comparison(BaseModel):
    """One distance between the newest span and all before it."""

    model_config = ConfigDict(frozen=True)

    column: str
    """A column of the examples; `class` for the class frequencies."""
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
    """What is wrong with the newest span, a line each."""


def read_drift(drift_uri: str) -> DriftRecord:
    """The record in a `Drift` artifact."""
    return DriftRecord.model_validate_json(read_file(os.path.join(drift_uri, DRIFT_FILE)))


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
    """TFDV's statistics of the scalar columns that are compared."""
    return statistics(images[list(THRESHOLDS)], name)


def class_distances(
    newest: pd.DataFrame, older: pd.DataFrame, class_names: tuple[str, ...], config: DriftConfig
) -> Iterator[Comparison]:
    """The distance between the class frequencies of two sets of images, which TFDV sees as one column of pixels."""
    schema = schema_pb2.Schema()
    feature = schema.feature.add(name=CLASS, type=schema_pb2.BYTES)
    feature.drift_comparator.infinity_norm.threshold = config.class_frequencies
    schema.feature.add(name=PIXELS, type=schema_pb2.FLOAT)
    made = []
    for images in (newest, older):
        pixels = class_pixels(images, class_names)
        frame = pd.DataFrame({CLASS: list(pixels.index), PIXELS: pixels.to_numpy(float)})
        made.append(statistics(frame, "", weight=PIXELS))
    return measured(schema, *made)


def scalar_distances(newest: pd.DataFrame, older: pd.DataFrame, config: DriftConfig) -> Iterator[Comparison]:
    """The distances between the scalar columns of two sets of images."""
    schema = schema_pb2.Schema()
    for column, field in THRESHOLDS.items():
        kind = schema_pb2.INT if column in (features.HEIGHT, features.WIDTH) else schema_pb2.FLOAT
        feature = schema.feature.add(name=column, type=kind)
        feature.drift_comparator.jensen_shannon_divergence.threshold = getattr(config, field)
    return measured(schema, scalar_statistics(newest, ""), scalar_statistics(older, ""))


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


def vanished(
    newest: pd.DataFrame, older: pd.DataFrame, class_names: tuple[str, ...], config: DriftConfig
) -> Iterator[str]:
    """Says which classes the newest span lacks although so many images should contain one by chance."""
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
    """The statistics of a span, for tables and plots."""
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
        config: The largest differences that are allowed.
    """
    newest, older = record.newest, record.older
    comparisons: list[Comparison] = []
    if older:
        before = pd.concat([images[span.name] for span in older])
        if min(len(images[newest.name]), len(before)) >= config.min_images:
            comparisons += class_distances(images[newest.name], before, class_names, config)
            comparisons += scalar_distances(images[newest.name], before, config)
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
    """Writes a `Drift` artifact; `config` and `label_map` are the JSON of `validation.drift` and of the label map."""
    record = read_window(spans.uri)
    images = {span.name: read_columns(spans.uri, span) for span in [*record.older, record.newest]}
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
        write_small(os.path.join(drift.uri, name), content)
