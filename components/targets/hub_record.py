"""What `HubExporter` found."""

from components.targets.record import TargetModel, TargetRecord, read_target
from models.config import HubModule

RECORD_FILE = "hub.json"


class HubModel(TargetModel):
    """One module."""

    module: HubModule


class HubRecord(TargetRecord):
    """`hub.json`."""

    models: list[HubModel] = []


def read_record(hub_uri: str) -> HubRecord:
    """The record in a `HubModels` artifact."""
    return read_target(hub_uri, RECORD_FILE, HubRecord)
