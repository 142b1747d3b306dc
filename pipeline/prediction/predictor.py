"""Predicts masks and overlays of images: reads images ahead and writes outputs behind while the model computes."""

import errno
import heapq
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple, Self, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from components.publishing.directory import ModelVersion
from components.storage.trees import local_copy
from data.errors import DataError
from data.images import read_image
from models.export.segmenter import Segmenter
from pipeline.prediction.input_image import InputImage
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
from pipeline.prediction.video import joined_overlays, write_overlay_video

#: No supported format needs more bytes per pixel; a larger file is not read.
BYTES_A_PIXEL = 8

#: Errors that mean an invalid output name: the problem is with the image, not with the folder.
NAME_ERRORS = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST)

#: Failed images beyond this number are counted, but not listed.
MOST_LISTED = 50

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class PredictJob:
    """The settings of a prediction job. It is serialized for Beam's workers."""

    model: ModelVersion
    out: str
    """Folder of the outputs, an absolute path or a URI."""
    probability: bool
    """Whether each pixel's probability of its class is also written; images done without it are done again."""
    max_pixels: int
    """Larger images are not decoded."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the model."""
        return self.model.record.model_fingerprint

    def prepare(self) -> None:
        """Creates the folder of the outputs, and writes the files that explain them."""
        prepare_folder(self.out, self.model.record.class_names)


class PredictedImage(NamedTuple):
    """The result of an image, and whether it was made now."""

    prediction: Prediction
    new: bool


class PredictionCounts(BaseModel):
    """PredictionCounts of images, and some of the failed ones."""

    model_config = ConfigDict(frozen=True)

    done: int = 0
    """Number of images whose outputs were written."""
    before: int = 0
    """Number of images whose outputs an earlier process wrote."""
    failed: int = 0
    """Number of images without outputs."""
    failures: tuple[str, ...] = ()
    """Failed images and the reasons: the first in alphabetical order, at most `MOST_LISTED`."""

    @classmethod
    def of(cls, result: PredictedImage) -> Self:
        """The counts of one image."""
        prediction, new = result
        if prediction.error:
            return cls(failed=1, failures=(f"{prediction.image}: {prediction.error}",))
        return cls(done=int(new), before=int(not new))


def sum_counts(summands: Iterable[PredictionCounts]) -> PredictionCounts:
    """The counts of all images together."""
    summands = list(summands)
    failures = chain.from_iterable(counts.failures for counts in summands)
    return PredictionCounts(
        done=sum(counts.done for counts in summands),
        before=sum(counts.before for counts in summands),
        failed=sum(counts.failed for counts in summands),
        failures=tuple(heapq.nsmallest(MOST_LISTED, failures)),
    )


@dataclass(frozen=True)
class _Loaded:
    """An image in memory, or why it could not be read, or its result of an earlier process."""

    image: InputImage
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


def load_model(model: ModelVersion) -> Segmenter:
    """Loads a pushed model, from an object store by way of a copy on this machine."""
    with local_copy(model.path) as path:
        return Segmenter(path)


class Predictor:
    """Predicts images with a model, and writes the outputs to a folder.

    Args:
        segmenter: The loaded model of the job.
        job: The prediction job.
        workers: Number of threads that read and write; as many images wait before and after the model.
    """

    def __init__(self, segmenter: Segmenter, job: PredictJob, workers: int) -> None:
        self._segmenter = segmenter
        self._job = job
        self._workers = workers
        self._names = segmenter.label_map.names
        self._journal = Journal(job.out)

    def find(self, image: InputImage) -> Prediction | None:
        """The result of this model for the image in its current state, from this or an earlier process."""
        found = self._journal.find(image, self._job.fingerprint)
        return None if found and not found.error and self._job.probability > found.probability else found

    def predict(self, images: Iterable[InputImage]) -> Iterator[PredictedImage]:
        """Writes a palette mask and an overlay for each image, unless that was done before.

        For an unusable image, the result is an error instead.

        Raises:
            WorkspaceError: The outputs cannot be written.
        """
        with ThreadPoolExecutor(self._workers) as pool, self._recording():
            loaded = _ahead(pool, self._load, map(self._begin, images), self._workers)
            for image, result in _ahead(pool, self._write, map(self._segment, loaded), self._workers):
                if result.new:
                    self._journal.add(image, result.prediction)
                yield result

    def join_overlays(self, video: InputImage, every: int) -> None:
        """Joins the overlays of a video's frames into one video, named like the outputs of images.

        Raises:
            WorkspaceError: The video cannot be written.
        """
        joined = joined_overlays(video)
        prediction, last = self._prediction(joined).model_copy(update={"joined": True}), self._journal.last(joined)
        made = last.endings if last else ()
        path = os.path.join(self._job.out, prediction.name + OVERLAY_VIDEO_ENDING)
        with self._recording():
            if not made and is_foreign(path):
                prediction = prediction.model_copy(update={"error": not_ours(path)})
            elif not write_overlay_video(video, every, self._job.out, prediction.name, self.find):
                prediction = prediction.model_copy(update={"error": "no frame has an overlay"})
                remove_outputs(self._job.out, prediction.name, made)
            if prediction != last:
                self._journal.add(joined, prediction)

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """Makes sure that the journal is complete at the end, also after an error."""
        try:
            try:
                yield
            finally:
                self._journal.flush()
        except OSError as error:
            raise unwritable(self._job.out, error) from None

    def _begin(self, image: InputImage) -> _Loaded:
        """Looks an image up in the journal, which only one thread does."""
        if found := self.find(image):
            return _Loaded(image, found, new=False)
        last = self._journal.last(image)
        return _Loaded(image, self._prediction(image), last.endings if last else ())

    def _prediction(self, image: InputImage) -> Prediction:
        name = self._journal.name(image)
        return Prediction(image=image.path, state=image.state, model=self._job.fingerprint, name=name)

    def _load(self, begun: _Loaded) -> _Loaded:
        if not begun.new:
            return begun
        image, prediction = begun.image, begun.prediction
        try:
            content = image.read(BYTES_A_PIXEL * self._job.max_pixels)
        except DataError as error:  # An unreadable file may become readable later without a change of its state.
            return replace(begun, prediction=prediction.model_copy(update={"error": str(error), "state": None}))
        try:
            encoded, pixels = read_image(content, self._job.max_pixels, "--max-pixels")
        except DataError as error:
            return replace(begun, prediction=prediction.model_copy(update={"error": str(error)}))
        return replace(begun, pixels=pixels, encoded=encoded)

    def _segment(self, loaded: _Loaded) -> _Segmented:
        if loaded.pixels is None:
            return _Segmented(loaded, loaded.prediction)
        try:
            if self._job.probability:
                mask, confidences, score = self._segmenter.confidences(loaded.encoded)
            else:
                [(mask, score)] = self._segmenter.predict([loaded.encoded])
                confidences = None
        except DataError as error:
            return _Segmented(loaded, loaded.prediction.model_copy(update={"error": str(error)}))
        counts = np.bincount(mask.ravel(), minlength=len(self._names))
        order = sorted(np.flatnonzero(counts), key=lambda class_id: -counts[class_id])
        fractions = {self._names[i]: float(counts[i] / mask.size) for i in order}
        found = {"score": score, "fractions": fractions, "probability": confidences is not None}
        return _Segmented(loaded, loaded.prediction.model_copy(update=found), mask, confidences)

    def _write(self, segmented: _Segmented) -> tuple[InputImage, PredictedImage]:
        loaded, prediction = segmented.loaded, segmented.prediction
        outputs: dict[str, bytes] = {}
        if loaded.pixels is not None and segmented.mask is not None:
            outputs = encode_outputs(loaded.pixels, segmented.mask, segmented.confidences, len(self._names))
        if problem := self._save(prediction.name, outputs, loaded.stale):
            prediction = loaded.prediction.model_copy(update={"error": problem, "state": None})
        return loaded.image, PredictedImage(prediction, loaded.new)

    def _save(self, name: str, outputs: dict[str, bytes], stale: tuple[str, ...]) -> str:
        """Makes these the only outputs of one image; returns the reason if the name makes it fail.

        Only files that are recorded in the journal or have the mark are replaced, and only recorded ones are removed:
        other files of that name belong to the user.
        """
        written: list[str] = []
        paths = {ending: os.path.join(self._job.out, name + ending) for ending in outputs}
        try:
            for ending, path in paths.items():
                if ending not in stale and is_foreign(path):
                    return not_ours(path)
            for ending, content in outputs.items():
                write_output(paths[ending], content)
                written.append(ending)
            remove_outputs(self._job.out, name, set(stale).difference(written))
        except OSError as error:
            if error.errno not in NAME_ERRORS:
                raise unwritable(self._job.out, error) from None
            remove_outputs(self._job.out, name, written)
            return f"its outputs cannot be written: {error.strerror}"
        return ""


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], count: int
) -> Iterator[Result]:
    """`map` in threads, in order, at most `count` results ahead of the consumer."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > count:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
