"""Self-contained HTML pages: one file, made from a template with embedded images, that fetches nothing.

A page runs only the project's own scripts, which its Content-Security-Policy lists by their hashes.

A text that is also published as Markdown is first rendered from a Markdown template, and the page from that text.
The texts that several pages share are here, too.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup
from PIL import Image

from data.masks import colorize, palette
from pipeline.records.summary import RunSummary

_FOLDER = Path(__file__).parents[1] / "templates"
_TEMPLATES = Environment(
    loader=FileSystemLoader(_FOLDER),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class PageScript:
    """A script that is part of a page."""

    text: Markup
    source: str
    """The source expression that allows only this script in the page's Content-Security-Policy."""


@cache
def script(name: str) -> PageScript:
    """Reads a script of `pipeline/templates`."""
    text = (_FOLDER / name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return PageScript(Markup(text), f"'sha256-{digest}'")  # noqa: S704  # our own file


_TEMPLATES.globals["script"] = script

#: Characters that are special anywhere in a line of Markdown, and those that are special at its beginning.
_MARKDOWN = re.compile(r"[\\`*_\[\]<>|&~]|^(?=[#+=-])")


def escape_markdown(value: Any) -> str:
    """Escapes a value as plain text in Markdown, in one line."""
    return _MARKDOWN.sub(lambda match: f"\\{match[0]}", " ".join(str(value).split()))


_MARKDOWN_TEMPLATES = Environment(  # noqa: S701  # escapes for Markdown instead
    loader=_TEMPLATES.loader,
    finalize=escape_markdown,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def render_markdown(template: str, **values: Any) -> str:
    """Fills in a Markdown template of `pipeline/templates`; every value is escaped."""
    return _MARKDOWN_TEMPLATES.get_template(template).render(values)


def markdown_page(text: str, title: str) -> str:
    """Renders Markdown (CommonMark with tables, without HTML) as a page."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    return render("markdown.html", title=title, body=Markup(body))  # noqa: S704  # its only tags are the renderer's


def render(template: str, **values: Any) -> str:
    """Fills in a template of `pipeline/templates`; every value is escaped."""
    return _TEMPLATES.get_template(template).render(values)


def shrunk(image: Image.Image, max_side: int, resample: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    """The image, scaled down so that its longer side is at most `max_side` pixels."""
    small = image.copy()
    small.thumbnail((max_side, max_side), resample)
    return small


def photo_uri(image: np.ndarray, max_side: int) -> str:
    """A (height, width, 3) uint8 image as a `data:` URI, its longer side at most `max_side` pixels: JPEG."""
    return _data_uri(shrunk(Image.fromarray(image), max_side), "JPEG", quality=82)


def mask_uri(mask: np.ndarray, max_side: int) -> str:
    """(height, width) uint8 class ids in the colours of `data.masks.palette` as a `data:` URI, as large: PNG."""
    small = shrunk(Image.fromarray(mask), max_side, Image.Resampling.NEAREST)  # interpolated ids would be other classes
    return drawing_uri(colorize(np.asarray(small), palette(256)))


def drawing_uri(image: np.ndarray) -> str:
    """A (height, width, 3) uint8 image of few colours and hard edges as a `data:` URI, of the same size: PNG."""
    return _data_uri(Image.fromarray(image), "PNG", optimize=True)


def _data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


@dataclass(frozen=True)
class Headline:
    """The headline of a run."""

    tone: Literal["good", "warn", "bad", "open"]
    text: str


def headline(summary: RunSummary | None) -> Headline:
    """The headline of a run; a summary of None stands for a run without a record."""
    if summary is None:
        return Headline("open", "No record: killed, or still running")
    if summary.status == "failed":
        return Headline("bad", "The run failed")
    if summary.blessed is None:
        return Headline("open", "The run ended before an evaluation")
    if not summary.blessed:
        return Headline("warn", "Not blessed")
    if summary.pushed_version is None:
        return Headline("good", "Blessed; nothing was pushed")
    return Headline("good", f"Blessed, and pushed as version {summary.pushed_version}")


def seconds_text(seconds: float) -> str:
    """Formats a duration: "0.13 s", "8.5 s", "4 min 44 s", "2 h 05 min"."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
