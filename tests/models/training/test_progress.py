"""What a person sees of a training on the console."""

import io

from rich.console import Console

from models.training.progress import ProgressBar
from models.training.validation import Evaluation

EVALUATION = Evaluation(step=20, mean_iou=0.5, iou=(0.75, 0.25, None))


def test_the_bar_tells_of_resumption_progress_and_evaluations() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with ProgressBar(console) as progress:
        progress.begin(15, 40)
        progress.update(20, 1.234, 56.78)
        progress.evaluated(EVALUATION, best=True)
    text = console.file.getvalue()
    for part in ("resuming after step 15 of 40", "20/40", "1.234", "56.8 img/s", "mean IoU 0.5000, the best so far"):
        assert part in text
