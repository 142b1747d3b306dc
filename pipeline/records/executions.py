"""What ML Metadata records about a run: which stages ran, for how long, and what they produced."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact

from pipeline.metadata.provenance import REASONS
from pipeline.metadata.store import open_store
from pipeline.stages import Stage

_STATES = {
    metadata_store_pb2.Execution.COMPLETE: "ran",
    metadata_store_pb2.Execution.CACHED: "cached",
    metadata_store_pb2.Execution.FAILED: "failed",
}


@dataclass(frozen=True)
class StageRecord:
    """One stage of one run."""

    name: str
    state: str
    """'ran', 'cached', 'failed' or 'unfinished'."""
    seconds: float
    properties: Mapping[str, str | int | float]
    """Execution properties, those of the cache key among them."""
    outputs: Mapping[str, list[Artifact]] = field(repr=False)


def read_run(config: metadata_store_pb2.ConnectionConfig, pipeline_name: str, run_id: str) -> dict[str, StageRecord]:
    """The stages of a run, by name, in the order in which they ran; empty if ML Metadata does not know the run."""
    store = open_store(config)
    context = store.get_context_by_type_and_name("pipeline_run", run_id)
    if context is None:
        return {}
    executions = sorted(store.get_executions_by_context(context.id), key=lambda execution: execution.id)
    records = [_read_stage(store, pipeline_name, execution) for execution in executions]
    return {record.name: record for record in records}


def artifact_folder(stages: Mapping[str, StageRecord], stage: str, key: str) -> str | None:
    """The folder of a stage's output; None if the stage did not produce it, or if it was deleted since."""
    outputs = stages[stage].outputs.get(key, []) if stage in stages else []
    return next((output.uri for output in outputs if fileio.exists(output.uri)), None)


def note_reasons(
    config: metadata_store_pb2.ConnectionConfig, stages: Mapping[str, StageRecord], reasons: list[str]
) -> None:
    """Records with a run's evaluation why its model was blessed or not; `pipeline.metadata.lineage` reports it."""
    evaluator = stages.get(Stage.EVALUATOR)
    if evaluator is not None and evaluator.state == "ran":
        store = open_store(config)
        (evaluation,) = store.get_artifacts_by_id([evaluator.outputs["evaluation"][0].id])
        evaluation.custom_properties[REASONS].string_value = json.dumps(reasons)
        store.put_artifacts([evaluation])


def last_completed(config: metadata_store_pb2.ConnectionConfig, pipeline_name: str, stage: str) -> StageRecord | None:
    """The newest completed execution of a stage, in any run of the pipeline."""
    store = open_store(config)
    context = store.get_context_by_type_and_name("node", f"{pipeline_name}.{stage}")
    if context is None:
        return None
    executions = [
        execution
        for execution in store.get_executions_by_context(context.id)
        if execution.last_known_state == metadata_store_pb2.Execution.COMPLETE
    ]
    newest = max(executions, key=lambda execution: execution.id, default=None)
    return _read_stage(store, pipeline_name, newest) if newest else None


def _read_stage(store: MetadataStore, pipeline_name: str, execution: metadata_store_pb2.Execution) -> StageRecord:
    node = next(c for c in store.get_contexts_by_execution(execution.id) if c.type == "node")
    milliseconds = execution.last_update_time_since_epoch - execution.create_time_since_epoch
    properties = {key: getattr(value, value.WhichOneof("value")) for key, value in execution.custom_properties.items()}
    return StageRecord(
        name=node.name.removeprefix(f"{pipeline_name}."),
        state=_STATES.get(execution.last_known_state, "unfinished"),
        seconds=milliseconds / 1000,
        properties=properties,
        outputs=_outputs(store, execution.id),
    )


def _outputs(store: MetadataStore, execution_id: int) -> dict[str, list[Artifact]]:
    events = [
        event
        for event in store.get_events_by_execution_ids([execution_id])
        if event.type == metadata_store_pb2.Event.OUTPUT
    ]
    artifacts = {artifact.id: artifact for artifact in store.get_artifacts_by_id([e.artifact_id for e in events])}
    outputs: dict[str, list[Artifact]] = {}
    for event in events:
        artifact = artifacts[event.artifact_id]
        artifact_type = store.get_artifact_types_by_id([artifact.type_id])[0]
        outputs.setdefault(event.path.steps[0].key, []).append(
            artifact_utils.deserialize_artifact(artifact_type, artifact)
        )
    return outputs
