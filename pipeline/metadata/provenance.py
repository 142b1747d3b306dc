"""Walks ML Metadata backwards, from artifacts to the executions that made them and to what these read.

A cached execution points at the outputs of the one that actually ran; only the latter are walked, so the walk does
not grow with the number of runs. Queries are made for whole levels, not for single nodes. This module does not
import TFX.
"""

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from google.protobuf import json_format
from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2

COMPLETE = metadata_store_pb2.Execution.COMPLETE
#: Property of an evaluation: why its model was blessed or not, as a JSON list. It is stored there and not with the
#: blessing, because TFX's cache keys cover the properties of a stage's inputs, and no stage reads the evaluation.
REASONS = "reasons"

INPUT, OUTPUT = metadata_store_pb2.Event.INPUT, metadata_store_pb2.Event.OUTPUT


@dataclass(frozen=True)
class StageExecution:
    """One completed execution."""

    execution: metadata_store_pb2.Execution
    inputs: dict[str, list[int]]
    """Key -> ids of artifacts."""
    outputs: dict[str, list[int]]

    @property
    def read(self) -> list[int]:
        """Ids of all artifacts that it read."""
        return list(chain(*self.inputs.values()))

    @property
    def made(self) -> list[int]:
        """Ids of all artifacts that it made."""
        return list(chain(*self.outputs.values()))


class Provenance:
    """The executions and artifacts from which some artifacts were made.

    Attributes:
        steps: Execution id -> step.
        artifacts: Every artifact that a step read or made, by id.
    """

    def __init__(self, store: MetadataStore, artifact_ids: Collection[int]):
        self._store = store
        self.steps: dict[int, StageExecution] = {}
        self.artifacts: dict[int, metadata_store_pb2.Artifact] = {}
        self._makers: dict[int, int] = {}
        seen: set[int] = set()
        waiting = set(artifact_ids)
        while waiting:
            seen |= waiting
            made = self._read_steps(self._executions(waiting, OUTPUT))
            waiting = {artifact for step in made for artifact in step.read} - seen

    def maker(self, artifact_id: int) -> StageExecution | None:
        """The step that made an artifact."""
        execution = self._makers.get(artifact_id)
        return None if execution is None else self.steps[execution]

    def readers(self, artifact_ids: Collection[int]) -> list[StageExecution]:
        """The steps that read any of some artifacts, oldest first."""
        steps = self._read_steps(self._executions(artifact_ids, INPUT))
        return sorted(steps, key=lambda step: step.execution.id)

    def behind(self, artifact_id: int) -> Iterator[StageExecution]:
        """The steps that an artifact came from, directly or indirectly, latest first."""
        found: dict[int, StageExecution] = {}
        waiting = [artifact_id]
        while waiting:
            step = self.maker(waiting.pop())
            if step is not None and step.execution.id not in found:
                found[step.execution.id] = step
                waiting += step.read
        return (found[execution] for execution in sorted(found, reverse=True))

    def all_of(self, ids: Iterable[int], kind: str) -> list[metadata_store_pb2.Artifact]:
        """The artifacts of a given type among some artifacts."""
        return [artifact for artifact in map(self.artifacts.__getitem__, ids) if artifact.type == kind]

    def _executions(self, artifact_ids: Collection[int], kind: int) -> set[int]:
        if not artifact_ids:
            return set()
        return {e.execution_id for e in self._store.get_events_by_artifact_ids(artifact_ids) if e.type == kind}

    def _read_steps(self, execution_ids: Collection[int]) -> list[StageExecution]:
        """Reads the completed executions that have not been read yet."""
        new = set(execution_ids) - self.steps.keys()
        executions = self._store.get_executions_by_id(new) if new else []
        steps = {e.id: StageExecution(e, {}, {}) for e in executions if e.last_known_state == COMPLETE}
        events = self._store.get_events_by_execution_ids(steps) if steps else []
        for event in sorted(events, key=lambda e: [(step.key, step.index) for step in e.path.steps]):
            if event.type in (INPUT, OUTPUT):
                step = steps[event.execution_id]
                side = step.inputs if event.type == INPUT else step.outputs
                side.setdefault(event.path.steps[0].key, []).append(event.artifact_id)
                if event.type == OUTPUT:
                    self._makers[event.artifact_id] = event.execution_id
        unknown = {event.artifact_id for event in events} - self.artifacts.keys()
        self.artifacts.update({a.id: a for a in self._store.get_artifacts_by_id(unknown)} if unknown else {})
        self.steps.update(steps)
        return [self.steps[execution] for execution in execution_ids if execution in self.steps]


def properties(node: metadata_store_pb2.Artifact | metadata_store_pb2.Execution) -> dict[str, Any]:
    """The properties and custom properties of a node, by name; structures become plain lists and mappings."""
    plain: dict[str, Any] = {}
    for name, value in sorted({**node.properties, **node.custom_properties}.items()):
        kind = value.WhichOneof("value")
        found = getattr(value, kind) if kind else None
        plain[name] = json_format.MessageToDict(found) if kind in ("struct_value", "proto_value") else found
    return plain


def ingests(step: StageExecution, provenance: Provenance) -> bool:
    """Whether a step makes examples out of files, not out of other examples."""
    return "examples" in step.outputs and not provenance.all_of(step.read, "Examples")


def copied_version(step: StageExecution, key: str, provenance: Provenance) -> int | None:
    """The version of the served model whose copy a step was given; None if it was given none."""
    (copy,) = step.inputs.get(key, [None])
    values = {} if copy is None else properties(provenance.artifacts[copy])
    return int(values["version"]) if values.get("present") else None


def json_object(value: str | None) -> dict[str, Any]:
    """An execution property that holds a JSON object; TFX writes 'null' for a missing one."""
    return (json.loads(value) or {}) if value else {}
