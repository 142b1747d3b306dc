"""From pictures to masks and overlays: pictures are read ahead and outputs written behind while the model works."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw

from components.serving_directory import Published
from data.errors import DataError
from data.images import LARGEST_IMAGE, read_image
from data.labels import Color
from data.masks import overlay, palette
from models.export import load_segmenter
from pipeline.prediction.journal import Journal, Prediction, State
from pipeline.prediction.pictures import Picture

LEGEND_FILE = "legend.png"
CLASSES_FILE = "classes.json"
MASK_ENDING = "_mask.png"
OVERLAY_ENDING = "_overlay.png"
PROBABILITY_ENDING = "_probability.png"

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Loaded:
    """A picture in memory, or why it is not."""

    prediction: Prediction
    encoded: bytes
    pixels: np.ndarray
    """(height, width, 3) uint8."""


@dataclass(frozen=True)
class _Segmented:
    loaded: _Loaded
    mask: np.ndarray
    """(height, width) uint8 class ids."""
    confidences: np.ndarray | None
    """(height, width) uint8: 255 times the probability of each pixel's class."""
    prediction: Prediction


class Predictor:
    """A model that writes what it sees into a folder.

    Args:
        model: What predicts.
        out: Folder; made if absent. A legend of the classes goes there, too.
        workers: Threads that read and write; as many pictures again wait on either side of the model.
        probability: Whether to write each pixel's probability of its class, too; pictures that were done without it
            are done again.
    """

    def __init__(self, model: Published, out: Path, workers: int, *, probability: bool = False) -> None:
        self._fingerprint = model.record.model_fingerprint
        self._segmenter = load_segmenter(model.path)
        self._names = self._segmenter.label_map.names
        self._colors = palette(len(self._names))
        self._out = out
        self._workers = workers
        self._probability = probability
        out.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(out)
        self._write_legend()

    def _write_legend(self) -> None:
        draw_legend(self._names, self._colors).save(self._out / LEGEND_FILE)
        listing = [{"id": i, "name": name, "color": self._colors[i]} for i, name in enumerate(self._names)]
        (self._out / CLASSES_FILE).write_text(json.dumps(listing, indent=2), encoding="utf-8")

    def find(self, picture: Picture) -> Prediction | None:
        """What this model said of the picture as it is now, in this or an earlier process."""
        found = self._journal.find(picture, self._fingerprint)
        return None if found and not found.error and self._probability > found.probability else found

    def predict(self, pictures: Iterable[Picture]) -> Iterator[Prediction]:
        """Writes for each picture a palette mask and an overlay; a picture that cannot be read has an error instead."""
        with ThreadPoolExecutor(self._workers) as pool:
            named = ((picture, self._journal.name(picture)) for picture in pictures)
            loaded = _ahead(pool, self._load, named, self._workers)
            for prediction in _ahead(pool, self._write, map(self._segment, loaded), self._workers):
                self._journal.add(prediction)
                yield prediction

    def _load(self, named: tuple[Picture, str]) -> _Loaded:
        picture, name = named
        prediction = Prediction(
            picture=picture.path.absolute(), state=State.of(picture.path), model=self._fingerprint, name=name
        )
        try:
            encoded, pixels = read_image(picture.path.read_bytes(), LARGEST_IMAGE)
        except OSError as error:
            reason = f"cannot be read: {error.strerror or error}"
        except DataError as error:
            reason = str(error)
        else:
            return _Loaded(prediction, encoded, pixels)
        return _Loaded(prediction.model_copy(update={"error": reason}), b"", np.zeros((0, 0, 3), np.uint8))

    def _segment(self, loaded: _Loaded) -> _Segmented:
        if loaded.prediction.error:
            return _Segmented(loaded, loaded.pixels[:, :, 0], None, loaded.prediction)
        try:
            mask, confidences, score = self._ask(loaded.encoded)
        except DataError as error:
            failed = loaded.prediction.model_copy(update={"error": str(error)})
            return _Segmented(loaded, loaded.pixels[:, :, 0], None, failed)
        counts = np.bincount(mask.ravel(), minlength=len(self._names))
        order = sorted(np.flatnonzero(counts), key=lambda class_id: -counts[class_id])
        fractions = {self._names[i]: float(counts[i] / mask.size) for i in order}
        found = {"score": score, "fractions": fractions, "probability": confidences is not None}
        return _Segmented(loaded, mask, confidences, loaded.prediction.model_copy(update=found))

    def _ask(self, encoded: bytes) -> tuple[np.ndarray, np.ndarray | None, float]:
        """Class ids, probabilities in steps of 1/255 where they are wanted, and the score."""
        if self._probability:
            return self._segmenter.confidences(encoded)
        [(mask, score)] = self._segmenter.predict([encoded])
        return mask, None, score

    def _write(self, segmented: _Segmented) -> Prediction:
        prediction = segmented.prediction
        if not prediction.error:
            stem = self._out / prediction.name
            stem.parent.mkdir(parents=True, exist_ok=True)
            indexed = Image.fromarray(segmented.mask, "P")
            indexed.putpalette([channel for color in self._colors for channel in color])
            indexed.save(f"{stem}{MASK_ENDING}")
            Image.fromarray(overlay(segmented.loaded.pixels, segmented.mask)).save(f"{stem}{OVERLAY_ENDING}")
            if segmented.confidences is not None:
                Image.fromarray(segmented.confidences).save(f"{stem}{PROBABILITY_ENDING}")
        return prediction


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


def draw_legend(names: Sequence[str], colors: Sequence[Color]) -> Image.Image:
    """A picture of the classes: a square of the colour and the name, one class a row."""
    row, margin = 24, 6
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    width = max(int(probe.textlength(name)) for name in names)
    legend = Image.new("RGB", (row + width + 3 * margin, row * len(names) + margin), "white")
    pen = ImageDraw.Draw(legend)
    for number, name in enumerate(names):
        top = number * row + margin
        pen.rectangle((margin, top, row, top + row - margin), fill=colors[number], outline="black")
        pen.text((row + 2 * margin, top + 3), name, fill="black")
    return legend
