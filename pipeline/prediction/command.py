"""What `local_runner.py predict` does and prints. Importing this module is cheap."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from data.errors import DataError
from models.console import terminal
from pipeline.commands import quietly
from pipeline.rollback import choose_serving_dir

if TYPE_CHECKING:
    from pipeline.prediction.journal import Prediction
    from pipeline.prediction.predictor import Predictor

#: More pictures than these are counted, not listed.
MOST_LISTED = 50
#: Seconds between two looks at watched folders. A picture counts as complete when it is the same in both.
WATCH_SECONDS = 2.0


def predict_command(
    arguments: Sequence[str],
    out: Path,
    serving: str,
    model_name: str | None,
    *,
    probability: bool,
    watch: bool,
    verbose: bool,
) -> None:
    """`predict`: masks and overlays by the pushed model."""
    from components.serving_directory import served
    from pipeline.prediction.pictures import find_pictures

    pictures = find_pictures(arguments, out, allow_none=watch)
    model = served(choose_serving_dir(serving, model_name))
    assert model is not None  # noqa: S101  # the directory was chosen because it holds a version
    console = Console()
    with quietly(verbose):
        from pipeline.prediction.predictor import Predictor

        predictor = Predictor(model, out, workers=os.cpu_count() or 1, probability=probability)
        if watch:
            watch_pictures(arguments, out, predictor)
            return
        new = [picture for picture in pictures if predictor.find(picture) is None]
        predictions = list(track(predictor.predict(new), "segmenting", len(new), console=terminal()))
    show_predictions(predictions, console)
    console.print(
        f"{len(predictions)} pictures by version {model.version}, {len(pictures) - len(new)} were done before; "
        f"masks, overlays and a legend are in {out}",
        markup=False,
    )
    require_readable([found for found in map(predictor.find, pictures) if found is not None])


def show_predictions(predictions: Sequence[Prediction], console: Console) -> None:
    """A table of a few pictures."""
    if not 0 < len(predictions) <= MOST_LISTED:
        return
    table = Table("picture", "score", "classes")
    for prediction in predictions:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in prediction.fractions.items())
        score = "" if prediction.score is None else f"{prediction.score:.2f}"
        table.add_row(escape(str(prediction.picture)), score, escape(shares))
    console.print(table)


def require_readable(predictions: Sequence[Prediction]) -> None:
    """Raises DataError if there are pictures without outputs; names the first ones."""
    failed = [f"{prediction.picture}: {prediction.error}" for prediction in predictions if prediction.error]
    if failed:
        more = f"\nand {len(failed) - MOST_LISTED} more" if len(failed) > MOST_LISTED else ""
        raise DataError("\n".join(failed[:MOST_LISTED]) + more)


def watch_pictures(arguments: Sequence[str], out: Path, predictor: Predictor) -> None:
    """Predicts whatever comes, as soon as it is complete, until it is interrupted."""
    from pipeline.prediction.journal import State
    from pipeline.prediction.pictures import find_pictures

    console = terminal()
    console.print(f"watching {', '.join(arguments)}; Ctrl-C ends", markup=False)
    before: dict[Path, State | None] = {}
    try:
        while True:
            found = find_pictures(arguments, out, allow_none=True)
            now = {picture.path: State.of(picture.path) for picture in found}
            complete = [p for p in found if p.path in before and before[p.path] == now[p.path]]
            for prediction in predictor.predict(p for p in complete if predictor.find(p) is None):
                console.print(f"{prediction.picture}: {prediction.error or 'done'}", markup=False)
            before = now
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        console.print("stopped", markup=False)
