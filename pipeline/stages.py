"""The names of the pipeline's stages, defined once for every reader of a run."""

from enum import StrEnum


class Stage(StrEnum):
    """The stages in execution order; the value is the stage's id in ML Metadata and on Kubeflow.

    The id is the name of the component's class. Not every pipeline has all stages.
    """

    SERVED_MODEL = "ServedModel"
    EXAMPLE_GEN = "ImageExampleGen"
    STATISTICS = "StatisticsGen"
    SCHEMA = "DataSchema"
    DRIFT = "SpanDrift"
    VALIDATOR = "StrictExampleValidator"
    TRANSFORM = "ImageTransform"
    WARM_START = "WarmStart"
    TUNER = "Tuner"
    TRAINER = "Trainer"
    EVALUATOR = "SegmentationEvaluator"
    INFRA_CHECK = "InfraCheck"
    LITE = "LiteConverter"
    HUB = "HubExporter"
    PUSHER = "ModelPusher"
    RUN_REPORTER = "RunReporter"
    """Exists on Kubeflow only: the local runner writes the record of a run itself."""
