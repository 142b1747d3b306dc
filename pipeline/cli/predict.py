"""`predict`: segments images and videos with the pushed model."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from data.console import terminal
from pipeline.cli.application import (
    DEFAULT_WORKSPACE,
    ConfigOption,
    ModelOption,
    ServingOption,
    SetOption,
    VerboseOption,
    WorkspaceOption,
    quietly,
    serving_root,
)
from pipeline.rollback import choose_serving_dir

if TYPE_CHECKING:
    from pipeline.prediction.journal import Prediction
    from pipeline.prediction.newest import Newest
    from pipeline.prediction.pictures import Picture, State
    from pipeline.prediction.predictor import Outcome, Predictor, Task
    from pipeline.prediction.tally import Tally

#: Seconds between two looks at watched folders. A picture counts as complete when it is the same in both.
WATCH_SECONDS = 2.0

#: Threads that read and write, at most: each holds a picture or two in memory.
MOST_THREADS = 8


@dataclass(frozen=True)
class Request:
    """What a person asks for on the command line."""

    pictures: Sequence[str]
    """Files, folders, patterns; on this machine or in an object store."""
    out: str
    probability: bool
    max_pixels: int
    every: int
    """Of the frames of a video, one out of so many."""
    overlay_video: bool = False
    """Whether the overlays of a video are joined to one, too."""

    def task(self, serving: str, model_name: str | None) -> Task:
        """What this asks of the pushed model."""
        from components.publishing.directory import served
        from pipeline.prediction.predictor import Task

        model = served(choose_serving_dir(absolute(serving), model_name))
        assert model is not None  # noqa: S101  # the directory was chosen because it holds a version
        return Task(model, absolute(self.out), self.probability, self.max_pixels)


def predict(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...", help="Pictures, videos, folders of pictures, quoted patterns; also s3://, gs://."
        ),
    ],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder or URI for masks and overlays.")],
    probability: Annotated[
        bool, typer.Option("--probability", help="Write how probable each pixel's class is, too.")
    ] = False,
    max_pixels: Annotated[
        int, typer.Option("--max-pixels", min=1, help="Pictures with more are set aside.")
    ] = 25_000_000,
    every: Annotated[int, typer.Option("--every", min=1, metavar="N", help="Every N-th frame of a video.")] = 1,
    overlay_video: Annotated[
        bool, typer.Option("--overlay-video", help="Join the overlays of a video's frames to a video, too.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on with pictures that come later.")] = False,
    beam: Annotated[
        bool, typer.Option("--beam", help="Share the work as section beam of the configuration says: no videos.")
    ] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
    model: ModelOption = None,
    serving: ServingOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    verbose: VerboseOption = False,
) -> None:
    """Segment pictures with the pushed model; what was done before is not done again."""
    request = Request(images, out, probability, max_pixels, every, overlay_video)
    root = serving_root(serving, workspace)
    if watch and (beam or overlay_video):
        raise typer.BadParameter("--watch goes neither with --beam nor with --overlay-video")
    if beam:
        predict_on_beam_command(request, root, model, (config, set_ or []), verbose=verbose)
        return
    if config or set_:
        raise typer.BadParameter("--config and --set go with --beam, whose workers they name")
    predict_command(request, root, model, watch=watch, verbose=verbose)


def load(task: Task) -> Predictor:
    """Loads the model."""
    from pipeline.prediction.predictor import Predictor, load_model

    return Predictor(load_model(task.model), task, workers=min(os.cpu_count() or 1, MOST_THREADS))


def absolute(path: str) -> str:
    """A path that means the same in every process; URIs are left alone."""
    from components.storage.file_systems import is_local

    return str(Path(path).absolute()) if is_local(path) else path


def predict_command(request: Request, serving: str, model_name: str | None, *, watch: bool, verbose: bool) -> None:
    """`predict`: masks and overlays by the pushed model."""
    from pipeline.prediction.listing import find_pictures

    found = find_pictures(request.pictures, absolute(request.out), allow_none=watch)
    with quietly(verbose):
        if watch:
            watch_pictures(request, partial(request.task, serving, model_name))
            return
        task = request.task(serving, model_name)
        task.prepare()
        predictor = load(task)
        tally, shown = follow(predictor, found, request.every)
        if request.overlay_video:
            join_overlays(predictor, found, request.every)
    console = Console()
    show_predictions(shown, console)
    show_tally(tally, task, console)


def predict_on_beam_command(
    request: Request, serving: str, model_name: str | None, config: tuple[Path | None, Sequence[str]], *, verbose: bool
) -> None:
    """`predict --beam`: the same by the workers that section `beam` of a configuration names."""
    from pipeline.config import load_section
    from pipeline.sections.beam import BeamConfig

    file, overrides = config
    beam = load_section(file, overrides, BeamConfig)
    beam.require_servers()
    with quietly(verbose):
        from pipeline.prediction.batch import predict_on_beam

        task = request.task(serving, model_name)
        task.prepare()
        tally = predict_on_beam([absolute(argument) for argument in request.pictures], task, beam.arguments())
    show_tally(tally, task, Console())


def follow(predictor: Predictor, found: Sequence[Picture], every: int) -> tuple[Tally, list[Prediction]]:
    """Predicts under a progress bar; what became of all, and the first of the new predictions."""
    from pipeline.prediction.tally import MOST_LISTED, Tally, add_up
    from pipeline.prediction.video import with_frames

    tally = Tally()
    shown: list[Prediction] = []
    outcomes = predictor.predict(with_frames(found, every))
    for prediction, new in track(outcomes, "segmenting", _total(found, every), console=terminal()):
        tally = add_up([tally, Tally.of(prediction, new)])
        if new and len(shown) <= MOST_LISTED:
            shown.append(prediction)
    return tally, shown


def _total(found: Sequence[Picture], every: int) -> int | None:
    from pipeline.prediction.video import count_frames

    counts = [count_frames(picture, every) if picture.is_video else 1 for picture in found]
    return None if None in counts else sum(count or 0 for count in counts)


def join_overlays(predictor: Predictor, found: Sequence[Picture], every: int) -> None:
    """Makes a video of the overlays of each video."""
    for video in track([picture for picture in found if picture.is_video], "joining overlays", console=terminal()):
        predictor.join_overlays(video, every)


def show_predictions(predictions: Sequence[Prediction], console: Console) -> None:
    """A table of a few pictures."""
    from pipeline.prediction.tally import MOST_LISTED

    if not 0 < len(predictions) <= MOST_LISTED:
        return
    table = Table("picture", "score", "classes")
    for prediction in predictions:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in prediction.fractions.items())
        score = "" if prediction.score is None else f"{prediction.score:.2f}"
        table.add_row(escape(prediction.picture), score, escape(shares))
    console.print(table)


def show_tally(tally: Tally, task: Task, console: Console) -> None:
    """Says what became of all pictures; raises DataError if some have no outputs."""
    console.print(
        f"{tally.done} pictures by version {task.model.version}, {tally.before} were done before, {tally.failed} "
        f"failed; masks, overlays and a legend are in {task.out}",
        markup=False,
    )
    tally.require_readable()


def watch_pictures(request: Request, look: Callable[[], Task]) -> None:
    """Predicts whatever comes, as soon as it is complete, until it is interrupted.

    Args:
        request: What a person asks for.
        look: What that is, of the version that is served now.
    """
    from pipeline.prediction.newest import Newest

    console = terminal()
    newest = Newest(look, load, console)
    console.print(f"watching {', '.join(request.pictures)}; Ctrl-C ends", markup=False)
    try:
        for outcome in _arriving(request, newest):
            if outcome.new:
                console.print(f"{outcome.prediction.picture}: {outcome.prediction.error or 'done'}", markup=False)
    except KeyboardInterrupt:
        console.print("stopped", markup=False)


def _arriving(request: Request, newest: Newest) -> Iterator[Outcome]:
    from pipeline.prediction.listing import find_pictures
    from pipeline.prediction.video import with_frames

    before: dict[str, State | None] = {}
    tried: dict[str, State | None] = {}
    while True:
        if newest.changed():
            tried = {}  # As if the command were started again: the legend is that of the new version.
        found = find_pictures(request.pictures, absolute(request.out), allow_none=True)
        now = {picture.path: picture.state for picture in found}
        complete = [p for p in found if p.state and before.get(p.path) == p.state != tried.get(p.path)]
        tried |= {picture.path: picture.state for picture in complete}
        yield from newest.predictor.predict(with_frames(complete, request.every))
        before = now
        time.sleep(WATCH_SECONDS)
