"""What TensorBoard shows of a training: curves, pictures, hyperparameters and, on request, a profile."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Self

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorboard.plugins.hparams import summary_v2 as hparams

from data.features import IGNORE_LABEL
from data.masks import colorize, palette
from data.section import Section
from models.training.confusion_picture import confusion_picture
from models.training.validation import Evaluation

#: Steps that a profile records: enough to tell the usual from the exceptional, few enough to load.
PROFILED_STEPS = 5


class TensorBoard:
    """Writes the log of a training where TensorBoard reads it.

    Args:
        folder: the run's log folder.
        label_names: of the classes, in the order of their ids.
    """

    def __init__(self, folder: str, label_names: Sequence[str]) -> None:
        self._writer = tf.summary.create_file_writer(folder)
        self._label_names = label_names
        self._palette = palette(len(label_names))

    def write_hparams(self, sections: Mapping[str, Section]) -> None:
        """What the run was configured with, at its begin; the HParams tab compares it with other runs' in one folder.

        Args:
            sections: of the configuration, by name; their fields are called `section.field`.
        """
        with self._writer.as_default(0):
            hparams.hparams(hparam_values({name: section.model_dump() for name, section in sections.items()}))
        self._writer.flush()

    def write_result(self, step: int, mean_iou: float) -> None:
        """What the run came to, at its end: the mean IoU of the weights that it keeps; a metric of the HParams tab."""
        with self._writer.as_default(step):
            tf.summary.scalar("result/mean_iou", mean_iou)
        self._writer.flush()

    def write_step(self, step: int, scalars: Mapping[str, float]) -> None:
        """Scalars of the training, after `step` steps."""
        with self._writer.as_default(step):
            for name, value in scalars.items():
                tf.summary.scalar(f"train/{name}", value)

    def write_evaluation(self, evaluation: Evaluation) -> None:
        """Mean IoU and the IoU of each class that occurs."""
        with self._writer.as_default(evaluation.step):
            tf.summary.scalar("val/mean_iou", evaluation.mean_iou)
            for name, value in zip(self._label_names, evaluation.iou, strict=True):
                if value is not None:
                    tf.summary.scalar(f"val_iou/{name}", value)
        self._writer.flush()

    def write_confusion(self, step: int, matrix: NDArray[np.int64]) -> None:
        """A picture of a confusion matrix, (classes, classes) in pixels: rows the label, columns the prediction."""
        with self._writer.as_default(step):
            tf.summary.image("val/confusion", confusion_picture(matrix, self._label_names)[None])
        self._writer.flush()

    def write_prediction(
        self, step: int, number: int, image: np.ndarray, mask: np.ndarray, predicted: np.ndarray
    ) -> None:
        """Image, label and prediction side by side.

        Args:
            step: steps done.
            number: of the picture.
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


class Profiler:
    """Records a few steps with TensorFlow's profiler, for the Profile tab. A context manager, which ends a recording.

    The tab is TensorBoard's plugin `tensorboard-plugin-profile`, which is installed apart; it reads
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
        """To be entered around the step of this number."""
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
