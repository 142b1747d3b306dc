"""`predictions.jsonl`: what became of each picture, a line each; by it an interrupted `predict` goes on."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.prediction.pictures import Picture

JOURNAL_FILE = "predictions.jsonl"


class State(BaseModel):
    """A picture's file as it was when it was read."""

    model_config = ConfigDict(frozen=True)

    size: int
    """In bytes."""
    modified: int
    """In nanoseconds since 1970."""

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """The file's state now; None if it cannot be looked at."""
        try:
            stat = path.stat()
        except OSError:
            return None
        return cls(size=stat.st_size, modified=stat.st_mtime_ns)


class Prediction(BaseModel):
    """What became of one picture."""

    model_config = ConfigDict(frozen=True)

    picture: Path
    """Absolute."""
    state: State | None
    """None if the file could not be looked at."""
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


class Journal:
    """The predictions in a folder.

    Args:
        folder: Of the outputs; must exist.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL_FILE
        self._predictions: dict[Path, Prediction] = {}
        self._names: dict[str, Path] = {}
        text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        for line in text.splitlines():
            self._remember(line)
        if text and not text.endswith("\n"):  # A killed process left a part of a line, which the next would go on.
            self._append("\n")

    def _remember(self, line: str) -> None:
        try:
            prediction = Prediction.model_validate_json(line)
        except ValidationError:
            return  # A part of a line; its picture is done again.
        self._predictions[prediction.picture] = prediction
        self._names[prediction.name] = prediction.picture

    def name(self, picture: Picture) -> str:
        """Names the outputs of a picture as before; a number is added where another picture has the name."""
        path = picture.path.absolute()
        if path in self._predictions:
            return self._predictions[path].name
        name, number = picture.name, 1
        while self._names.setdefault(name, path) != path:
            number += 1
            name = f"{picture.name}-{number}"
        return name

    def find(self, picture: Picture, model: str) -> Prediction | None:
        """What this model said of the picture as it is now; None if it was not asked."""
        prediction = self._predictions.get(picture.path.absolute())
        if prediction is None or prediction.model != model or prediction.state != State.of(picture.path):
            return None
        return prediction

    def add(self, prediction: Prediction) -> None:
        """Writes a prediction whose outputs are complete."""
        self._append(prediction.model_dump_json() + "\n")
        self._predictions[prediction.picture] = prediction

    def _append(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)
