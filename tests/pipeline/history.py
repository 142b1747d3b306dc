"""ML Metadata written by hand: the runs of a pipeline, without running one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as proto

PIPELINE = "segmentation"

#: Stage -> key -> type of its outputs.
OUTPUTS = {
    "ServedModel": {"model": "Model"},
    "ImageExampleGen": {"examples": "Examples", "quarantine": "Quarantine"},
    "StatisticsGen": {"statistics": "ExampleStatistics"},
    "DataSchema": {"schema": "Schema"},
    "StrictExampleValidator": {"anomalies": "ExampleAnomalies"},
    "ImageTransform": {"transform_graph": "TransformGraph", "transformed_examples": "Examples"},
    "WarmStart": {"model": "Model"},
    "Trainer": {"model": "Model", "model_run": "ModelRun"},
    "SegmentationEvaluator": {"evaluation": "ModelEvaluation", "blessing": "ModelBlessing"},
    "InfraCheck": {"blessing": "InfraBlessing"},
    "ModelPusher": {"pushed_model": "PushedModel"},
}
#: Stage -> key -> (stage, key) of its inputs.
INPUTS = {
    "StatisticsGen": {"examples": ("ImageExampleGen", "examples")},
    "StrictExampleValidator": {"statistics": ("StatisticsGen", "statistics"), "schema": ("DataSchema", "schema")},
    "ImageTransform": {"examples": ("ImageExampleGen", "examples"), "schema": ("DataSchema", "schema")},
    "WarmStart": {"examples": ("ImageTransform", "transformed_examples")},
    "Trainer": {
        "examples": ("ImageTransform", "transformed_examples"),
        "transform_graph": ("ImageTransform", "transform_graph"),
        "base_model": ("WarmStart", "model"),
    },
    "SegmentationEvaluator": {
        "examples": ("ImageExampleGen", "examples"),
        "model": ("Trainer", "model"),
        "baseline_model": ("ServedModel", "model"),
        "schema": ("DataSchema", "schema"),
    },
    "InfraCheck": {"model": ("Trainer", "model"), "examples": ("ImageExampleGen", "examples")},
    "ModelPusher": {
        "model": ("Trainer", "model"),
        "examples": ("ImageExampleGen", "examples"),
        "blessing": ("SegmentationEvaluator", "blessing"),
        "infra_blessing": ("InfraCheck", "blessing"),
        "served_model": ("ServedModel", "model"),
    },
}


def set_values(target: Any, values: Mapping[str, Any]) -> None:
    """Fills in custom properties."""
    for name, value in values.items():
        kind = "int_value" if isinstance(value, int) else "string_value"
        setattr(target[name], kind, value)


@dataclass
class History:
    """Writes runs into a store."""

    store: MetadataStore
    serving: str
    """Holds `<model>/<version>`."""
    data: str = "/data"
    artifacts: dict[tuple[str, str], int] = field(default_factory=dict)
    """(Stage, output key) -> id of what the stage made last."""

    def run(self, run_id: str, cached: tuple[str, ...] = (), **values: Mapping[str, Any]) -> None:
        """All stages of one run, in order.

        Args:
            run_id: Its name.
            cached: Stages that take over what they made last.
            values: `<Stage>` -> execution properties, `<Stage>__<output key>` -> properties and `uri` of an artifact.
        """
        for stage in OUTPUTS:
            self._stage(run_id, stage, values, proto.Execution.CACHED if stage in cached else proto.Execution.COMPLETE)

    def push(
        self, run_id: str, model: str, version: int, *cached: str, pushed: int = 1, **more: Mapping[str, Any]
    ) -> None:
        """A run that ends with a pushed version."""
        path = f"{self.serving}/{model}/{version}"
        properties = {"pushed": pushed, "pushed_version": str(version), "pushed_destination": path}
        self.run(run_id, cached, ModelPusher__pushed_model=properties, **more)

    def _stage(self, run_id: str, stage: str, values: Mapping[str, Mapping[str, Any]], state: int) -> None:
        type_id = self.store.put_execution_type(proto.ExecutionType(name=f"components.{stage}"))
        execution = proto.Execution(type_id=type_id, last_known_state=state)
        set_values(execution.custom_properties, _execution_defaults(stage, self.data) | values.get(stage, {}))
        pairs = []
        for key, source in INPUTS.get(stage, {}).items():
            pairs.append((proto.Artifact(id=self.artifacts[source]), _event(proto.Event.INPUT, key)))
        for key, kind in OUTPUTS[stage].items():
            if state == proto.Execution.CACHED:
                artifact = proto.Artifact(id=self.artifacts[stage, key])
            else:
                artifact = self._artifact(kind, _artifact_defaults(stage, key) | values.get(f"{stage}__{key}", {}))
                self.artifacts[stage, key] = artifact.id
            pairs.append((artifact, _event(proto.Event.OUTPUT, key)))
        read = {artifact.id: artifact for artifact in self.store.get_artifacts_by_id([a.id for a, _ in pairs])}
        contexts = [
            self._context("pipeline", PIPELINE),
            self._context("pipeline_run", run_id),
            self._context("node", f"{PIPELINE}.{stage}"),
        ]
        self.store.put_execution(
            execution, [(read[a.id], event) for a, event in pairs], contexts, reuse_context_if_already_exist=True
        )

    def _artifact(self, kind: str, values: dict[str, Any]) -> proto.Artifact:
        type_id = self.store.put_artifact_type(proto.ArtifactType(name=kind))
        artifact = proto.Artifact(type_id=type_id, uri=values.pop("uri", f"/artifacts/{kind}"))
        set_values(artifact.custom_properties, values)
        artifact.id = self.store.put_artifacts([artifact])[0]
        return artifact

    def _context(self, kind: str, name: str) -> proto.Context:
        return proto.Context(type_id=self.store.put_context_type(proto.ContextType(name=kind)), name=name)


def _event(kind: "proto.Event.Type", key: str) -> proto.Event:
    event = proto.Event(type=kind)
    event.path.steps.add().key = key
    event.path.steps.add().index = 0
    return event


def _execution_defaults(stage: str, data: str) -> dict[str, Any]:
    code = f"hash of {stage}"
    if stage == "ImageExampleGen":
        return {"code_hash": code, "config": json.dumps({"path": data, "layout": "voc"})}
    if stage in ("Trainer", "ImageTransform"):
        custom = {"code_hash": code, "checkpoints": "/checkpoints", "training": {"steps": 6}}
        return {"custom_config": json.dumps(custom)}
    if stage == "SegmentationEvaluator":
        return {"code_hash": code, "config": json.dumps({"min_mean_iou": 0.5})}
    return {} if stage == "StatisticsGen" else {"code_hash": code}


def _artifact_defaults(stage: str, key: str) -> dict[str, Any]:
    if key == "blessing":
        return {"blessed": 1}
    if stage in ("ServedModel", "WarmStart"):
        return {"present": 0}
    return {}
