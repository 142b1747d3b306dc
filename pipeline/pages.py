"""HTML pages that stand alone: one file, without network or script, made from a template and pictures within it."""

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from data.masks import colorize, palette

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


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
