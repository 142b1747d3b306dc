"""What is written: for each picture an indexed mask and an overlay, for all of them a legend.

One definition for all who predict, so that the same picture gives the same bytes.
"""

import io
import json
import os
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from components.writing import create, remove
from data.errors import WorkspaceError
from data.labels import Color
from data.masks import overlay, palette

LEGEND_FILE = "legend.png"
CLASSES_FILE = "classes.json"
MASK_ENDING = "_mask.png"
OVERLAY_ENDING = "_overlay.png"
PROBABILITY_ENDING = "_probability.png"
OVERLAY_VIDEO_ENDING = ".webm"
ENDINGS = (MASK_ENDING, OVERLAY_ENDING, PROBABILITY_ENDING, OVERLAY_VIDEO_ENDING)

#: Rows of an overlay that are made at once: the arithmetic takes 24 times the memory of a picture's bytes.
BAND = 512


def encode_outputs(
    pixels: np.ndarray, mask: np.ndarray, confidences: np.ndarray | None, num_classes: int
) -> dict[str, bytes]:
    """The outputs for one picture.

    Args:
        pixels: (height, width, 3) uint8 RGB.
        mask: (height, width) uint8 class ids.
        confidences: (height, width) uint8, 255 times the probability of each pixel's class; or None.
        num_classes: Classes that get a colour.

    Returns:
        End of the file's name -> PNG.
    """
    indexed = Image.fromarray(mask, "P")
    indexed.putpalette([channel for color in palette(num_classes) for channel in color])
    bands = [slice(top, top + BAND) for top in range(0, len(mask), BAND)]
    laid = np.concatenate([overlay(pixels[band], mask[band]) for band in bands])
    images = {MASK_ENDING: indexed, OVERLAY_ENDING: Image.fromarray(laid)}
    if confidences is not None:
        images[PROBABILITY_ENDING] = Image.fromarray(confidences)
    return {ending: png(image) for ending, image in images.items()}


def png(image: Image.Image, **options: int) -> bytes:
    """An image as PNG."""
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def write_output(path: str, content: bytes) -> None:
    """Writes one output, a path or a URI; makes its folder."""
    with create(path) as file:
        file.write(content)


def remove_outputs(out: str, name: str, endings: Iterable[str]) -> None:
    """Removes outputs of a name, where they are still there."""
    for ending in endings:
        remove(os.path.join(out, name + ending))


def prepare_folder(out: str, names: Sequence[str]) -> None:
    """Makes the folder of the outputs and writes what explains them.

    Raises:
        WorkspaceError: Nothing can be written there.
    """
    colors = palette(len(names))
    listing = [{"id": i, "name": name, "color": colors[i]} for i, name in enumerate(names)]
    try:
        write_output(os.path.join(out, LEGEND_FILE), png(draw_legend(names, colors)))
        write_output(os.path.join(out, CLASSES_FILE), json.dumps(listing, indent=2).encode())
    except OSError as error:
        raise unwritable(out, error) from None


def unwritable(out: str, error: OSError) -> WorkspaceError:
    """The folder of the outputs cannot be written to."""
    return WorkspaceError(f"{out}: the outputs cannot be written: {error.strerror or error}")


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
