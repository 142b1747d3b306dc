"""What TensorBoard shows of a training: curves, images, hyperparameters and, on request, a profile."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Self

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from tensorboard.plugins.hparams import summary_v2 as hparams

from data.features import IGNORE_LABEL
from data.lettering import Font, drawable, font
from data.masks import colorize, palette
from data.section import Section
from models.training.validation import Evaluation

#: Steps that a profile records: enough to tell the usual from the exceptional, few enough to load.
PROFILED_STEPS = 5

#: Sides of a cell in the image of a confusion matrix, in pixels: with a number in it and, where there are more classes
#: than `MOST_NUMBERED`, without.
NUMBERED, PLAIN = 36, 12
MOST_NUMBERED = 30

GAP = 6
WHITE, FULL = np.array([255, 255, 255]), np.array([8, 48, 107])
#: Colour of the rows of classes that have no labelled pixel.
EMPTY = (224, 224, 224)
CAPTION = ("rows: label", "columns: prediction", "% of the row")


class TensorBoard:
    """Writes the log of a training where TensorBoard reads it.

    Args:
        folder: the run's log folder.
        label_names: class names, in the order of the class ids.
    """

    def __init__(self, folder: str, label_names: Sequence[str]) -> None:
        self._writer = tf.summary.create_file_writer(folder)
        self._label_names = label_names
        self._palette = palette(len(label_names))

    def write_hparams(self, sections: Mapping[str, Section]) -> None:
        """Writes the configuration of the run, when it begins; the HParams tab compares the runs of one folder.

        Args:
            sections: sections of the configuration, by name; their fields are called `section.field`.
        """
        with self._writer.as_default(0):
            hparams.hparams(hparam_values({name: section.model_dump() for name, section in sections.items()}))
        self._writer.flush()

    def write_result(self, step: int, mean_iou: float) -> None:
        """Writes the mean IoU of the weights that the run keeps, when it ends: the metric of the HParams tab."""
        with self._writer.as_default(step):
            tf.summary.scalar("result/mean_iou", mean_iou)
        self._writer.flush()

    def write_step(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes scalars of the training, after `step` steps."""
        with self._writer.as_default(step):
            for name, value in scalars.items():
                tf.summary.scalar(f"train/{name}", value)

    def write_evaluation(self, evaluation: Evaluation) -> None:
        """Writes mean IoU and the IoU of each class that occurs."""
        with self._writer.as_default(evaluation.step):
            tf.summary.scalar("val/mean_iou", evaluation.mean_iou)
            for name, value in zip(self._label_names, evaluation.iou, strict=True):
                if value is not None:
                    tf.summary.scalar(f"val_iou/{name}", value)
        self._writer.flush()

    def write_confusion(self, step: int, matrix: NDArray[np.int64]) -> None:
        """Writes an image of a confusion matrix, (classes, classes) pixels: rows are labels, columns predictions."""
        with self._writer.as_default(step):
            tf.summary.image("val/confusion", confusion_image(matrix, self._label_names)[None])
        self._writer.flush()

    def write_prediction(
        self, step: int, number: int, image: np.ndarray, mask: np.ndarray, predicted: np.ndarray
    ) -> None:
        """Writes image, label and prediction side by side.

        Args:
            step: steps done.
            number: number of the image, which distinguishes the images of one evaluation.
            image: (height, width, 3) uint8.
            mask, predicted: (height, width) uint8 class ids.
        """
        predicted = np.where(mask == IGNORE_LABEL, IGNORE_LABEL, predicted)
        panels = np.concatenate([image, *(colorize(ids, self._palette) for ids in (mask, predicted))], axis=1)
        with self._writer.as_default(step):
            tf.summary.image(f"val/{number}", panels[None])


def hparam_values(fields: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Nested fields as the flat values that HParams knows: names joined by dots, lists as JSON, nothing for None."""
    values: dict[str, bool | int | float | str] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            values |= hparam_values(value, f"{prefix}{name}.")
        elif value is not None:
            values[prefix + name] = value if isinstance(value, bool | int | float | str) else json.dumps(value)
    return values


def confusion_image(matrix: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.uint8]:
    """Draws how the labelled pixels of each class were predicted, as percentages of its row.

    Args:
        matrix: (classes, classes) pixels, rows the label and columns the prediction.
        names: class names, in the order of the class ids.

    Returns:
        (side, side, 3) uint8 RGB.
    """
    cell = NUMBERED if len(names) <= MOST_NUMBERED else PLAIN
    letters = font(min(13, cell - 1))
    names = [drawable(name, letters) for name in names]
    margin = 2 * GAP + round(max(letters.getlength(text) for text in (*names, *CAPTION)))
    side = margin + cell * len(names)
    image = Image.new("RGB", (side, side), "white")
    image.paste(_written(names, cell, margin, letters, "rm"), (0, margin))
    image.paste(_written(names, cell, margin, letters, "lm").transpose(Image.Transpose.ROTATE_90), (margin, 0))
    draw = ImageDraw.Draw(image)
    draw.multiline_text((GAP, GAP), "\n".join(CAPTION), "black", letters)
    totals = np.broadcast_to(matrix.sum(axis=1, keepdims=True), matrix.shape)
    shares = np.divide(
        matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0
    )  # NaN in a row without a pixel
    for (row, column), share in np.ndenumerate(shares):
        _draw_cell(draw, (margin + column * cell, margin + row * cell), cell, share, letters)
    return np.asarray(image)


def _written(names: Sequence[str], cell: int, width: int, font: Font, anchor: str) -> Image.Image:
    """The names one below the other, at the right or left of a strip."""
    strip = Image.new("RGB", (width, cell * len(names)), "white")
    draw = ImageDraw.Draw(strip)
    x = width - GAP if anchor == "rm" else GAP
    for i, name in enumerate(names):
        draw.text((x, (i + 0.5) * cell), name, "black", font, anchor)
    return strip


def _draw_cell(draw: ImageDraw.ImageDraw, corner: tuple[int, int], cell: int, share: float, font: Font) -> None:
    """Draws a square, the darker the greater the share, with the percentage where there is room and it is not 0."""
    x, y = corner
    color = EMPTY if np.isnan(share) else tuple(np.round(WHITE + (FULL - WHITE) * share).astype(int).tolist())
    draw.rectangle((x, y, x + cell - 1, y + cell - 1), fill=color)
    if cell == NUMBERED and share >= 0.005:
        text = "white" if share > 0.5 else "black"
        draw.text((x + cell / 2, y + cell / 2), f"{100 * share:.0f}", text, font, "mm")


class Profiler:
    """Records a few steps with TensorFlow's profiler, for the Profile tab. A context manager, which ends a recording.

    The tab is TensorBoard's plugin `tensorboard-plugin-profile`, which is installed separately; it reads
    `plugins/profile/` in the log folder.

    Args:
        folder: the run's log folder.
        first: number of the first step that is recorded, counted from 1; 0 records none.
    """

    def __init__(self, folder: str, first: int) -> None:
        self._folder = folder
        self._first = first
        self._records = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._records:
            self._stop()

    def step(self, number: int) -> AbstractContextManager[None]:
        """A context to run the step of this number in."""
        if not self._first <= number < self._first + PROFILED_STEPS or not self._first:
            return nullcontext()
        return self._recorded(number)

    @contextmanager
    def _recorded(self, number: int) -> Iterator[None]:
        if not self._records:
            tf.profiler.experimental.start(self._folder)
            self._records = True
        with tf.profiler.experimental.Trace("train", step_num=number, _r=1):
            yield
        if number == self._first + PROFILED_STEPS - 1:
            self._stop()

    def _stop(self) -> None:
        tf.profiler.experimental.stop()
        self._records = False
