"""`predict --beam`: the same outputs, made by the workers of an Apache Beam pipeline. See `docs/prediction.md`.

Only the description of an image (path, name, state) is shuffled, never the image. A shard of the journal is processed
by one worker at a time, which therefore needs no coordination to know what is done, name outputs and record results.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import apache_beam as beam
from apache_beam.utils.shared import Shared

from components.storage.atomic import read_small, write_small
from data.errors import DataError, WorkspaceError
from pipeline.prediction.input_image import InputImage
from pipeline.prediction.journal import shard_of
from pipeline.prediction.listing import NOTHING_THERE, OwnOutputs, list_images, names_output
from pipeline.prediction.outputs import JOURNAL_FOLDER
from pipeline.prediction.predictor import PredictionCounts, PredictJob, Predictor, load_model, sum_counts

COUNTS_FILE = "summary.json"

NO_VIDEOS = "a video is read from one end to the other, so that there is nothing to share: predict it without --beam"

#: Number of threads of each shard that read ahead and write behind.
THREADS = 2


def predict_on_beam(arguments: Sequence[str], job: PredictJob, beam_arguments: Sequence[str]) -> PredictionCounts:
    """Predicts the images that the arguments name, on the workers that Beam's options select.

    Args:
        arguments: Arguments of `find_images`: absolute paths or URIs that every worker can read. One that matches
            nothing counts as an image that failed.
        job: The prediction job.
        beam_arguments: Beam's pipeline options.
    """
    path = os.path.join(job.out, JOURNAL_FOLDER, COUNTS_FILE)
    with beam.Pipeline(argv=list(beam_arguments)) as pipeline:
        _ = (
            pipeline
            | "Arguments" >> beam.Create(arguments)
            | "List" >> beam.FlatMap(list_argument, out=job.out)
            | "Shard" >> beam.WithKeys(lambda image: shard_of(image.name))
            | "Shards" >> beam.GroupByKey()
            | "Predict" >> beam.ParDo(PredictShard(job))
            | "SumCounts" >> beam.CombineGlobally(sum_counts)
            | "WriteCounts" >> beam.Map(lambda counts: write_small(path, counts.model_dump_json(indent=2).encode()))
        )
    written = read_small(path)
    if written is None:
        raise WorkspaceError(f"{path}: was written by a worker, but cannot be read here; --out must be a shared folder")
    return PredictionCounts.model_validate_json(written)


def list_argument(argument: str, out: str) -> Iterator[InputImage]:
    """The images of one argument; if there are none, a failed image that reports it."""
    found, own = False, OwnOutputs()
    try:
        for image in list_images(argument, out, own):
            found = True
            yield replace(image, problem=NO_VIDEOS) if image.is_video else image
        problem = "" if found or names_output(argument, own) else NOTHING_THERE
    except DataError as error:
        problem = str(error)
    if problem:
        yield InputImage(argument, argument, None, problem)


class PredictShard(beam.DoFn):
    """Maps (shard, images) to the counts of each image. One model is loaded for all threads of a process."""

    def __init__(self, job: PredictJob) -> None:
        self._job = job
        self._shared = Shared()

    def setup(self) -> None:
        """Loads the model, or uses the one that another thread has loaded."""
        self._segmenter = self._shared.acquire(lambda: load_model(self._job.model), self._job.fingerprint)

    def process(self, shard: tuple[str, Iterable[InputImage]]) -> Iterator[PredictionCounts]:
        """Predicts the images that were not done before; an image that several arguments name is predicted once."""
        images = sorted(set(shard[1]), key=lambda image: image.path)
        yield from map(PredictionCounts.of, Predictor(self._segmenter, self._job, THREADS).predict(images))
