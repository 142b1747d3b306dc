"""Progress of a training, reported to an observer or shown on the console."""

from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from models.training.validation import Evaluation


class Progress(Protocol):
    """Receives the progress of a training."""

    def begin(self, step: int, steps: int) -> None:
        """Training begins after `step` of `steps` steps; `step` is not 0 where it resumes."""

    def update(self, step: int, loss: float, images_per_second: float) -> None:
        """`step` steps are done; `loss` is the mean loss since the last update."""

    def evaluated(self, evaluation: Evaluation, best: bool) -> None:
        """The validation split was evaluated; `best` is whether the score is the best so far."""


class NoProgress:
    """Shows nothing."""

    def begin(self, step: int, steps: int) -> None:
        pass

    def update(self, step: int, loss: float, images_per_second: float) -> None:
        pass

    def evaluated(self, evaluation: Evaluation, best: bool) -> None:
        pass


class ProgressBar:
    """A bar with loss, images per second and remaining time; a line for each evaluation. A context manager.

    Args:
        console: where it is drawn; on a console that is not a terminal, only the lines are written.
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
