"""The pipeline: one definition for every runner."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import tensorflow_data_validation as tfdv
from ml_metadata.proto import metadata_store_pb2
from tfx.components.statistics_gen.component import StatisticsGen
from tfx.dsl.components.base.base_node import BaseNode
from tfx.orchestration.pipeline import Pipeline
from tfx.types import BaseChannel

from components.evaluation.evaluator import SegmentationEvaluator
from components.ingest.example_gen import ImageExampleGen
from components.publishing.infra_check import InfraCheck
from components.publishing.pusher import ModelPusher
from components.publishing.served_model import ServedModel
from components.spans.drift import SpanDrift
from components.spans.example_gen import WindowExampleGen
from components.targets.hub import HubExporter
from components.targets.lite import LiteConverter
from components.training.trainer import Trainer, TrainerConfig
from components.training.tuner import Tuner, TunerConfig
from components.training.warm_start import WarmStart
from components.transform import ImageTransform
from components.validation.schema import DataSchema
from components.validation.validator import StrictExampleValidator
from data import features
from pipeline.config import Config
from pipeline.stages import Stage


@dataclass(frozen=True)
class PipelinePaths:
    """The folders in which a pipeline stores its data; local folders or URIs."""

    artifacts: str
    """TFX's pipeline root."""
    serving: str
    """Holds `<model name>/<version>/`."""
    checkpoints: str
    """Holds `<pipeline name>/<training>/`. It is outside the artifacts, which TFX deletes when a stage fails."""
    ingested: str
    """Holds the ingested examples of each span, `<pipeline name>/<span>/`, which are reused by later runs."""
    metadata: metadata_store_pb2.ConnectionConfig | None = None
    """The connection to ML Metadata; None if the runner provides its own."""


def create_pipeline(
    config: Config, paths: PipelinePaths, last: Callable[[Mapping[str, BaseNode]], BaseNode] | None = None
) -> Pipeline:
    """Connects the stages. A stage that the configuration does not ask for is None, as are its outputs.

    Args:
        config: The resolved configuration (`pipeline.config.resolve`).
        paths: The folders in which the pipeline stores its data.
        last: Makes a final node from all other nodes, by their ids. It does what a runner that has exited before
            the end of a run cannot do itself.
    """
    labels, serving_dir = config.labels, f"{paths.serving}/{config.push.model_name}"
    training = trainer_config(config, paths.checkpoints)
    search = TunerConfig.of(training, config.tuning) if config.tuning.trials else None

    served_model = ServedModel(serving_dir, labels, config.evaluation.on_label_change)
    # The same stage is used whether the data are in one folder or divided into spans.
    example_gen = (
        WindowExampleGen(config.data, f"{paths.ingested}/{config.name}").with_id(Stage.EXAMPLE_GEN.value)
        if config.data.has_spans
        else ImageExampleGen(config.data)
    )
    examples = example_gen.outputs["examples"]
    scalars = tfdv.StatsOptions(feature_allowlist=features.scalar_keys(labels.names))
    statistics = StatisticsGen(examples, stats_options=scalars)
    schema = DataSchema(validation=config.validation.without_drift(), label_map=labels)
    drift = (
        SpanDrift(spans=example_gen.outputs["spans"], config=config.validation.drift, label_map=labels)
        if config.data.has_spans
        else None
    )
    validator = StrictExampleValidator(
        statistics.outputs["statistics"],
        schema.outputs["schema"],
        config.evaluation,
        drift=output(drift, "drift"),
        on_drift=config.validation.on_drift,
    )
    transform = ImageTransform(examples, schema.outputs["schema"], config.preprocess, labels)
    # Training must not begin on data that failed validation; Transform and ExampleValidator share no artifact.
    transform.add_upstream_node(validator)
    transformed, transform_graph = transform.outputs["transformed_examples"], transform.outputs["transform_graph"]
    warm_start = (
        WarmStart(examples=transformed, serving_dir=serving_dir, custom_config=(search or training).without_inference())
        if config.training.warm_start
        else None
    )
    base_model = output(warm_start, "model")
    tuner = Tuner(transformed, transform_graph, search, base_model) if search else None
    trainer = Trainer(transformed, transform_graph, training, base_model, output(tuner, "best_hyperparameters"))
    model = trainer.outputs["model"]
    served = served_model.outputs["model"]
    evaluator = SegmentationEvaluator(examples, model, served, schema.outputs["schema"], config.evaluation, labels)
    infra_check = InfraCheck(model=model, examples=examples, config=config.infra)
    lite = LiteConverter(model=model, examples=examples, config=config.lite) if config.lite.variants else None
    hub = HubExporter(model=model, examples=examples, config=config.hub) if config.hub.modules else None
    pusher = ModelPusher(
        model=model,
        examples=examples,
        blessing=evaluator.outputs["blessing"],
        infra_blessing=infra_check.outputs["blessing"],
        served_model=served,
        lite=output(lite, "lite"),
        hub=output(hub, "hub"),
        serving_dir=serving_dir,
        config=config.push,
        label_map=labels,
    )

    before = [served_model, example_gen, statistics, schema, drift, validator, transform, warm_start, tuner]
    after = [trainer, evaluator, infra_check, lite, hub, pusher]
    nodes: list[BaseNode] = [node for node in (*before, *after) if node is not None]
    if last:
        nodes.append(last({node.id: node for node in nodes}))
    return Pipeline(
        pipeline_name=config.name,
        pipeline_root=paths.artifacts,
        components=nodes,
        enable_cache=True,
        metadata_connection_config=paths.metadata,
        beam_pipeline_args=config.beam.arguments(),
    )


def output(node: BaseNode | None, key: str) -> BaseChannel | None:
    """An output of a stage, or None if the pipeline does not have the stage."""
    return node.outputs[key] if node else None


def trainer_config(config: Config, checkpoints: str) -> TrainerConfig:
    """The Trainer's configuration, the same on every runner and in a job of several workers.

    Args:
        config: The resolved configuration.
        checkpoints: Folder that holds a folder of checkpoints for each pipeline.
    """
    return TrainerConfig(
        model=config.model,
        training=config.training,
        augment=config.augment,
        input=config.input,
        preprocess=config.preprocess,
        inference=config.inference,
        label_map=config.labels,
        checkpoints=f"{checkpoints}/{config.name}",
    )
