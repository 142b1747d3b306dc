"""What `LiteConverter` found. Apart from the component, so that readers need not import TFX."""

import os

from pydantic import BaseModel, ConfigDict

from components.files import file_system
from data.labels import Color
from models.config import LiteVariant

RECORD_FILE = "lite.json"


class LiteClass(BaseModel):
    """One class, by its id's place in the record."""

    model_config = ConfigDict(frozen=True)

    name: str
    color: Color


class LiteModel(BaseModel):
    """One variant."""

    model_config = ConfigDict(frozen=True)

    variant: LiteVariant
    file: str | None
    """Its file beside the record; None if it was left out."""
    reason: str
    """Why it was kept or left out."""
    mean_iou: float | None = None
    drop: float | None = None
    """By how much `mean_iou` falls behind the SavedModel's."""
    milliseconds: float | None = None
    """Median for one image."""
    size: int | None = None
    """Of the file, in bytes."""


class LiteRecord(BaseModel):
    """`lite.json`."""

    model_config = ConfigDict(frozen=True)

    height: int
    width: int
    classes: list[LiteClass]
    threads: int
    images: int = 0
    """Of the test split, by which the variants were judged."""
    saved_model_mean_iou: float | None = None
    """On the same images at the same size."""
    models: list[LiteModel] = []

    @property
    def kept(self) -> list[LiteModel]:
        """The variants that have a file."""
        return [model for model in self.models if model.file]


def read_record(lite_uri: str) -> LiteRecord:
    """The record in a `LiteModels` artifact."""
    return LiteRecord.model_validate_json(_read(lite_uri, RECORD_FILE))


def pushed_files(lite_uri: str) -> dict[str, bytes]:
    """Every file of a `LiteModels` artifact by its name; none where no variant was kept."""
    if not read_record(lite_uri).kept:
        return {}
    return {name: _read(lite_uri, name) for name in file_system(lite_uri).list(lite_uri)}


def _read(folder: str, name: str) -> bytes:
    path = os.path.join(folder, name)
    with file_system(path).open(path) as file:
        return file.read()
