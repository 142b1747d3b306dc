"""`predictions/`: what became of each image, a line each; by it an interrupted `predict` goes on.

The lines lie in shards by a hash of the output's name, so that workers on several machines, each of which has some
shards to itself, name outputs, see what is done and record what they do without asking each other.
"""

import hashlib
import os
import re

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

#: An object store cannot append: there a shard is written anew after so many lines, and at the end.
FLUSH_AFTER = 64


class Prediction(BaseModel):
    """What became of one image."""

    model_config = ConfigDict(frozen=True)

    image: str = Field(validation_alias=AliasChoices("image", "picture"))
    """As `InputImage.path`. Journals of earlier versions call it `picture`."""
    state: FileState | None
    """None if it is to be tried again in any case: it could not be read."""
    model: str
    """Fingerprint of the model that was asked."""
    name: str
    """Of its outputs: `<name>_mask.png`, `<name>_overlay.png`."""
    probability: bool = False
    """Whether there is a `<name>_probability.png`, too."""
    score: float | None = None
    """Mean over the pixels of the best class's probability."""
    fractions: dict[str, float] = {}
    """Class name -> fraction of the pixels, largest first; only classes that occur."""
    error: str = ""
    """Why there are no outputs."""
    joined: bool = False
    """Whether this is not an image but the overlays of a video, joined to `<name>.webm`."""

    @property
    def endings(self) -> tuple[str, ...]:
        """Of the files `<name><ending>` that were written."""
        if self.error:
            return ()
        if self.joined:
            return (OVERLAY_VIDEO_ENDING,)
        return (MASK_ENDING, OVERLAY_ENDING, *[PROBABILITY_ENDING] * self.probability)


def shard_of(image: InputImage) -> str:
    """The shard of an image: two hexadecimal digits."""
    return _shard_of_name(image.name)


def _shard_of_name(name: str) -> str:
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
        key = _shard_of_name(name)
        if key not in self._shards:
            self._shards[key] = _Shard(os.path.join(self._folder, f"{key}.jsonl"))
        return self._shards[key]

    def name(self, image: InputImage) -> str:
        """Names the outputs of an image as before; a hash of its path is added where another image has the name."""
        return self._shard(image.name).name(image)

    def find(self, image: InputImage, model: str) -> Prediction | None:
        """What this model said of the image as it is now; None if it was not asked."""
        prediction = self.last(image)
        if prediction is None or prediction.state is None:
            return None
        return prediction if (prediction.model, prediction.state) == (model, image.state) else None

    def last(self, image: InputImage) -> Prediction | None:
        """What was said last of the image under its name, of whatever state and by whatever model."""
        return self._shard(image.name).find(image)

    def made(self, path: str) -> bool:
        """Whether a file, given relative to the folder, is an output of a prediction."""
        for ending in ENDINGS:
            name = path.removesuffix(ending)
            if name != path and any(
                self._shard(shard).made(name, ending) for shard in (name, re.sub(r"-[0-9a-f]{8}$", "", name))
            ):
                return True
        return False

    def add(self, image: InputImage, prediction: Prediction) -> None:
        """Writes a prediction whose outputs are complete."""
        self._shard(image.name).add(prediction)

    def flush(self) -> None:
        """Writes what was not written yet."""
        for shard in self._shards.values():
            shard.flush()


class _Shard:
    """One file of the journal."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._predictions: dict[tuple[str, str], Prediction] = {}
        self._owners: dict[str, str] = {}
        self._unwritten = 0
        text = (read_small(path) or b"").decode("utf-8", errors="replace")
        for line in text.split("\n"):
            self._remember_line(line)
        if is_local(path) and text and not text.endswith("\n"):
            self._append("\n")  # A killed process left a part of a line, which the next would go on.

    def _remember_line(self, line: str) -> None:
        try:
            self._remember(Prediction.model_validate_json(line))
        except ValidationError:
            return  # A part of a line; its image is done again.

    def _remember(self, prediction: Prediction) -> None:
        self._predictions[prediction.image, prediction.name] = prediction
        self._owners[prediction.name] = prediction.image

    def name(self, image: InputImage) -> str:
        digest = hashlib.blake2b(image.path.encode(), digest_size=4).hexdigest()
        longer = f"{image.name}-{digest}"
        if (image.path, longer) in self._predictions:
            return longer
        return image.name if self._owners.setdefault(image.name, image.path) == image.path else longer

    def find(self, image: InputImage) -> Prediction | None:
        return self._predictions.get((image.path, self.name(image)))

    def made(self, name: str, ending: str) -> bool:
        prediction = self._predictions.get((self._owners.get(name, ""), name))
        return prediction is not None and ending in prediction.endings

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
            lines = "".join(prediction.model_dump_json() + "\n" for prediction in self._predictions.values())
            write_small(self._path, lines.encode())
            self._unwritten = 0

    def _append(self, text: str) -> None:
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(text)
