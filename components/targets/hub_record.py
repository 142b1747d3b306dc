"""The record of `HubExporter`: which models it made, and which it kept."""

from components.targets.record import TargetModel, TargetRecord, read_target
from models.config import HubModule

HUB_RECORD_FILE = "hub.json"


class HubModel(TargetModel):
    """One module."""

    module: HubModule


class HubRecord(TargetRecord):
    """`hub.json`."""

    models: list[HubModel] = []


def read_hub_record(hub_uri: str) -> HubRecord:
    """The record in a `HubModels` artifact."""
    return read_target(hub_uri, HUB_RECORD_FILE, HubRecord)
