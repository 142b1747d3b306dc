"""The curves of a training as geometry for an SVG."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.evaluation import Evaluation

WIDTH, HEIGHT = 440, 240
LEFT, RIGHT, TOP, BOTTOM = 36, 428, 10, 212
MOST_STEP_TICKS = 5


@dataclass(frozen=True)
class Line:
    """One polyline."""

    name: str
    points: str
    """As SVG wants them: "x,y x,y ..."."""


@dataclass(frozen=True)
class Curves:
    """Validation scores over steps; IoU from 0 at `BOTTOM` to 1 at `TOP`, step 0 at `LEFT`."""

    mean: Line
    classes: list[Line]
    best: tuple[float, float]
    """Where the kept weights' mean IoU stands."""
    iou_ticks: list[tuple[float, float]]
    """(y, IoU)."""
    step_ticks: list[tuple[float, int]]
    """(x, step)."""


def curves(history: Sequence[Evaluation], best: Evaluation, class_names: Sequence[str]) -> Curves:
    """Draws a training's evaluations, of which there is at least one."""
    last = history[-1].step

    def place(evaluation: Evaluation, iou: float) -> tuple[float, float]:
        return round(LEFT + (RIGHT - LEFT) * evaluation.step / last, 1), _height(iou)

    def line(name: str, scores: Sequence[float | None]) -> Line:
        places = [place(e, iou) for e, iou in zip(history, scores, strict=True) if iou is not None]
        return Line(name, " ".join(f"{x},{y}" for x, y in places))

    every = -(-len(history) // MOST_STEP_TICKS)
    shown = history[::-1][::every][::-1]  # the last step always has its tick
    return Curves(
        mean=line("mean IoU", [evaluation.mean_iou for evaluation in history]),
        classes=[line(name, [e.iou[number] for e in history]) for number, name in enumerate(class_names)],
        best=place(best, best.mean_iou),
        iou_ticks=[(_height(quarter / 4), quarter / 4) for quarter in range(5)],
        step_ticks=[(place(evaluation, 0.0)[0], evaluation.step) for evaluation in shown],
    )


def _height(iou: float) -> float:
    return round(BOTTOM + (TOP - BOTTOM) * iou, 1)
