"""What is known of models made of the SavedModel for other targets. Apart from the stages, so that readers need not
import TFX.
"""

import os
from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from components.storage.file_systems import file_system
from data.files import read_bytes

Record = TypeVar("Record", bound="TargetRecord")


class TargetModel(BaseModel):
    """One model."""

    model_config = ConfigDict(frozen=True)

    file: str | None
    """Its file or folder beside the record; None if it was left out."""
    reason: str
    """Why it was kept or left out."""
    mean_iou: float | None = None
    drop: float | None = None
    """By how much `mean_iou` falls behind the SavedModel's."""
    size: int | None = None
    """In bytes."""


class TargetRecord(BaseModel):
    """All models of one kind."""

    model_config = ConfigDict(frozen=True)

    images: int = 0
    """Of the test split, by which the models were judged."""
    saved_model_mean_iou: float | None = None
    """On the same images at the same size."""
    models: Sequence[TargetModel] = []

    @property
    def kept(self) -> list[TargetModel]:
        """The models that were not left out."""
        return [model for model in self.models if model.file]


def read_target(uri: str, name: str, kind: type[Record]) -> Record:
    """The record in an artifact, from the file `name`."""
    return kind.model_validate_json(read_bytes(os.path.join(uri, name), file_system(uri)))


def pushed_files(uri: str, record: TargetRecord) -> dict[str, bytes]:
    """Every file of an artifact by its path there; none where no model was kept."""
    if not record.kept:
        return {}
    files = file_system(uri)
    return {name: read_bytes(os.path.join(uri, name), files) for name, _, _ in files.stats(uri)}
