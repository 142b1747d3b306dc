"""Ingests one span, once: its records, their manifest, the scalar columns, and what is quarantined."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import apache_beam as beam
import pyarrow as pa

from components.ingest.example_gen import LabelledImages, log_corrections
from components.ingest.examples import write_examples
from components.ingest.quarantine import check_bad, read_bad, read_counts, reason_kind, write_quarantine
from components.ingest.sample_images import scalar_columns
from components.spans.cache import SpanCache
from components.spans.records import COLUMNS, Role, SpanRecord, SpanState
from components.spans.state import WindowState
from components.storage.file_systems import file_system
from components.storage.fingerprint import fingerprint
from data import features
from data.dataset import DataConfig
from data.errors import DataError, IncompleteDataError
from data.labels import LabelMap
from data.layouts.base import SPLITS
from data.manifest import ImageFile, read_manifest
from data.masks import UNKNOWN_LABEL
from data.spans import SpansConfig, is_empty

#: The folder, in a result of the cache, with what a `Quarantine` artifact holds.
QUARANTINE = "quarantine"


@dataclass(frozen=True)
class Ingested:
    """A span in the cache, and its role in the run."""

    span: SpanState
    role: Role
    folder: str
    cached: bool

    @property
    def quarantine(self) -> str:
        """The folder of the quarantined images' reasons, and of the counts."""
        return os.path.join(self.folder, QUARANTINE)

    @cached_property
    def counts(self) -> dict[str, dict[str, int]]:
        """Images by split and by reason."""
        return read_counts(self.quarantine)

    def images(self) -> Iterator[ImageFile]:
        """The good images of the span, in the order of their digests."""
        return read_manifest(self.folder, file_system(self.folder))

    def record(self, dropped: int, replayed: int) -> SpanRecord:
        """The span as the `Spans` artifact records it."""
        unknown_label = ""
        if UNKNOWN_LABEL in self.counts["bad"]:
            entries = (entry for entry in read_bad(self.quarantine) if reason_kind(entry["reason"]) == UNKNOWN_LABEL)
            unknown_label = next((f"{entry['path']}: {entry['reason']}" for entry in entries), "")
        return SpanRecord(
            **self.span.model_dump(),
            role=self.role,
            images=self.counts["splits"],
            bad=self.counts["bad"],
            unknown_label=unknown_label,
            dropped=dropped,
            replayed=replayed,
            cached=self.cached,
        )


@dataclass(frozen=True)
class RunSpans:
    """The spans of a run that can be used."""

    evaluation: Ingested | None
    """The test set; None: the test splits of the window are."""
    replay: list[Ingested]
    reference: list[Ingested]
    window: list[Ingested]
    """Never empty."""
    skipped: dict[str, str]
    """Name of a span that was left out -> the reason."""

    @property
    def all(self) -> list[Ingested]:
        """All spans, in the order of `WindowRecord.spans`."""
        return [*([self.evaluation] if self.evaluation else []), *self.replay, *self.reference, *self.window]

    @property
    def newest(self) -> Ingested:
        """The last span of the window."""
        return self.window[-1]


class Ingester:
    """Takes spans from the cache, or ingests them into it.

    Args of the constructor:
        cache: Where to look and to write.
        config: The `data` section.
        code_hash: Hash of the code that ingests.
        make_pipeline: Makes a Beam pipeline.
        test_copy: Folder with the copy of the fixed test set; None: the test set is read where it lies.
    """

    def __init__(
        self,
        cache: SpanCache,
        config: DataConfig,
        code_hash: str,
        make_pipeline: Callable[[], Any],
        test_copy: str | None = None,
    ):
        self._cache = cache
        self._config = config
        self._code_hash = code_hash
        self._make_pipeline = make_pipeline
        self._test_copy = test_copy
        self._new: set[str] = set()

    def ingest(self, span: SpanState, role: Role) -> Ingested:
        """Ingests a span, or finds it in the cache.

        Raises:
            DataError: The span is empty, too much of it is bad, or it has changed since the run began.
        """
        key = self.key(span)
        folder = self._cache.find(key)
        if folder is None:
            source = (self._test_copy if role == "evaluation" else None) or span.folder
            folder = self._ingest(span, source, key)
            self._new.add(key)
        check_bad(os.path.join(folder, QUARANTINE), self._span_config(span))
        return Ingested(span, role, folder, cached=key not in self._new)

    def key(self, span: SpanState) -> str:
        """The span's key in the cache; it changes with the span's content, with the settings, and with the code."""
        settings = self._span_config(span).model_dump(mode="json", exclude={"path", "max_bad_fraction"})
        content = json.dumps([span.name, span.fingerprint, self._code_hash, settings], sort_keys=True)
        return f"{span.slug}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"

    def _span_config(self, span: SpanState) -> DataConfig:
        plain: dict[str, Any] = {"path": span.folder, "spans": SpansConfig(), "test_set": "fixed"}
        if span.is_separate:
            plain |= {"val_fraction": 0.0, "test_fraction": 1.0}  # Unless it has splits, all of it is test images.
        return self._config.model_copy(update=plain)

    def _ingest(self, span: SpanState, source: str, key: str) -> str:
        self._check_unchanged(span, source)
        config = self._span_config(span).model_copy(update={"path": source})
        folder = self._cache.attempt(key)
        try:
            if is_empty(source, file_system(source)):
                raise DataError(f"span {span.name} is empty: {source} contains no image")
            with self._make_pipeline() as pipeline:
                outputs = pipeline | "LabelledImages" >> LabelledImages(config, prefix=f"{span.name}/")
                write_examples(outputs, folder)
                write_quarantine(outputs, os.path.join(folder, QUARANTINE))
                write_columns(outputs, os.path.join(folder, COLUMNS), config.label_map)
            log_corrections(pipeline.result)
        finally:
            self._check_unchanged(span, source)  # If the span has changed, that is the cause of any other error.
        self._cache.complete(key, folder)
        return folder

    def _check_unchanged(self, span: SpanState, source: str) -> None:
        if source == span.folder and fingerprint(source, file_system(source)) != span.fingerprint:
            raise IncompleteDataError(
                f"{source} is not what it was when the run began: files were added, removed or changed; if it is still "
                "being copied, run again afterwards"
            )


def ingest_all(ingester: Ingester, state: WindowState, config: DataConfig) -> RunSpans:
    """Ingests all spans of a run that are not in the cache.

    A bad span stops the run if it is the test set or in the window; one before the window is left out.

    Raises:
        DataError: The test set is bad; a span of the window is, and data.spans.on_incomplete is "stop"; or no span of
            the window is left.
    """
    skipped: dict[str, str] = {}

    def usable(spans: tuple[SpanState, ...], role: Role, stop: bool) -> list[Ingested]:
        good = []
        for span in spans:
            try:
                good.append(ingester.ingest(span, role))
            except DataError as error:
                if stop:
                    raise
                skipped[span.name] = str(error)
        return good

    evaluation = ingester.ingest(state.evaluation, "evaluation") if state.evaluation else None
    window = usable(state.window, "window", stop=config.spans.on_incomplete == "stop")
    if not window:
        raise DataError("no span of the window can be used:\n" + "\n".join(skipped.values()))
    reference = usable(state.reference, "reference", stop=False)
    return RunSpans(evaluation, usable(state.replay, "replay", stop=False), reference, window, skipped)


def write_columns(outputs: Any, path: str, labels: LabelMap | None) -> None:
    """Writes the scalar columns of all good images to `<path>.parquet`, a row each."""
    if labels is None:
        raise DataError("the label map of data that come in spans is not resolved")
    keys = features.scalar_keys(labels.names)
    floats = (features.BRIGHTNESS, features.CONTRAST, features.VOID_FRACTION)
    kinds = {features.SOURCE: pa.string(), **dict.fromkeys(floats, pa.float32())}
    schema = pa.schema([("split", pa.string()), *((key, kinds.get(key, pa.int64())) for key in keys)])
    rows = [outputs[split] | f"Row[{split}]" >> beam.Map(_row, split=split, keys=keys) for split in SPLITS]
    _ = (
        rows
        | "AllRows" >> beam.Flatten()
        | "WriteRows"
        >> beam.io.WriteToParquet(path, schema, file_name_suffix=".parquet", num_shards=1, shard_name_template="")
    )


def _row(serialized: bytes, split: str, keys: list[str]) -> dict[str, Any]:
    columns = scalar_columns(serialized)
    return {"split": split, **{key: columns[key] for key in keys}}
