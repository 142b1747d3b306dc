"""`predictions/`: the result of each image, one line each, from which an interrupted `predict` resumes.

The lines are in shards by a hash of the output's name, so that workers on several machines, each of which has some
shards to itself, name outputs, see what is done and record their results without coordination.
"""

import hashlib
import os
import re
from contextlib import suppress

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from components.storage.atomic import read_small, write_small
from components.storage.file_systems import is_local
from pipeline.prediction.input_image import FileState, InputImage
from pipeline.prediction.outputs import (
    ENDINGS,
    JOURNAL_FOLDER,
    MASK_ENDING,
    OVERLAY_ENDING,
    OVERLAY_VIDEO_ENDING,
    PROBABILITY_ENDING,
)

#: An object store cannot append: there, a shard is rewritten after this many lines, and at the end.
FLUSH_AFTER = 64


class Prediction(BaseModel):
    """The recorded result of one image."""

    model_config = ConfigDict(frozen=True)

    image: str = Field(validation_alias=AliasChoices("image", "picture"))
    """Path of the image, as `InputImage.path`. Journals of earlier versions call it `picture`."""
    state: FileState | None
    """State of the file; None if the image could not be read, so that it is always retried."""
    model: str
    """Fingerprint of the model."""
    name: str
    """Name of its outputs: `<name>_mask.png`, `<name>_overlay.png`."""
    probability: bool = False
    """Whether there is also a `<name>_probability.png`."""
    score: float | None = None
    """Mean over the pixels of the best class's probability."""
    fractions: dict[str, float] = {}
    """Class name -> fraction of the pixels, largest first; only classes that occur."""
    error: str = ""
    """Why there are no outputs; empty if there are."""
    joined: bool = False
    """Whether this is not an image but the overlays of a video, joined into `<name>.webm`."""

    @property
    def endings(self) -> tuple[str, ...]:
        """Endings of the files `<name><ending>` that were written."""
        if self.error:
            return ()
        if self.joined:
            return (OVERLAY_VIDEO_ENDING,)
        return (MASK_ENDING, OVERLAY_ENDING, *[PROBABILITY_ENDING] * self.probability)


def shard_of(name: str) -> str:
    """The shard of an image by the name of its outputs: two hexadecimal digits."""
    return hashlib.blake2b(name.encode(), digest_size=1).hexdigest()


class Journal:
    """The predictions in a folder.

    Args:
        out: Folder of the outputs, a path or a URI.
    """

    def __init__(self, out: str) -> None:
        self._folder = os.path.join(out, JOURNAL_FOLDER)
        self._shards: dict[str, _Shard] = {}

    def _shard(self, name: str) -> "_Shard":
        key = shard_of(name)
        if key not in self._shards:
            self._shards[key] = _Shard(os.path.join(self._folder, f"{key}.jsonl"))
        return self._shards[key]

    def name(self, image: InputImage) -> str:
        """Names the outputs of an image as before; a hash of its path is appended if another image has the name."""
        shard = self._shard(image.name)
        longer = f"{image.name}-{hashlib.blake2b(image.path.encode(), digest_size=4).hexdigest()}"
        if (image.path, longer) in shard.predictions:
            return longer
        return image.name if shard.owners.setdefault(image.name, image.path) == image.path else longer

    def find(self, image: InputImage, model: str) -> Prediction | None:
        """The result of this model for the image in its current state; None if there is none."""
        prediction = self.last(image)
        if prediction is None or prediction.state is None:
            return None
        return prediction if (prediction.model, prediction.state) == (model, image.state) else None

    def last(self, image: InputImage) -> Prediction | None:
        """The last result for the image under its name, for any state and any model."""
        return self._shard(image.name).predictions.get((image.path, self.name(image)))

    def made(self, path: str) -> bool:
        """Whether a file, given relative to the folder, is an output of a prediction."""
        for ending in ENDINGS:
            name = path.removesuffix(ending)
            if name == path:
                continue
            for image_name in (name, re.sub(r"-[0-9a-f]{8}$", "", name)):
                shard = self._shard(image_name)
                prediction = shard.predictions.get((shard.owners.get(name, ""), name))
                if prediction is not None and ending in prediction.endings:
                    return True
        return False

    def add(self, image: InputImage, prediction: Prediction) -> None:
        """Records a prediction whose outputs are complete."""
        self._shard(image.name).add(prediction)

    def flush(self) -> None:
        """Writes the records that were not written yet."""
        for shard in self._shards.values():
            shard.flush()


class _Shard:
    """One file of the journal."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.predictions: dict[tuple[str, str], Prediction] = {}
        """(path of the image, name of the outputs) -> the last result."""
        self.owners: dict[str, str] = {}
        """Name of outputs -> path of the image that has it."""
        self._unwritten = 0
        text = (read_small(path) or b"").decode("utf-8", errors="replace")
        for line in text.split("\n"):
            with suppress(ValidationError):  # An incomplete line; its image is predicted again.
                self._remember(Prediction.model_validate_json(line))
        if is_local(path) and text and not text.endswith("\n"):
            self._append("\n")  # A killed process left an incomplete line, which the next record would continue.

    def _remember(self, prediction: Prediction) -> None:
        self.predictions[prediction.image, prediction.name] = prediction
        self.owners[prediction.name] = prediction.image

    def add(self, prediction: Prediction) -> None:
        self._remember(prediction)
        if is_local(self._path):
            self._append(prediction.model_dump_json() + "\n")
            return
        self._unwritten += 1
        if self._unwritten >= FLUSH_AFTER:
            self.flush()

    def flush(self) -> None:
        if self._unwritten:
            lines = "".join(prediction.model_dump_json() + "\n" for prediction in self.predictions.values())
            write_small(self._path, lines.encode())
            self._unwritten = 0

    def _append(self, text: str) -> None:
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(text)
