"""HTML pages that stand alone: one file, without network or script, made from a template and pictures within it.

A text that is read as Markdown, too, is made from a Markdown template first, and the page from that.
"""

import base64
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup
from PIL import Image

from data.masks import colorize, palette

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

#: Characters that mean something anywhere in a line of Markdown, and those that do so at its beginning.
_MARKDOWN = re.compile(r"[\\`*_\[\]<>|&~]|^(?=[#+=-])")


def escape_markdown(value: Any) -> str:
    """A value as text in Markdown, in one line."""
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
    """Markdown (CommonMark with tables, no HTML in it) as a page."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    return render("markdown.html", title=title, body=Markup(body))  # noqa: S704  # its only tags are the renderer's


def render(template: str, **values: Any) -> str:
    """Fills in a template of `pipeline/templates`; every value is escaped."""
    return _TEMPLATES.get_template(template).render(values)


def photo_uri(image: np.ndarray, max_side: int) -> str:
    """A (height, width, 3) uint8 image as a `data:` URI, its longer side at most `max_side` pixels: JPEG."""
    photo = Image.fromarray(image)
    photo.thumbnail((max_side, max_side))
    return _data_uri(photo, "JPEG", quality=82)


def mask_uri(mask: np.ndarray, max_side: int) -> str:
    """(height, width) uint8 class ids in the colours of `data.masks.palette` as a `data:` URI, as large: PNG."""
    colors = Image.fromarray(colorize(mask, palette(256)))
    colors.thumbnail((max_side, max_side), Image.Resampling.NEAREST)  # mixed colours would be other classes
    return _data_uri(colors, "PNG", optimize=True)


def _data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
