"""The pipeline: one definition for every runner."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow_data_validation as tfdv
from ml_metadata.proto import metadata_store_pb2
from tfx.components.statistics_gen.component import StatisticsGen
from tfx.components.trainer.component import Trainer
from tfx.dsl.components.base.base_node import BaseNode
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import trainer_pb2

import components.evaluation.evaluator
import components.ingest.example_gen
import components.publishing.infra_check
import components.publishing.pusher
import components.publishing.served_model
import components.spans.drift
import components.spans.example_gen
import components.targets.hub
import components.targets.lite
import components.training.trainer
import components.training.tuner
import components.training.warm_start
import components.transform
import components.validation.schema
import components.validation.validator
from components.code_hash import code_hash
from data import features
from data.layouts.base import SPLITS
from pipeline.config import Config


@dataclass(frozen=True)
class Locations:
    """Where a pipeline keeps things; local folders or URIs."""

    artifacts: str
    """TFX's pipeline root."""
    serving: str
    """Holds `<model name>/<version>/`."""
    checkpoints: str
    """Of trainings that are under way; outside the artifacts, which TFX deletes when a stage fails."""
    metadata: metadata_store_pb2.ConnectionConfig | None = None
    """ML Metadata; None where the runner brings its own."""
    ingested: str | None = None
    """Of spans: what was made of each, kept from run to run; None: a folder beside `serving`."""


def create_pipeline(
    config: Config, locations: Locations, last: Callable[[Mapping[str, BaseNode]], BaseNode] | None = None
) -> Pipeline:
    """Wires the stages.

    Args:
        config: Resolved (`pipeline.config.resolve`).
        locations: Where to keep things.
        last: Makes one more node of all the others, by their ids: what the runner would do itself if it were still
            there when a run ends.
    """
    train, val, _ = SPLITS
    labels = config.labels.model_dump_json()
    serving_dir = f"{locations.serving}/{config.push.model_name}"

    served_model = components.publishing.served_model.ServedModel(
        serving_dir, labels, config.evaluation.on_label_change, code_hash(components.publishing.served_model)
    )
    example_gen = _example_gen(config, locations)
    examples = example_gen.outputs["examples"]
    statistics = StatisticsGen(
        examples, stats_options=tfdv.StatsOptions(feature_allowlist=features.scalar_keys(config.labels.names))
    )
    schema = components.validation.schema.DataSchema(
        validation=config.validation.model_dump_json(exclude={"on_drift", "drift"}),
        label_map=labels,
        code_hash=code_hash(components.validation.schema),
    )
    drift = (
        components.spans.drift.SpanDrift(
            spans=example_gen.outputs["spans"],
            config=config.validation.drift.model_dump_json(),
            label_map=labels,
            code_hash=code_hash(components.spans.drift),
        )
        if config.data.has_spans
        else None
    )
    validator = components.validation.validator.StrictExampleValidator(
        statistics=statistics.outputs["statistics"],
        schema=schema.outputs["schema"],
        drift=drift.outputs["drift"] if drift else None,
        on_drift=config.validation.on_drift if drift else None,
    )
    transform = components.transform.ImageTransform(
        examples,
        schema.outputs["schema"],
        preprocess=config.preprocess.model_dump_json(),
        label_map=labels,
        code_hash=code_hash(components.transform),
    )
    # Nothing that failed validation is trained on; Transform and ExampleValidator share no artifact.
    transform.add_upstream_node(validator)
    training_inputs: dict[str, Any] = {
        "examples": transform.outputs["transformed_examples"],
        "transform_graph": transform.outputs["transform_graph"],
        "eval_args": trainer_pb2.EvalArgs(splits=[val]),
    }
    warm_start = (
        components.training.warm_start.WarmStart(
            examples=transform.outputs["transformed_examples"],
            serving_dir=serving_dir,
            custom_config=json.dumps(what_is_trained(config, locations)),
            code_hash=code_hash(components.training.warm_start),
        )
        if config.training.warm_start
        else None
    )
    if warm_start:
        training_inputs["base_model"] = warm_start.outputs["model"]
    tuner = (
        components.training.tuner.Tuner(
            tuner_fn=_import_path(components.training.tuner.tuner_fn),
            train_args=trainer_pb2.TrainArgs(splits=[train], num_steps=config.tuning.steps),
            custom_config=tuning_config(config, locations),
            **training_inputs,
        )
        if config.tuning.trials
        else None
    )
    trainer = Trainer(
        run_fn=_import_path(components.training.trainer.run_fn),
        hyperparameters=tuner.outputs["best_hyperparameters"] if tuner else None,
        train_args=trainer_pb2.TrainArgs(splits=[train], num_steps=config.training.steps),
        custom_config=training_config(config, locations),
        **training_inputs,
    )
    model = trainer.outputs["model"]
    evaluator = components.evaluation.evaluator.SegmentationEvaluator(
        examples=examples,
        model=model,
        served_model=served_model.outputs["model"],
        schema=schema.outputs["schema"],
        config=config.evaluation,
        labels=config.labels,
        code_hash=code_hash(components.evaluation.evaluator),
    )
    infra_check = components.publishing.infra_check.InfraCheck(
        model=model,
        examples=examples,
        config=config.infra.model_dump_json(),
        code_hash=code_hash(components.publishing.infra_check),
    )
    lite = (
        components.targets.lite.LiteConverter(
            model=model,
            examples=examples,
            config=config.lite.model_dump_json(),
            page=components.targets.lite.page_hash(),
            code_hash=code_hash(components.targets.lite),
        )
        if config.lite.variants
        else None
    )
    hub = (
        components.targets.hub.HubExporter(
            model=model,
            examples=examples,
            config=config.hub.model_dump_json(),
            code_hash=code_hash(components.targets.hub),
        )
        if config.hub.modules
        else None
    )
    pusher = components.publishing.pusher.ModelPusher(
        model=model,
        examples=examples,
        blessing=evaluator.outputs["blessing"],
        infra_blessing=infra_check.outputs["blessing"],
        served_model=served_model.outputs["model"],
        serving_dir=serving_dir,
        config=config.push.model_dump_json(),
        label_map=labels,
        code_hash=code_hash(components.publishing.pusher),
        **({"lite": lite.outputs["lite"]} if lite else {}),
        **({"hub": hub.outputs["hub"]} if hub else {}),
    )
    nodes: list[BaseNode] = [
        served_model,
        example_gen,
        statistics,
        schema,
        *([drift] if drift else []),
        validator,
        transform,
        *([warm_start] if warm_start else []),
        *([tuner] if tuner else []),
        trainer,
        evaluator,
        infra_check,
        *([lite] if lite else []),
        *([hub] if hub else []),
        pusher,
    ]
    if last:
        nodes.append(last({node.id: node for node in nodes}))
    return Pipeline(
        pipeline_name=config.name,
        pipeline_root=locations.artifacts,
        components=nodes,
        enable_cache=True,
        metadata_connection_config=locations.metadata,
        beam_pipeline_args=config.beam.arguments(),
    )


def _example_gen(config: Config, locations: Locations) -> BaseNode:
    data = config.data.model_copy(update={"license": ""})  # a note for people: no reason to read the images again
    if not config.data.has_spans:
        return components.ingest.example_gen.ImageExampleGen(data, code_hash(components.ingest.example_gen))
    ingested = f"{locations.ingested or locations.serving.rstrip('/') + '-ingested'}/{config.name}"
    node = components.spans.example_gen.WindowExampleGen(data, ingested, code_hash(components.spans.example_gen))
    return node.with_id(components.ingest.example_gen.ImageExampleGen.__name__)


def _import_path(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__name__}"


def training_config(config: Config, locations: Locations) -> dict[str, Any]:
    """What `components.training.trainer.run_fn` gets: the JSON of its sections, recorded in metadata."""
    sections = ("model", "training", "augment", "input", "preprocess", "inference")
    return {
        **{name: json.loads(getattr(config, name).model_dump_json()) for name in sections},
        "label_map": json.loads(config.labels.model_dump_json()),
        "code_hash": code_hash(components.training.trainer),
        "checkpoints": locations.checkpoints,
    }


def tuning_config(config: Config, locations: Locations) -> dict[str, Any]:
    """What `components.training.tuner.tuner_fn` gets: what the Trainer trains with, and section `tuning`."""
    return {
        **_without_inference(training_config(config, locations)),
        "tuning": json.loads(config.tuning.model_dump_json()),
        "code_hash": code_hash(components.training.tuner),
    }


def what_is_trained(config: Config, locations: Locations) -> dict[str, Any]:
    """What `components.training.warm_start.WarmStart` gets: all that makes a new training, beside the data."""
    if config.tuning.trials:
        return tuning_config(config, locations)
    return _without_inference(training_config(config, locations))


def _without_inference(custom_config: dict[str, Any]) -> dict[str, Any]:
    """Another inference exports the same training anew."""
    return {name: value for name, value in custom_config.items() if name != "inference"}
