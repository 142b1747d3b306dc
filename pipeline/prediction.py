"""`predict`: masks and overlays for somebody's pictures, by the model that is being served."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from components.serving_directory import Published, served
from data.errors import DataError, WorkspaceError
from data.images import LARGEST_IMAGE, read_image
from data.labels import Color
from data.masks import overlay, palette
from models.export import Segmenter, load_segmenter

LEGEND_FILE = "legend.png"
CLASSES_FILE = "classes.json"


@dataclass(frozen=True)
class Prediction:
    """What became of one picture."""

    image: Path
    mask: Path
    overlay: Path
    score: float
    """Mean over the pixels of the best class's probability."""
    fractions: dict[str, float]
    """Class name -> fraction of the pixels, largest first; only classes that occur."""


def served_model(serving: Path, model_name: str | None) -> Published:
    """The newest version of a model; without a name, of the only one there is.

    Raises:
        WorkspaceError: Nothing is pushed, or several models are and none is named.
    """
    names = sorted(path.name for path in serving.iterdir() if path.is_dir()) if serving.is_dir() else []
    if model_name is None and len(names) > 1:
        raise WorkspaceError(f"{serving}: holds several models ({', '.join(names)}); choose one with --model")
    name = model_name or (names[0] if names else "")
    version = served(str(serving / name)) if name in names else None
    if version is None:
        known = f"; there is {', '.join(names)}" if names else "; run the pipeline first"
        raise WorkspaceError(f"{serving}: no model {name!r} is pushed yet{known}")
    return version


def predict(images: Sequence[Path], model: Published, out: Path) -> Iterator[Prediction]:
    """Writes for each picture a palette mask and an overlay, and once a legend.

    Args:
        images: Pictures of any size.
        model: What predicts.
        out: Folder; made if absent.

    Raises:
        DataError: A picture cannot be read; names it. Those before it are done.
    """
    segmenter = load_segmenter(model.path)
    names = segmenter.label_map.names
    colors = palette(len(names))
    out.mkdir(parents=True, exist_ok=True)
    draw_legend(names, colors).save(out / LEGEND_FILE)
    listing = [{"id": number, "name": name, "color": colors[number]} for number, name in enumerate(names)]
    (out / CLASSES_FILE).write_text(json.dumps(listing, indent=2), encoding="utf-8")
    for path, stem in zip(images, output_stems(images), strict=True):
        yield _predict_one(path, out / stem, segmenter, colors)


def output_stems(images: Sequence[Path]) -> list[str]:
    """Names for the outputs: the pictures' own, numbered where two pictures have the same."""
    used: dict[str, int] = {}
    stems = []
    for path in images:
        used[path.stem] = used.get(path.stem, 0) + 1
        stems.append(path.stem if used[path.stem] == 1 else f"{path.stem}-{used[path.stem]}")
    return stems


def _predict_one(path: Path, stem: Path, segmenter: Segmenter, colors: Sequence[Color]) -> Prediction:
    try:
        encoded, image = read_image(path.read_bytes(), LARGEST_IMAGE)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    [(mask, score)] = segmenter.predict([encoded])
    mask_path, overlay_path = Path(f"{stem}_mask.png"), Path(f"{stem}_overlay.png")
    indexed = Image.fromarray(mask, "P")
    indexed.putpalette([channel for color in colors for channel in color])
    indexed.save(mask_path)
    Image.fromarray(overlay(image, mask)).save(overlay_path)
    counts = np.bincount(mask.ravel(), minlength=len(colors))
    order = sorted(np.flatnonzero(counts), key=lambda class_id: -counts[class_id])
    fractions = {segmenter.label_map.names[i]: float(counts[i] / mask.size) for i in order}
    return Prediction(path, mask_path, overlay_path, score, fractions)


def draw_legend(names: Sequence[str], colors: Sequence[Color]) -> Image.Image:
    """A picture of the classes: a square of the colour and the name, one class a row."""
    row, margin = 24, 6
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    width = max(int(probe.textlength(name)) for name in names)
    legend = Image.new("RGB", (row + width + 3 * margin, row * len(names) + margin), "white")
    pen = ImageDraw.Draw(legend)
    for number, name in enumerate(names):
        top = number * row + margin
        pen.rectangle((margin, top, row, top + row - margin), fill=colors[number], outline="black")
        pen.text((row + 2 * margin, top + 3), name, fill="black")
    return legend
