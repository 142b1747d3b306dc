"""What `Spans` artifacts say of the spans that a run looked at."""

import os
from typing import Any, Literal

import pyarrow.parquet
from pydantic import BaseModel, ConfigDict

from components.storage.file_systems import file_system

WINDOW_FILE = "spans.json"
PICTURES = "pictures"

Role = Literal["window", "reference", "replay", "evaluation"]


class SpanState(BaseModel):
    """A span, and in which state its folder is."""

    model_config = ConfigDict(frozen=True)

    number: int
    """What `{SPAN}` stands for, or days since 1970-01-01; -1 for a dataset apart that judges."""
    version: int
    name: str
    """Path of the folder relative to that of the pattern; stands before the keys of the images."""
    folder: str
    fingerprint: str

    @property
    def apart(self) -> bool:
        """Whether it is a dataset apart that judges, and no span."""
        return self.number < 0

    @property
    def slug(self) -> str:
        """The name, fit to be part of a file name."""
        return self.name.replace("/", "_")


class SpanRecord(SpanState):
    """One span that a run looked at."""

    role: Role
    images: dict[str, int]
    """Good images by split, as ingested."""
    bad: dict[str, int]
    """Kind of reason -> images set aside."""
    unknown_label: str = ""
    """The first reason that names a label which the label map lacks."""
    dropped: int = 0
    """Images left out because another span of the run has the same ones."""
    replayed: int = 0
    """Of a span before the window: its images that are trained on all the same."""
    cached: bool
    """Whether this run took over what an earlier one had ingested."""


class WindowRecord(BaseModel):
    """The spans of a run."""

    model_config = ConfigDict(frozen=True)

    spans: list[SpanRecord]
    """What judges (unless the window does), what is replayed, the reference, the window; each oldest first. A span
    may be there in several roles."""
    skipped: dict[str, str]
    """Spans that were left out -> why."""
    repeated: float
    """Share of the newest span's images that are in it twice, or in another span too."""

    @property
    def window(self) -> list[SpanRecord]:
        """What is trained on, oldest first."""
        return [span for span in self.spans if span.role == "window"]

    @property
    def replayed(self) -> dict[str, int]:
        """Span before the window -> its images that are trained on all the same."""
        return {span.name: span.replayed for span in self.spans if span.role == "replay"}

    @property
    def newest(self) -> SpanRecord:
        """The span that is judged by those before it."""
        return self.window[-1]

    @property
    def older(self) -> list[SpanRecord]:
        """What the newest span is compared with."""
        return [span for span in self.spans if span.role == "reference"] + self.window[:-1]


def read_window(spans_uri: str) -> WindowRecord:
    """The record in a `Spans` artifact."""
    with file_system(spans_uri).open(os.path.join(spans_uri, WINDOW_FILE)) as file:
        return WindowRecord.model_validate_json(file.read())


def pictures_file(spans_uri: str, span: SpanState) -> str:
    """The file of a span's scalar columns in a `Spans` artifact."""
    return os.path.join(spans_uri, PICTURES, f"{span.slug}.parquet")


def read_pictures(spans_uri: str, span: SpanState) -> Any:
    """The scalar columns of a span's images and their split, a row each, as a pandas DataFrame."""
    path = pictures_file(spans_uri, span)
    with file_system(path).open(path) as file:
        return pyarrow.parquet.read_table(pyarrow.BufferReader(file.read())).to_pandas()
