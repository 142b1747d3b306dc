"""`predict --beam`: the same outputs, made by the workers of an Apache Beam pipeline. See `docs/prediction.md`.

What is shuffled is the description of a picture (path, name, state), never a picture. A shard of the journal goes to
one worker at a time, which then knows alone what was done, how outputs are named, and what to record.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import apache_beam as beam
from apache_beam.utils.shared import Shared

from components.storage.atomic import read_small, write_small
from data.errors import DataError, WorkspaceError
from pipeline.prediction.journal import shard_of
from pipeline.prediction.listing import NOTHING_THERE, list_pictures, names_output
from pipeline.prediction.outputs import JOURNAL_FOLDER
from pipeline.prediction.own_outputs import OwnOutputs
from pipeline.prediction.pictures import Picture
from pipeline.prediction.predictor import Predictor, Task, load_model
from pipeline.prediction.tally import Tally, add_up

TALLY_FILE = "summary.json"

NO_VIDEOS = "a video is read from one end to the other, so that there is nothing to share: predict it without --beam"

#: Threads of each shard that read ahead and write behind.
THREADS = 2


def predict_on_beam(arguments: Sequence[str], task: Task, beam_arguments: Sequence[str]) -> Tally:
    """Predicts what the arguments name, where Beam's options say.

    Args:
        arguments: As `find_pictures` takes them, absolute paths or URIs that every worker reaches. One that names
            nothing counts as a picture that failed.
        task: What is asked.
        beam_arguments: Options of Beam.
    """
    path = os.path.join(task.out, JOURNAL_FOLDER, TALLY_FILE)
    with beam.Pipeline(argv=list(beam_arguments)) as pipeline:
        _ = (
            pipeline
            | "Arguments" >> beam.Create(arguments)
            | "List" >> beam.FlatMap(list_argument, out=task.out)
            | "Shard" >> beam.WithKeys(shard_of)
            | "Shards" >> beam.GroupByKey()
            | "Predict" >> beam.ParDo(PredictShard(task))
            | "AddUp" >> beam.CombineGlobally(add_up)
            | "WriteTally" >> beam.Map(write_tally, path=path)
        )
    written = read_small(path)
    if written is None:
        raise WorkspaceError(f"{path}: was written by a worker, but cannot be read here; --out must be a shared folder")
    return Tally.model_validate_json(written)


def list_argument(argument: str, out: str) -> Iterator[Picture]:
    """The pictures of one argument; where there are none, one that says so."""
    found, own = False, OwnOutputs()
    try:
        for picture in list_pictures(argument, out, own):
            found = True
            yield replace(picture, problem=NO_VIDEOS) if picture.is_video else picture
        problem = "" if found or names_output(argument, own) else NOTHING_THERE
    except DataError as error:
        problem = str(error)
    if problem:
        yield Picture(argument, argument, None, problem)


class PredictShard(beam.DoFn):
    """(shard, pictures) -> the tally of each picture. One model is loaded for all threads of a process."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._shared = Shared()

    def setup(self) -> None:
        """Loads the model, or takes the one that another thread has loaded."""
        self._segmenter = self._shared.acquire(lambda: load_model(self._task.model), self._task.fingerprint)

    def process(self, shard: tuple[str, Iterable[Picture]]) -> Iterator[Tally]:
        """Predicts what was not done before; equal pictures, which several arguments named, once."""
        pictures = sorted(set(shard[1]), key=lambda picture: picture.path)
        for prediction, new in Predictor(self._segmenter, self._task, THREADS).predict(pictures):
            yield Tally.of(prediction, new)


def write_tally(tally: Tally, path: str) -> None:
    """Writes what all came to."""
    write_small(path, tally.model_dump_json(indent=2).encode())
