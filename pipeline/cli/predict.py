"""`predict`: segments images and videos with the pushed model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
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
from data.errors import DataError
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

if TYPE_CHECKING:
    from pipeline.prediction.input_image import InputImage
    from pipeline.prediction.journal import Prediction
    from pipeline.prediction.predictor import PredictionCounts, PredictJob, Predictor

#: Maximum number of threads that read and write; each holds one or two images in memory.
MOST_THREADS = 8


@dataclass(frozen=True)
class PredictOptions:
    """The options of the command line."""

    images: Sequence[str]
    """Files, folders and patterns, on this machine or in an object store."""
    out: str
    probability: bool
    max_pixels: int
    every: int
    """Step between the frames of a video that are predicted: 1 for every frame."""
    overlay_video: bool = False
    """Whether the overlays of a video are also joined into a video."""

    def job(self, serving: str, model_name: str | None) -> PredictJob:
        """The job for the pushed model."""
        from components.publishing.directory import served
        from pipeline.prediction.predictor import PredictJob
        from pipeline.rollback import choose_serving_dir

        model = served(choose_serving_dir(absolute(serving), model_name))
        assert model is not None  # noqa: S101  # the directory was chosen because it contains a version
        return PredictJob(model, absolute(self.out), self.probability, self.max_pixels)


def predict(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...", help="Images, videos, folders of images, quoted patterns; also s3://, gs://."
        ),
    ],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder or URI for masks and overlays.")],
    probability: Annotated[
        bool, typer.Option("--probability", help="Also write the probability of each pixel's class.")
    ] = False,
    max_pixels: Annotated[
        int, typer.Option("--max-pixels", min=1, help="An image with more is not decoded, and fails.")
    ] = 25_000_000,
    every: Annotated[int, typer.Option("--every", min=1, metavar="N", help="Every N-th frame of a video.")] = 1,
    overlay_video: Annotated[
        bool, typer.Option("--overlay-video", help="Also join the overlays of a video's frames into a video.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Continue with images that arrive later.")] = False,
    beam: Annotated[
        bool, typer.Option("--beam", help="Distribute the work as configured in section beam; no videos.")
    ] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
    model: ModelOption = None,
    serving: ServingOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    verbose: VerboseOption = False,
) -> None:
    """Segment images with the pushed model; what was done before is not done again."""
    if watch and (beam or overlay_video):
        raise typer.BadParameter("--watch cannot be combined with --beam or --overlay-video")
    if not beam and (config or set_):
        raise typer.BadParameter("--config and --set need --beam, whose workers they configure")
    options = PredictOptions(images, out, probability, max_pixels, every, overlay_video)
    find_job = partial(options.job, serving_root(serving, workspace), model)
    console = Console()
    if beam:
        from pipeline.config import load_section
        from pipeline.sections.beam import BeamConfig

        workers = load_section(config or [], set_ or [], BeamConfig)
        workers.require_servers()
        with quietly(verbose):
            from pipeline.prediction.batch import predict_on_beam

            job = find_job()
            job.prepare()
            counts = predict_on_beam([absolute(argument) for argument in images], job, workers.arguments())
        show_counts(counts, job, console)
        return
    from pipeline.prediction.listing import find_images

    found = find_images(images, absolute(out), allow_none=watch)
    with quietly(verbose):
        if watch:
            watch_images(options, find_job)
            return
        job = find_job()
        job.prepare()
        predictor = load(job)
        counts, shown = follow(predictor, found, every)
        videos = [image for image in found if image.is_video and overlay_video]
        for video in track(videos, "joining overlays", console=terminal(), disable=not videos):
            predictor.join_overlays(video, every)
    show_predictions(shown, console)
    show_counts(counts, job, console)


def load(job: PredictJob) -> Predictor:
    """Loads the model."""
    from pipeline.prediction.predictor import Predictor, load_model

    return Predictor(load_model(job.model), job, workers=min(os.cpu_count() or 1, MOST_THREADS))


def absolute(path: str) -> str:
    """The absolute path, valid in every process; URIs are returned unchanged."""
    from components.storage.file_systems import is_local

    return str(Path(path).absolute()) if is_local(path) else path


def follow(predictor: Predictor, found: Sequence[InputImage], every: int) -> tuple[PredictionCounts, list[Prediction]]:
    """Predicts with a progress bar; returns the counts of all images, and the first of the new predictions."""
    from pipeline.prediction.predictor import MOST_LISTED, PredictionCounts, sum_counts
    from pipeline.prediction.video import count_frames, with_frames

    counts = PredictionCounts()
    shown: list[Prediction] = []
    expected = [count_frames(image, every) if image.is_video else 1 for image in found]
    total = None if None in expected else sum(count or 0 for count in expected)
    for result in track(predictor.predict(with_frames(found, every)), "segmenting", total, console=terminal()):
        counts = sum_counts([counts, PredictionCounts.of(result)])
        if result.new and len(shown) <= MOST_LISTED:
            shown.append(result.prediction)
    return counts, shown


def show_predictions(predictions: Sequence[Prediction], console: Console) -> None:
    """Prints a table of a few predictions."""
    from pipeline.prediction.predictor import MOST_LISTED

    if not 0 < len(predictions) <= MOST_LISTED:
        return
    table = Table("image", "score", "classes")
    for prediction in predictions:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in prediction.fractions.items())
        score = "" if prediction.score is None else f"{prediction.score:.2f}"
        table.add_row(escape(prediction.image), score, escape(shares))
    console.print(table)


def show_counts(counts: PredictionCounts, job: PredictJob, console: Console) -> None:
    """Prints the counts of all images; raises DataError if some have no outputs."""
    console.print(
        f"{counts.done} images by version {job.model.version}, {counts.before} were done before, {counts.failed} "
        f"failed; masks, overlays and a legend are in {job.out}",
        markup=False,
    )
    if counts.failed:
        more = counts.failed - len(counts.failures)
        raise DataError("\n".join(counts.failures) + (f"\nand {more} more" if more else ""))


def watch_images(options: PredictOptions, look: Callable[[], PredictJob]) -> None:
    """Predicts new images as soon as they are complete, until it is interrupted.

    Args:
        options: The options of the command line.
        look: Returns the job for the version that is served now.
    """
    from pipeline.prediction.watch import LatestVersion, arriving

    console = terminal()
    latest = LatestVersion(look, load, console)
    console.print(f"watching {', '.join(options.images)}; Ctrl-C ends", markup=False)
    try:
        for prediction, new in arriving(latest, options.images, absolute(options.out), options.every):
            if new:
                console.print(f"{prediction.image}: {prediction.error or 'done'}", markup=False)
    except KeyboardInterrupt:
        console.print("stopped", markup=False)
