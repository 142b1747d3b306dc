"""A confusion matrix as a picture."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from data.lettering import Font, drawable, font

#: Sides of a cell in pixels: with a number in it, and, from more than so many classes on, without.
NUMBERED, PLAIN = 36, 12
MOST_NUMBERED = 30

GAP = 6
WHITE, FULL = np.array([255, 255, 255]), np.array([8, 48, 107])
#: Of the rows of classes that have no labelled pixel.
EMPTY = (224, 224, 224)
CAPTION = ("rows: label", "columns: prediction", "% of the row")


def confusion_picture(matrix: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.uint8]:
    """Draws how the labelled pixels of each class were predicted, as percentages of its row.

    Args:
        matrix: (classes, classes) pixels, rows the label and columns the prediction.
        names: of the classes.

    Returns:
        (side, side, 3) uint8 RGB.
    """
    cell = NUMBERED if len(names) <= MOST_NUMBERED else PLAIN
    letters = font(min(13, cell - 1))
    names = [drawable(name, letters) for name in names]
    margin = 2 * GAP + round(max(letters.getlength(text) for text in (*names, *CAPTION)))
    side = margin + cell * len(names)
    picture = Image.new("RGB", (side, side), "white")
    picture.paste(_written(names, cell, margin, letters, "rm"), (0, margin))
    picture.paste(_written(names, cell, margin, letters, "lm").transpose(Image.Transpose.ROTATE_90), (margin, 0))
    draw = ImageDraw.Draw(picture)
    draw.multiline_text((GAP, GAP), "\n".join(CAPTION), "black", letters)
    for (row, column), share in np.ndenumerate(_shares(matrix)):
        _draw_cell(draw, (margin + column * cell, margin + row * cell), cell, share, letters)
    return np.asarray(picture)


def _shares(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each row's fractions; NaN in a row without a pixel."""
    totals = np.broadcast_to(matrix.sum(axis=1, keepdims=True), matrix.shape)
    return np.divide(matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)


def _written(names: Sequence[str], cell: int, width: int, font: Font, anchor: str) -> Image.Image:
    """The names one below the other, at the right or left of a strip."""
    strip = Image.new("RGB", (width, cell * len(names)), "white")
    draw = ImageDraw.Draw(strip)
    x = width - GAP if anchor == "rm" else GAP
    for i, name in enumerate(names):
        draw.text((x, (i + 0.5) * cell), name, "black", font, anchor)
    return strip


def _draw_cell(draw: ImageDraw.ImageDraw, corner: tuple[int, int], cell: int, share: float, font: Font) -> None:
    """A square, the darker the greater the share; its percentage where there is room and it is not 0."""
    x, y = corner
    color = EMPTY if np.isnan(share) else tuple(np.round(WHITE + (FULL - WHITE) * share).astype(int).tolist())
    draw.rectangle((x, y, x + cell - 1, y + cell - 1), fill=color)
    if cell == NUMBERED and share >= 0.005:
        text = "white" if share > 0.5 else "black"
        draw.text((x + cell / 2, y + cell / 2), f"{100 * share:.0f}", text, font, "mm")
