"""From pictures to masks and overlays: pictures are read ahead and outputs written behind while the model works."""

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np

from components.publishing.directory import Published, local_copy
from data.errors import DataError
from data.images import read_image
from models.export.saved_model import Segmenter, load_segmenter
from pipeline.prediction.journal import Journal, Prediction
from pipeline.prediction.outputs import (
    OVERLAY_VIDEO_ENDING,
    encode_outputs,
    is_foreign,
    not_ours,
    prepare_folder,
    remove_outputs,
    unwritable,
    write_output,
)
from pipeline.prediction.overlay_video import joined_overlays, write_overlay_video
from pipeline.prediction.pictures import Picture

#: No format that is read needs more bytes a pixel; a file that has more is not read.
BYTES_A_PIXEL = 8

#: A file of the outputs cannot have the name that it should: the picture's trouble, not the folder's.
NAME_ERRORS = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST)

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Task:
    """What is asked of a model. It travels to Beam's workers."""

    model: Published
    out: str
    """Folder of the outputs, an absolute path or a URI."""
    probability: bool
    """Whether each pixel's probability of its class is written, too; pictures that were done without are done again."""
    max_pixels: int
    """Larger pictures are not decoded."""

    @property
    def fingerprint(self) -> str:
        """Of the model."""
        return self.model.record.model_fingerprint

    def prepare(self) -> None:
        """Makes the folder of the outputs, and writes what explains them."""
        prepare_folder(self.out, self.model.record.class_names)


class Outcome(NamedTuple):
    """What became of a picture, and whether it did so now."""

    prediction: Prediction
    new: bool


@dataclass(frozen=True)
class _Loaded:
    """A picture in memory; or why it is not, or what an earlier process said of it."""

    picture: Picture
    prediction: Prediction
    stale: tuple[str, ...] = ()
    """Endings of the outputs that an earlier process wrote under this name."""
    pixels: np.ndarray | None = None
    """(height, width, 3) uint8."""
    encoded: bytes = b""
    new: bool = True


@dataclass(frozen=True)
class _Segmented:
    loaded: _Loaded
    prediction: Prediction
    mask: np.ndarray | None = None
    """(height, width) uint8 class ids."""
    confidences: np.ndarray | None = None
    """(height, width) uint8: 255 times the probability of each pixel's class."""


def load_model(model: Published) -> Segmenter:
    """Loads a pushed model, from an object store by way of a copy on this machine."""
    with local_copy(model.path) as path:
        return load_segmenter(path)


class Predictor:
    """A model that writes what it sees into a folder.

    Args:
        segmenter: The loaded model of the task.
        task: What is asked.
        workers: Threads that read and write; as many pictures again wait on either side of the model.
    """

    def __init__(self, segmenter: Segmenter, task: Task, workers: int) -> None:
        self._segmenter = segmenter
        self._task = task
        self._workers = workers
        self._names = segmenter.label_map.names
        self._journal = Journal(task.out)

    def find(self, picture: Picture) -> Prediction | None:
        """What this model said of the picture as it is now, in this or an earlier process."""
        found = self._journal.find(picture, self._task.fingerprint)
        return None if found and not found.error and self._task.probability > found.probability else found

    def predict(self, pictures: Iterable[Picture]) -> Iterator[Outcome]:
        """Writes for each picture a palette mask and an overlay, unless that was done before.

        A picture that cannot be used has an error instead.

        Raises:
            WorkspaceError: The outputs cannot be written.
        """
        with ThreadPoolExecutor(self._workers) as pool, self._recording():
            loaded = _ahead(pool, self._load, map(self._begin, pictures), self._workers)
            for picture, outcome in _ahead(pool, self._write, map(self._segment, loaded), self._workers):
                if outcome.new:
                    self._journal.add(picture, outcome.prediction)
                yield outcome

    def join_overlays(self, video: Picture, every: int) -> None:
        """Joins the overlays of a video's frames to one video, named as pictures are.

        Raises:
            WorkspaceError: It cannot be written.
        """
        joined = joined_overlays(video)
        prediction, last = self._prediction(joined).model_copy(update={"joined": True}), self._journal.last(joined)
        made = last.endings if last else ()
        path = os.path.join(self._task.out, prediction.name + OVERLAY_VIDEO_ENDING)
        with self._recording():
            if not made and is_foreign(path):
                prediction = prediction.model_copy(update={"error": not_ours(path)})
            elif not write_overlay_video(video, every, self._task.out, prediction.name, self.find):
                prediction = prediction.model_copy(update={"error": "no frame has an overlay"})
                remove_outputs(self._task.out, prediction.name, made)
            if prediction != last:
                self._journal.add(joined, prediction)

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """In the end the journal is whole, however that comes."""
        try:
            try:
                yield
            finally:
                self._journal.flush()
        except OSError as error:
            raise unwritable(self._task.out, error) from None

    def _begin(self, picture: Picture) -> _Loaded:
        """Asks the journal, which one thread alone does."""
        if found := self.find(picture):
            return _Loaded(picture, found, new=False)
        last = self._journal.last(picture)
        return _Loaded(picture, self._prediction(picture), last.endings if last else ())

    def _prediction(self, picture: Picture) -> Prediction:
        name = self._journal.name(picture)
        return Prediction(picture=picture.path, state=picture.state, model=self._task.fingerprint, name=name)

    def _load(self, begun: _Loaded) -> _Loaded:
        if not begun.new:
            return begun
        picture, prediction = begun.picture, begun.prediction
        try:
            content = picture.read(BYTES_A_PIXEL * self._task.max_pixels)
        except DataError as error:  # What cannot be read today may be readable tomorrow, without having changed.
            return replace(begun, prediction=prediction.model_copy(update={"error": str(error), "state": None}))
        try:
            encoded, pixels = read_image(content, self._task.max_pixels, "--max-pixels")
        except DataError as error:
            return replace(begun, prediction=prediction.model_copy(update={"error": str(error)}))
        return replace(begun, pixels=pixels, encoded=encoded)

    def _segment(self, loaded: _Loaded) -> _Segmented:
        if loaded.pixels is None:
            return _Segmented(loaded, loaded.prediction)
        try:
            mask, confidences, score = self._ask(loaded.encoded)
        except DataError as error:
            return _Segmented(loaded, loaded.prediction.model_copy(update={"error": str(error)}))
        counts = np.bincount(mask.ravel(), minlength=len(self._names))
        order = sorted(np.flatnonzero(counts), key=lambda class_id: -counts[class_id])
        fractions = {self._names[i]: float(counts[i] / mask.size) for i in order}
        found = {"score": score, "fractions": fractions, "probability": confidences is not None}
        return _Segmented(loaded, loaded.prediction.model_copy(update=found), mask, confidences)

    def _ask(self, encoded: bytes) -> tuple[np.ndarray, np.ndarray | None, float]:
        """Class ids, probabilities in steps of 1/255 where they are wanted, and the score."""
        if self._task.probability:
            return self._segmenter.confidences(encoded)
        [(mask, score)] = self._segmenter.predict([encoded])
        return mask, None, score

    def _write(self, segmented: _Segmented) -> tuple[Picture, Outcome]:
        loaded, prediction = segmented.loaded, segmented.prediction
        outputs: dict[str, bytes] = {}
        if loaded.pixels is not None and segmented.mask is not None:
            outputs = encode_outputs(loaded.pixels, segmented.mask, segmented.confidences, len(self._names))
        if problem := self._save(prediction.name, outputs, loaded.stale):
            prediction = loaded.prediction.model_copy(update={"error": problem, "state": None})
        return loaded.picture, Outcome(prediction, loaded.new)

    def _save(self, name: str, outputs: dict[str, bytes], stale: tuple[str, ...]) -> str:
        """Makes these the only outputs of one picture; why that cannot be, where the name is to blame.

        Only what the journal knows or what has the mark is replaced, and only what the journal knows is removed: other
        files of that name are somebody's own.
        """
        written: list[str] = []
        paths = {ending: os.path.join(self._task.out, name + ending) for ending in outputs}
        try:
            for ending, path in paths.items():
                if ending not in stale and is_foreign(path):
                    return not_ours(path)
            for ending, content in outputs.items():
                write_output(paths[ending], content)
                written.append(ending)
            remove_outputs(self._task.out, name, set(stale).difference(written))
        except OSError as error:
            if error.errno not in NAME_ERRORS:
                raise unwritable(self._task.out, error) from None
            remove_outputs(self._task.out, name, written)
            return f"its outputs cannot be written: {error.strerror}"
        return ""


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], count: int
) -> Iterator[Result]:
    """`map` in threads, in order, at most `count` results ahead of what was taken."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > count:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
