"""How a training shows what it does: progress on the console, curves and pictures in TensorBoard."""

from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from data.features import IGNORE_LABEL
from data.masks import colorize, palette
from models.evaluation import Evaluation


class Progress(Protocol):
    """Who is told how far a training is."""

    def begin(self, step: int, steps: int) -> None:
        """Training begins after `step` of `steps` steps: more than 0 where it resumes."""

    def update(self, step: int, loss: float, images_per_second: float) -> None:
        """`step` steps are done; `loss` is the mean since the last update."""

    def evaluated(self, evaluation: Evaluation, best: bool) -> None:
        """The validation split was evaluated; `best` if no evaluation before was better."""


class Silent:
    """Tells nobody."""

    def begin(self, step: int, steps: int) -> None:
        pass

    def update(self, step: int, loss: float, images_per_second: float) -> None:
        pass

    def evaluated(self, evaluation: Evaluation, best: bool) -> None:
        pass


class ProgressBar:
    """A bar with loss, images per second and remaining time; a line for each evaluation. A context manager.

    Args:
        console: where it is drawn; on a console that is no terminal, only the lines are written.
    """

    def __init__(self, console: Console) -> None:
        self._bar = Bar(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  {task.fields[speed]:.1f} img/s"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task: TaskID

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def begin(self, step: int, steps: int) -> None:
        self._task = self._bar.add_task("training", completed=step, total=steps, loss=float("nan"), speed=0.0)
        if step:
            self._bar.console.print(f"resuming after step {step} of {steps}", highlight=False)

    def update(self, step: int, loss: float, images_per_second: float) -> None:
        self._bar.update(self._task, completed=step, loss=loss, speed=images_per_second)

    def evaluated(self, evaluation: Evaluation, best: bool) -> None:
        mark = ", the best so far" if best else ""
        line = f"step {evaluation.step}: validation mean IoU {evaluation.mean_iou:.4f}{mark}"
        self._bar.console.print(line, highlight=False)


class TensorBoard:
    """Writes scalars and pictures where TensorBoard reads them.

    Args:
        folder: the run's log folder.
        label_names: of the classes, in the order of their ids.
    """

    def __init__(self, folder: str, label_names: Sequence[str]) -> None:
        self._writer = tf.summary.create_file_writer(folder)
        self._label_names = label_names
        self._palette = palette(len(label_names))

    def write_step(self, step: int, scalars: dict[str, float]) -> None:
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
