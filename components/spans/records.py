"""The records in `Spans` artifacts: which spans a run read, and what it did with each."""

import os
from typing import Any, Literal

import pyarrow.parquet
from pydantic import BaseModel, ConfigDict

from components.storage.file_systems import read_file

WINDOW_FILE = "spans.json"
#: What the scalar columns of the images are kept in: a folder in the artifact, a file in the cache of spans.
COLUMNS = "pictures"

Role = Literal["window", "reference", "replay", "evaluation"]


class SpanState(BaseModel):
    """A span, and the state that its folder is in."""

    model_config = ConfigDict(frozen=True)

    number: int
    """Value of `{SPAN}`, or days since 1970-01-01; -1 for a separate test set."""
    version: int
    name: str
    """Path of the folder relative to that of the pattern; the keys of the images begin with it."""
    folder: str
    fingerprint: str

    @property
    def is_separate(self) -> bool:
        """Whether it is a separate test set rather than a span."""
        return self.number < 0

    @property
    def slug(self) -> str:
        """The name in a form that can be part of a file name."""
        return self.name.replace("/", "_")


class SpanRecord(SpanState):
    """One span that a run read."""

    role: Role
    images: dict[str, int]
    """Good images by split, as ingested."""
    bad: dict[str, int]
    """Kind of reason -> quarantined images."""
    unknown_label: str = ""
    """The first reason that names a label which the label map lacks."""
    dropped: int = 0
    """Images left out because another span of the run has the same ones."""
    replayed: int = 0
    """Training images of a span before the window that are trained on again (`data.spans.replay`)."""
    cached: bool
    """Whether this run reused the examples that an earlier run had ingested."""


class WindowRecord(BaseModel):
    """The spans of a run."""

    model_config = ConfigDict(frozen=True)

    spans: list[SpanRecord]
    """The test set (unless it is the window's), what is replayed, the reference, the window; each oldest first. A
    span may be there in several roles."""
    skipped: dict[str, str]
    """Spans that were left out -> the reason."""
    repeated: float
    """Share of the newest span's images that are in it twice, or in another span too."""

    @property
    def window(self) -> list[SpanRecord]:
        """The spans that are trained on, oldest first."""
        return [span for span in self.spans if span.role == "window"]

    @property
    def replayed(self) -> dict[str, int]:
        """Span before the window -> its images that are trained on again."""
        return {span.name: span.replayed for span in self.spans if span.role == "replay"}

    @property
    def newest(self) -> SpanRecord:
        """The span that is compared with those before it."""
        return self.window[-1]

    @property
    def older(self) -> list[SpanRecord]:
        """The spans with which the newest one is compared."""
        return [span for span in self.spans if span.role == "reference"] + self.window[:-1]


def read_window(spans_uri: str) -> WindowRecord:
    """The record in a `Spans` artifact."""
    return WindowRecord.model_validate_json(read_file(os.path.join(spans_uri, WINDOW_FILE)))


def columns_file(spans_uri: str, span: SpanState) -> str:
    """The file of a span's scalar columns in a `Spans` artifact."""
    return os.path.join(spans_uri, COLUMNS, f"{span.slug}.parquet")


def read_columns(spans_uri: str, span: SpanState) -> Any:
    """The scalar columns of a span's images and their split, a row each, as a pandas DataFrame."""
    content = read_file(columns_file(spans_uri, span))
    return pyarrow.parquet.read_table(pyarrow.BufferReader(content)).to_pandas()
