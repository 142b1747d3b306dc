"""Spans: labelled data that arrive in portions, one folder each, and the choice of those that a run takes.

A path with placeholders names the folders: `/data/span-{SPAN}`, `/data/span-{SPAN}/v{VERSION}` or
`s3://bucket/{YYYY}-{MM}-{DD}`, in the notation of TFX's ExampleGen. Numbers may be padded with zeros and may have gaps.
Of several versions of a span the highest one counts: it replaces those before it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from data.errors import DataError, IncompleteDataError
from data.files import FileSystem, walk
from data.section import MOST, Section

PLACEHOLDERS = {"SPAN": r"\d+", "YYYY": r"\d{4}", "MM": r"\d{2}", "DD": r"\d{2}", "VERSION": r"\d+"}
DATE = ("YYYY", "MM", "DD")

#: A file of this name in a span's folder says that the span is still being copied.
INCOMPLETE = ".incomplete"

#: Endings of files that label, list or explain images and are not images themselves.
TEXT_ENDINGS = (".csv", ".json", ".md", ".txt", ".xml", ".yaml", ".yml")

#: The largest number that TFX and ML Metadata can store, in 64 bits.
LARGEST_NUMBER = 2**63 - 1

#: Day 0 of dated spans, as in TFX.
EPOCH = date(1970, 1, 1).toordinal()

#: Number of spans that an error message names.
NAMES_SHOWN = 10

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class SpansConfig(Section):
    """Which spans a run takes if `data.path` is a pattern."""

    window: Annotated[int, Field(ge=1, le=MOST)] | Literal["all"] = 1
    """Number of the newest spans that are trained on together; 'all' takes every span."""
    span: Annotated[int, Field(ge=0, le=LARGEST_NUMBER)] | Annotated[date, Field(strict=False)] | None = None
    """Newest span to use: its number, or its date where the pattern is dated; null takes the newest that exists."""
    reference: int = Field(default=1, ge=0, le=MOST)
    """Number of spans before the newest one that validation compares it with, even if the window does not have them."""
    replay: float = Field(default=0.0, ge=0, le=1)
    """Share of the training images of each span before the window that is trained on too, against forgetting. They are
    chosen by hash, and differ for each newest span."""
    on_incomplete: Literal["stop", "skip"] = "stop"
    """What a run does about a span that is empty, still being copied, or has too many bad images: 'stop', or 'skip',
    which leaves that span out and says so. The window takes an older span in place of one that is empty or still being
    copied, but not of one with too many bad images, which is known too late; if no span of the window is left, the run
    stops."""


@dataclass(frozen=True, order=True, slots=True)
class Span:
    """One portion of the data."""

    number: int
    """Value of `{SPAN}`, or days since 1970-01-01."""
    version: int
    """Value of `{VERSION}`; 0 where the pattern has no versions."""
    name: str
    """Path of the folder relative to that of the pattern, as `a/b/c`."""
    folder: str
    """Path or URI of the folder."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The spans of a run, each in its newest version, oldest first."""

    window: tuple[Span, ...]
    """Spans that are trained on; never empty."""
    reference: tuple[Span, ...]
    """Spans outside the window that the newest span is compared with."""
    replay: tuple[Span, ...]
    """Spans of which a share of the training images is trained on too: all before the window, or none."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Name of each span that could not be taken into the window or the reference -> reason."""


@dataclass(frozen=True)
class SpanPattern:
    """A path with placeholders, split into its parts."""

    path: str
    root: str
    """The folder that the spans are below."""
    parts: tuple[str, ...]
    """The rest of the path; the first part has a placeholder."""

    @property
    def dated(self) -> bool:
        """Whether spans are days."""
        return "{YYYY}" in self.path

    def list(self, files: FileSystem) -> list[Span]:
        """All spans that are there, oldest first, each in its newest version.

        Raises:
            DataError: there is no span, a name is not a date or its number too large, or two folders have the same
                number and version.
        """
        if not files.exists(self.root):
            raise DataError(f"no folder {self.root}, in which the spans of data.path={self.path} should be")
        newest: dict[int, Span] = {}
        for span in sorted(self._span(files, name, found) for name, found in self._walk(files, "", self.parts)):
            other = newest.get(span.number)
            if other is not None and other.version == span.version:
                raise DataError(
                    f"ambiguous span: {other.folder} and {span.folder} are both span {span.number}"
                    f"{f', version {span.version}' if '{VERSION}' in self.path else ''}; remove one"
                )
            newest[span.number] = span
        if not newest:
            raise DataError(f"no span: nothing in {self.root} has a name like {'/'.join(self.parts)}")
        return list(newest.values())

    def near_misses(self, files: FileSystem) -> dict[str, str]:
        """Names that do not match the pattern, but were perhaps meant to -> what is wrong with them.

        Such a name differs from the pattern in padding, in separators, or in upper and lower case; or it is the name of
        a folder that does not contain the rest of the pattern.
        """
        return dict(self._near_misses(files, "", self.parts))

    def _near_misses(self, files: FileSystem, below: str, parts: Sequence[str]) -> Iterator[tuple[str, str]]:
        for name in sorted(_names(files, self._folder(files, below), parts[0])):
            path, rest = _below(below, name), parts[1:]
            if _regex(parts[0]).fullmatch(name) is None:
                if _loose_regex(parts[0]).fullmatch(name):
                    yield path, f"not taken for a span: {name} is not quite like {parts[0]} in data.path={self.path}"
            elif rest and next(self._walk(files, path, rest), None) is None:
                yield path, f"not taken for a span: it holds nothing like {'/'.join(rest)} in data.path={self.path}"
            elif rest:
                yield from self._near_misses(files, path, rest)

    def _walk(self, files: FileSystem, below: str, parts: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
        """(Relative path, values of the placeholders) of each folder that the pattern names."""
        if not parts:
            yield below, {}
            return
        for name in _names(files, self._folder(files, below), parts[0]):
            match = _regex(parts[0]).fullmatch(name)
            if match is not None:
                for path, values in self._walk(files, _below(below, name), parts[1:]):
                    yield path, match.groupdict() | values

    def _folder(self, files: FileSystem, name: str) -> str:
        return files.join(self.root, *name.split("/")) if name else self.root

    def _span(self, files: FileSystem, name: str, values: dict[str, str]) -> Span:
        folder = self._folder(files, name)
        try:
            number = span_number(date(*(int(values[key]) for key in DATE))) if self.dated else int(values["SPAN"])
        except ValueError:
            raise DataError(f"no date: {folder} looks like {'/'.join(self.parts)} but names no day") from None
        version = int(values.get("VERSION", 0))
        if max(number, version) > LARGEST_NUMBER:
            raise DataError(f"number too large: {folder}; spans and versions go up to {LARGEST_NUMBER}; rename it")
        return Span(number, version, name, folder)


def has_pattern(path: str) -> bool:
    """Whether a path has placeholders; braces around anything else are part of a name."""
    return any(f"{{{name}}}" in path for name in PLACEHOLDERS)


def parse_pattern(path: str) -> SpanPattern:
    """Splits a path with placeholders into its parts.

    Raises:
        ValueError: the placeholders are unknown, repeated or incomplete, or the bucket's name has one.
    """
    names = _PLACEHOLDER.findall(path)
    unknown = [name for name in names if name not in PLACEHOLDERS]
    if unknown:
        raise ValueError(f"{path!r}: unknown placeholder {{{unknown[0]}}}; allowed: {_spelled(PLACEHOLDERS)}")
    if len(set(names)) < len(names):
        raise ValueError(f"{path!r}: each placeholder may occur once")
    if set(names) - {"VERSION"} not in ({"SPAN"}, set(DATE)):
        raise ValueError(
            f"{path!r}: has {_spelled(names)}; a pattern has either {{SPAN}} or all of {_spelled(DATE)}, and may have "
            "{VERSION} as well"
        )
    scheme, separator, rest = path.rpartition("://")
    parts = rest.rstrip("/").split("/")
    first = next(index for index, part in enumerate(parts) if _PLACEHOLDER.search(part))
    if separator and first == 0:
        raise ValueError(f"{path!r}: the bucket's name may have no placeholder")
    root = "/".join(parts[:first]) or ("/" if rest.startswith("/") else ".")
    return SpanPattern(path, scheme + separator + root, tuple(part for part in parts[first:] if part))


def select(pattern: SpanPattern, config: SpansConfig, files: FileSystem) -> Selection:
    """The window of a run, and the spans that its newest span is compared with.

    Raises:
        DataError: `data.spans.span` does not exist, or there is no span.
        IncompleteDataError: a span of the window is still being copied.
    """
    spans = pattern.list(files)
    newest = span_number(config.span) if isinstance(config.span, date) else config.span
    if newest is not None and newest not in [span.number for span in spans]:
        names = [span.name for span in spans]
        there = f"{len(names)}, the newest ones " if len(names) > NAMES_SHOWN else ""
        raise DataError(
            f"no span {config.span} in {pattern.root} (data.spans.span); there are "
            f"{there}{', '.join(names[-NAMES_SHOWN:])}"
        )
    spans = [span for span in spans if newest is None or span.number <= newest]
    size = len(spans) if config.window == "all" else config.window
    left_out: dict[str, str] = {}
    if config.on_incomplete == "skip":
        spans, left_out = _without_unusable(pattern, spans, max(size, 1 + config.reference), files)
    window = spans[-size:]
    reference = [span for span in spans[-1 - config.reference :] if span not in window]
    for span in window:
        if is_incomplete(span, files):
            raise IncompleteDataError(
                f"span {span.name} is still being copied: {span.folder} holds {INCOMPLETE}; what copies it removes "
                "that file in the end"
            )
    replay = spans[: -len(window)] if config.replay else []

    def complete(spans: Sequence[Span]) -> tuple[Span, ...]:
        return tuple(span for span in spans if not is_incomplete(span, files))

    return Selection(tuple(window), complete(reference), complete(replay), left_out)


def is_incomplete(span: Span, files: FileSystem) -> bool:
    """Whether the span is marked as still being copied."""
    return files.exists(files.join(span.folder, INCOMPLETE))


def is_empty(folder: str, files: FileSystem) -> bool:
    """Whether a folder contains no image: no file at all, or only text and hidden files."""
    names = (path.rpartition("/")[2] for path, _, _ in walk(folder, files))
    return all(name.startswith(".") or name.lower().endswith(TEXT_ENDINGS) for name in names)


def span_number(day: date) -> int:
    """The number of a dated span: days since 1970-01-01."""
    return day.toordinal() - EPOCH


def _without_unusable(
    pattern: SpanPattern, spans: Sequence[Span], size: int, files: FileSystem
) -> tuple[list[Span], dict[str, str]]:
    """The spans without those that cannot be read, and why; only the newest are checked, until `size` are usable.

    Raises:
        DataError: no span is left.
    """
    usable: list[Span] = []
    left_out: dict[str, str] = {}
    for span in reversed(spans):
        if len(usable) < size and is_incomplete(span, files):
            left_out[span.name] = f"still being copied: it holds {INCOMPLETE}"
        elif len(usable) < size and is_empty(span.folder, files):
            left_out[span.name] = "empty: it contains no image"
        else:
            usable.append(span)
    if usable:
        return usable[::-1], left_out
    listed = "\n".join(f"  {name}: {reason}" for name, reason in list(left_out.items())[:NAMES_SHOWN])
    kind = IncompleteDataError if any(is_incomplete(span, files) for span in spans) else DataError
    raise kind(f"every span in {pattern.root} is empty or still being copied:\n{listed}")


def _below(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _names(files: FileSystem, folder: str, part: str) -> Iterable[str]:
    """The names that may match a part of the pattern; only one with a placeholder needs a listing."""
    if _PLACEHOLDER.search(part):
        return files.list(folder)
    return [part] if files.exists(files.join(folder, part)) else []


def _regex(part: str) -> re.Pattern[str]:
    pieces = re.split(r"(\{\w+\})", part)
    return re.compile(
        "".join(
            f"(?P<{p[1:-1]}>{PLACEHOLDERS[p[1:-1]]})" if _PLACEHOLDER.fullmatch(p) else re.escape(p) for p in pieces
        ),
        re.ASCII,
    )


def _loose_regex(part: str) -> re.Pattern[str]:
    """A pattern for names that were perhaps meant to match a part: any padding, other separators, other case."""
    pieces = re.split(r"(\{\w+\})", part)
    spelled = (re.sub(r"[\W_]+", r"[\\W_]*", p) if not _PLACEHOLDER.fullmatch(p) else r"\d+" for p in pieces)
    return re.compile("".join(spelled), re.ASCII | re.IGNORECASE)


def _spelled(names: Iterable[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)
