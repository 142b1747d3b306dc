"""The outputs: an indexed mask and an overlay for each image, and one legend.

They are defined once, so that the same image always gives the same bytes. The first bytes of each output contain a mark
(`MARK`) that distinguishes an output which a killed process did not record from a file of the user.
"""

import io
import json
import os
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from components.storage.atomic import create, remove, write_small
from components.storage.file_systems import file_system, is_local
from data.errors import WorkspaceError
from data.labels import Color
from data.lettering import drawable, font
from data.masks import overlay, palette

LEGEND_FILE = "legend.png"
CLASSES_FILE = "classes.json"
MASK_ENDING = "_mask.png"
OVERLAY_ENDING = "_overlay.png"
PROBABILITY_ENDING = "_probability.png"
OVERLAY_VIDEO_ENDING = ".webm"
ENDINGS = (MASK_ENDING, OVERLAY_ENDING, PROBABILITY_ENDING, OVERLAY_VIDEO_ENDING)

#: Folder of the journal, with one line for each image; a folder that contains it is an output folder.
JOURNAL_FOLDER = "predictions"
_ABOUT_FILE = "README.txt"
_ABOUT = b"The result of each image: docs/prediction.md. Without these lines all images are predicted again.\n"

#: The mark of an output: the text "Software" of a PNG, the title of a WebM.
MARK = "deeplab-tfx predict"
_MARK_WITHIN = 1024  # bytes
_MARK_INFO = PngInfo()
_MARK_INFO.add_text("Software", MARK)

#: Number of rows of an overlay that are computed at once: it takes 24 times the memory of the image.
BAND = 512


def encode_outputs(
    pixels: np.ndarray, mask: np.ndarray, confidences: np.ndarray | None, num_classes: int
) -> dict[str, bytes]:
    """Encodes the outputs for one image.

    Args:
        pixels: (height, width, 3) uint8 RGB.
        mask: (height, width) uint8 class ids.
        confidences: (height, width) uint8, 255 times the probability of each pixel's class; or None.
        num_classes: Number of classes that have a colour.

    Returns:
        Ending of the file's name -> PNG.
    """
    indexed = Image.fromarray(mask, "P")
    indexed.putpalette([channel for color in palette(num_classes) for channel in color])
    bands = [slice(top, top + BAND) for top in range(0, len(mask), BAND)]
    laid = np.concatenate([overlay(pixels[band], mask[band]) for band in bands])
    images = {MASK_ENDING: indexed, OVERLAY_ENDING: Image.fromarray(laid)}
    if confidences is not None:
        images[PROBABILITY_ENDING] = Image.fromarray(confidences)
    return {ending: png(image, pnginfo=_MARK_INFO) for ending, image in images.items()}


def png(image: Image.Image, **options: int | PngInfo) -> bytes:
    """Encodes an image as PNG."""
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def is_foreign(path: str) -> bool:
    """Whether a local file exists that this command did not write. An empty file was left by a killed process.

    In object stores, files are not checked one by one, which would take as long as writing them: `prepare_folder`
    checks once.
    """
    if not is_local(path):
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(_MARK_WITHIN)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False
    return bool(head) and MARK.encode() not in head


def not_ours(path: str) -> str:
    """The message about a foreign file."""
    return f"{path} exists already, and predict did not write it: move it, or name another --out"


def write_output(path: str, content: bytes) -> None:
    """Writes one output to a path or a URI; creates its folder."""
    with create(path) as file:
        file.write(content)


def remove_outputs(out: str, name: str, endings: Iterable[str]) -> None:
    """Removes the outputs of a name, if they still exist."""
    for ending in endings:
        remove(os.path.join(out, name + ending))


def prepare_folder(out: str, names: Sequence[str]) -> None:
    """Creates the folder of the outputs and writes the files that explain them.

    Raises:
        WorkspaceError: The folder cannot be written to, or the user's own files would be overwritten.
    """
    colors = palette(len(names))
    listing = [{"id": i, "name": name, "color": colors[i]} for i, name in enumerate(names)]
    explanations = {
        LEGEND_FILE: png(draw_legend(names, colors), pnginfo=_MARK_INFO),
        CLASSES_FILE: json.dumps(listing, indent=2).encode(),
    }
    try:
        if path := _in_the_way(out, explanations):
            raise WorkspaceError(not_ours(path))
        # First, because it identifies the folder when a run resumes, or searches for images meanwhile.
        write_small(os.path.join(out, JOURNAL_FOLDER, _ABOUT_FILE), _ABOUT)
        for name, content in explanations.items():
            write_output(os.path.join(out, name), content)
    except OSError as error:
        raise unwritable(out, error) from None


def _in_the_way(out: str, explanations: Iterable[str]) -> str | None:
    """A file because of which outputs must not be written here: of the same name, or any in an object store."""
    files = file_system(out)
    if files.exists(os.path.join(out, JOURNAL_FOLDER)):
        return None
    if is_local(out):
        return next(filter(is_foreign, (os.path.join(out, name) for name in explanations)), None)
    return next((os.path.join(out, name) for name, _, _ in files.stats(out)), None)


def unwritable(out: str, error: OSError) -> WorkspaceError:
    """The error for a folder of outputs that cannot be written to."""
    return WorkspaceError(f"{out}: the outputs cannot be written: {error.strerror or error}")


def draw_legend(names: Sequence[str], colors: Sequence[Color]) -> Image.Image:
    """Draws an image of the classes: a square of the colour, the id and the name, one class per row."""
    row, margin, letters = 24, 6, font(13)
    labels = [f"{number}  {drawable(name, letters)}" for number, name in enumerate(names)]
    width = round(max(letters.getlength(label) for label in labels))
    legend = Image.new("RGB", (row + width + 3 * margin, row * len(labels) + margin), "white")
    pen = ImageDraw.Draw(legend)
    for number, label in enumerate(labels):
        top = number * row + margin
        pen.rectangle((margin, top, row, top + row - margin), fill=colors[number], outline="black")
        pen.text((row + 2 * margin, top + 1), label, "black", letters)
    return legend
