"""The record of `LiteConverter`: which models it made, and which it kept."""

from pydantic import BaseModel, ConfigDict

from components.targets.record import TargetModel, TargetRecord, read_target
from data.labels import Color
from models.config import LiteVariant

LITE_RECORD_FILE = "lite.json"


class LiteClass(BaseModel):
    """One class; its place in the record is its id."""

    model_config = ConfigDict(frozen=True)

    name: str
    color: Color


class LiteModel(TargetModel):
    """One variant."""

    variant: LiteVariant
    milliseconds: float | None = None
    """Median time for one image."""


class LiteRecord(TargetRecord):
    """`lite.json`."""

    height: int
    width: int
    classes: list[LiteClass]
    threads: int
    models: list[LiteModel] = []


def read_lite_record(lite_uri: str) -> LiteRecord:
    """The record in a `LiteModels` artifact."""
    return read_target(lite_uri, LITE_RECORD_FILE, LiteRecord)
