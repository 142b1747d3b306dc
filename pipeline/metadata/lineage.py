"""`lineage VERSION`: what a pushed version was made from, according to ML Metadata.

`Lineage` is a stable interface; other tools may rely on its JSON. This module does not import TFX.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2
from pydantic import BaseModel

from components.publishing.directory import ModelVersion
from components.storage.file_systems import file_system
from data.errors import WorkspaceError
from pipeline.metadata.provenance import (
    REASONS,
    Provenance,
    StageExecution,
    copied_version,
    ingests,
    json_object,
    properties,
)

SCHEMA_VERSION = 1

#: Properties that TFX writes into every artifact, and that carry no information about it.
_UNINTERESTING = {"is_external", "tfx_version", "split_names", "stats_dashboard_link", "sample_rate_by_split", REASONS}


class ArtifactLineage(BaseModel):
    """One artifact."""

    id: int
    """Id in ML Metadata."""
    type: str
    uri: str
    removed: bool
    """Whether retention has removed its files."""
    properties: dict[str, Any]


class StageLineage(BaseModel):
    """One stage as it was actually executed, which may have been in an earlier run."""

    name: str
    run_id: str
    execution_id: int
    started_at: datetime
    seconds: float
    code_hash: str | None
    """Hash of the project's code that ran; None for a stage that records none, such as TFX's own components."""
    inputs: dict[str, list[int]]
    """Key -> ids of artifacts."""
    outputs: dict[str, list[int]]


class DataLineage(BaseModel):
    """The labelled images."""

    config: dict[str, Any]
    """Section `data` of the configuration, the label map included."""
    spans: list[str]
    """Folders of the spans, oldest first; empty if the data are in one folder."""
    replayed: dict[str, int]
    """Folder of an earlier span -> number of its images that were replayed for training."""
    fingerprint: str | None
    """Fingerprint of the names, sizes and modification times of the dataset's files."""
    examples: ArtifactLineage
    """The examples that were made from the images."""


class EvaluationLineage(BaseModel):
    """The evaluation that allowed the model to be pushed."""

    blessed: bool
    reasons: list[str]
    """The reasons in the run's summary; empty if the run was killed before it wrote one."""
    config: dict[str, Any]
    """Section `evaluation` of the configuration."""
    baseline_version: int | None
    """The version that was served then; None if there was no comparable one."""
    infra_blessed: bool
    evaluation: ArtifactLineage | None


class Restoration(BaseModel):
    """A version that a rollback published."""

    version: int
    path: str
    restored_from: int
    """The version as which its model was first pushed."""
    rollback_of: int
    """The version that was rolled back."""
    reason: str
    """The operator's reason for the rollback; may be empty."""
    published_at: datetime


class Lineage(BaseModel):
    """What one pushed version was made from."""

    schema_version: int = SCHEMA_VERSION
    model: str
    version: int
    path: str
    """Where it was pushed to."""
    removed: bool
    """Whether nothing is there any more, as after `push.keep` newer versions."""
    pipeline: str
    run_id: str
    pushed_at: datetime
    """When the push was recorded in ML Metadata."""
    tfx_version: str
    data: list[DataLineage]
    statistics: list[ArtifactLineage]
    anomalies: list[ArtifactLineage]
    data_schema: list[ArtifactLineage]
    transform_graph: list[ArtifactLineage]
    hyperparameters: dict[str, Any]
    """The Trainer's inputs: the sections of the configuration, and the label map."""
    started_from: int | None
    """The served version whose weights training started from; None if it did not start from one."""
    trained_model: list[ArtifactLineage]
    """The candidate's artifacts, without the baseline's."""
    evaluation: EvaluationLineage
    stages: list[StageLineage]
    """In the order in which they ran."""
    restoration: Restoration | None = None
    """Set if a rollback published the version: all other fields then describe the version that was restored."""


class PushRecord(NamedTuple):
    """One pushed version, as recorded in ML Metadata."""

    model: str
    version: int
    path: str
    artifact_id: int

    @property
    def removed(self) -> bool:
        """Whether nothing is there any more, as after `push.keep` newer versions."""
        return not file_system(self.path).exists(self.path)


def pushes(store: MetadataStore) -> list[PushRecord]:
    """Lists all versions that were ever pushed, oldest first.

    A run that was killed right after publishing left no record of its push; the next run that found the same model
    being served recorded the version instead. A record by the run that pushed takes precedence; if there are several,
    as after the version was removed by hand, the last one counts.
    """
    found = []
    for artifact in store.get_artifacts_by_type("PushedModel"):
        values = properties(artifact)
        if "pushed_version" in values:
            path = str(values["pushed_destination"])
            push = PushRecord(PurePosixPath(path).parent.name, int(values["pushed_version"]), path, artifact.id)
            pushed = bool(values["pushed"])
            found.append((pushed, artifact.id if pushed else -artifact.id, push))
    valid = {(push.model, push.version, push.path): push for _, _, push in sorted(found)}
    return sorted(valid.values(), key=lambda push: push.artifact_id)


def find_push(known: Iterable[PushRecord], version: int, model: str | None, serving: Path) -> PushRecord:
    """Finds the push of a version; in a store that several workspaces share, this workspace's has precedence.

    Raises:
        WorkspaceError: The version was never pushed, or several models have it.
    """
    known = list(known)
    found = [push for push in known if push.version == version and model in (None, push.model)]
    found = [push for push in found if Path(push.path).is_relative_to(serving)] or found
    if not found:
        versions = ", ".join(f"{push.model}/{push.version}" for push in known) or "none"
        wanted = f"version {version}" + (f" of model {model}" if model else "")
        raise WorkspaceError(f"ML Metadata has no record of {wanted}; the versions pushed are: {versions}")
    if len({push.model for push in found}) > 1:
        names = ", ".join(sorted({push.model for push in found}))
        raise WorkspaceError(f"several models have a version {version}; name one with --model: {names}")
    return found[-1]


def lineage(store: MetadataStore, push: PushRecord) -> Lineage:
    """Traces a pushed version back to its data."""
    provenance = Provenance(store, [push.artifact_id])
    steps = list(provenance.behind(push.artifact_id))[::-1]
    pusher = steps[-1]
    (candidate,) = pusher.inputs["model"]
    trained_from = list(provenance.behind(candidate))
    made = [artifact for step in trained_from for artifact in step.made]
    ingested = [step for step in trained_from if ingests(step, provenance)]
    examples = [artifact for step in ingested for artifact in step.made]
    statistics = _makers_of("ExampleStatistics", examples, provenance, before=pusher)
    drift = _makers_of("deeplab.Drift", examples, provenance, before=pusher)
    counted = [artifact for step in statistics for artifact in step.made]
    checks = [*statistics, *drift, *_makers_of("ExampleAnomalies", counted, provenance, before=pusher)]
    checked = [artifact for step in checks for artifact in step.made]
    stages = sorted({step.execution.id: step for step in (*steps, *checks)}.items())
    pushed = provenance.artifacts[push.artifact_id]
    described = {execution: _describe_stage(store, step) for execution, step in stages}

    custom_config = json_object(properties(trained_from[0].execution).get("custom_config"))

    def described_artifacts(ids: Iterable[int], kind: str) -> list[ArtifactLineage]:
        return [_describe(artifact) for artifact in provenance.all_of(ids, kind)]

    return Lineage(
        model=push.model,
        version=push.version,
        path=push.path,
        removed=push.removed,
        pipeline=_contexts(store, pusher)["pipeline"],
        run_id=described[pusher.execution.id].run_id,
        pushed_at=_time(pushed.create_time_since_epoch),  # The time of the last update may be that of its removal.
        tfx_version=str(properties(pushed).get("tfx_version", "")),
        data=[_data(step, provenance) for step in ingested],
        statistics=described_artifacts(checked, "ExampleStatistics"),
        anomalies=described_artifacts(checked, "ExampleAnomalies"),
        data_schema=described_artifacts(made, "Schema"),
        transform_graph=described_artifacts(made, "TransformGraph"),
        hyperparameters={k: v for k, v in custom_config.items() if k not in ("code_hash", "checkpoints")},
        started_from=copied_version(trained_from[0], "base_model", provenance),
        trained_model=described_artifacts([candidate], "Model"),
        evaluation=_evaluation(pusher, provenance),
        stages=list(described.values()),
    )


def restoration(version: ModelVersion) -> Restoration:
    """Reads the record of a version that a rollback published."""
    values = version.record.model_dump(include={"restored_from", "rollback_of", "published_at"})
    return Restoration(version=version.version, path=version.path, reason=version.record.rollback_reason, **values)


def _makers_of(kind: str, from_ids: list[int], provenance: Provenance, before: StageExecution) -> list[StageExecution]:
    """The newest step before another one that made an artifact of a given type from some artifacts."""
    steps = [step for step in provenance.readers(from_ids) if step.execution.id < before.execution.id]
    return [step for step in steps if provenance.all_of(step.made, kind)][-1:]


def _data(step: StageExecution, provenance: Provenance) -> DataLineage:
    examples = _describe(provenance.artifacts[step.outputs["examples"][0]])
    fingerprint = examples.properties.get("input_fingerprint")
    return DataLineage(
        config=json_object(properties(step.execution).get("config")),
        spans=json.loads(examples.properties.get("spans", "[]")),
        replayed=json.loads(examples.properties.get("replayed", "{}")),
        fingerprint=None if fingerprint is None else str(fingerprint),
        examples=examples,
    )


def _evaluation(pusher: StageExecution, provenance: Provenance) -> EvaluationLineage:
    blessing, infra = (
        properties(provenance.artifacts[pusher.inputs[key][0]]) for key in ("blessing", "infra_blessing")
    )
    evaluator = provenance.maker(pusher.inputs["blessing"][0])
    evaluations: list[metadata_store_pb2.Artifact] = []
    config: dict[str, Any] = {}
    served: int | None = None
    if evaluator is not None:
        evaluations = provenance.all_of(evaluator.outputs.get("evaluation", []), "ModelEvaluation")
        config = json_object(properties(evaluator.execution).get("config"))
        served = copied_version(evaluator, "baseline_model", provenance)
    return EvaluationLineage(
        blessed=bool(blessing["blessed"]),
        reasons=json.loads(properties(evaluations[0]).get(REASONS, "[]")) if evaluations else [],
        config=config,
        baseline_version=served,
        infra_blessed=bool(infra["blessed"]),
        evaluation=_describe(evaluations[0]) if evaluations else None,
    )


def _describe(artifact: metadata_store_pb2.Artifact) -> ArtifactLineage:
    values = {name: value for name, value in properties(artifact).items() if name not in _UNINTERESTING}
    removed = artifact.state == metadata_store_pb2.Artifact.DELETED
    return ArtifactLineage(id=artifact.id, type=artifact.type, uri=artifact.uri, removed=removed, properties=values)


def _describe_stage(store: MetadataStore, step: StageExecution) -> StageLineage:
    contexts, values = _contexts(store, step), properties(step.execution)
    began, ended = step.execution.create_time_since_epoch, step.execution.last_update_time_since_epoch
    custom_config = json_object(values.get("custom_config"))
    code_hash = values.get("code_hash", custom_config.get("code_hash"))
    return StageLineage(
        name=contexts["node"].removeprefix(f"{contexts['pipeline']}."),
        run_id=contexts["pipeline_run"],
        execution_id=step.execution.id,
        started_at=_time(began),
        seconds=(ended - began) / 1000,
        code_hash=None if code_hash is None else str(code_hash),
        inputs=step.inputs,
        outputs=step.outputs,
    )


def _contexts(store: MetadataStore, step: StageExecution) -> dict[str, str]:
    """The contexts of an execution (pipeline, pipeline_run, node): type -> name."""
    return {context.type: context.name for context in store.get_contexts_by_execution(step.execution.id)}


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
