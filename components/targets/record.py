"""The records of models for other targets, made from the SavedModel.

They stand apart from the stages, so that readers need not import TFX.
"""

import os
from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from components.storage.file_systems import file_system
from data.files import read_bytes

Record = TypeVar("Record", bound="TargetRecord")


class TargetModel(BaseModel):
    """One model for another target."""

    model_config = ConfigDict(frozen=True)

    file: str | None
    """The model's file or folder beside the record; None if it was left out."""
    reason: str
    """Why the model was kept or left out."""
    mean_iou: float | None = None
    drop: float | None = None
    """By how much `mean_iou` falls behind the SavedModel's."""
    size: int | None = None
    """In bytes."""


class TargetRecord(BaseModel):
    """All models of one stage."""

    model_config = ConfigDict(frozen=True)

    images: int = 0
    """Number of test images on which the models were compared with the SavedModel."""
    saved_model_mean_iou: float | None = None
    """The SavedModel's mean IoU on the same images at the same size."""
    models: Sequence[TargetModel] = []

    @property
    def kept(self) -> list[TargetModel]:
        """The models that were not left out."""
        return [model for model in self.models if model.file]


def read_target(uri: str, name: str, kind: type[Record]) -> Record:
    """The record in an artifact, from the file `name`."""
    return kind.model_validate_json(read_bytes(os.path.join(uri, name), file_system(uri)))


def pushed_files(uri: str, record: TargetRecord) -> dict[str, bytes]:
    """Path -> content of every file of an artifact; empty if no model was kept."""
    if not record.kept:
        return {}
    files = file_system(uri)
    return {name: read_bytes(os.path.join(uri, name), files) for name, _, _ in files.stats(uri)}
