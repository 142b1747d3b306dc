"""SegmentationEvaluator: TFMA over the model's own counts, on the test split, and the verdict over the model.

TFX's Evaluator leaves no room for slices that are no columns, for what comes beside TFMA's metrics, or for thresholds
on a class of a slice; so this is a component of its own, which takes and gives what TFX's does.
"""

import os
from typing import Any

import apache_beam as beam
import tensorflow_model_analysis as tfma
from tfx import types
from tfx.components.evaluator import constants
from tfx.components.util import tfxio_utils
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils, json_utils, path_utils
from tfx_bsl.tfxio import tensor_adapter

from components.code_hash import code_hash
from components.config import EvaluationConfig
from components.evaluation.batches import examples_by_name, large_apart
from components.evaluation.metrics import MEAN_IOU, SegmentationMetrics
from components.evaluation.per_image import describe_images, images_evaluator, images_writer
from components.evaluation.results import read_images, read_scores
from components.evaluation.verdict import judge, write_verdict
from components.publishing import served_model as baseline
from components.slicing import wanted_values
from data.labels import LabelMap
from data.layouts.base import SPLITS
from models.export.saved_model import EVALUATE_SIGNATURE

TEST_SPLIT = SPLITS[-1]

_MODEL = "model"
_BASELINE = "baseline_model"


def make_eval_config(config: EvaluationConfig, class_names: tuple[str, ...], has_baseline: bool) -> tfma.EvalConfig:
    """TFMA's configuration: what is computed, for which slices.

    It has no thresholds: `components.evaluation.verdict` decides.
    """
    metric = tfma.MetricConfig(
        class_name=SegmentationMetrics.__name__,
        module=SegmentationMetrics.__module__,
        config=json_utils.dumps({"class_names": list(class_names), "name": MEAN_IOU}),
    )
    columns = wanted_values((*config.slice_by, *config.slices))
    eval_config = tfma.EvalConfig(
        model_specs=[tfma.ModelSpec(signature_name=EVALUATE_SIGNATURE)],
        metrics_specs=[tfma.MetricsSpec(metrics=[metric])],
        slicing_specs=[tfma.SlicingSpec(), *(tfma.SlicingSpec(feature_keys=[column]) for column in columns)],
    )
    return tfma.utils.update_eval_config_with_defaults(eval_config, has_baseline=has_baseline)


class Executor(base_beam_executor.BaseBeamExecutor):
    """Evaluates with TFMA, then judges."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Called by TFX."""
        config = EvaluationConfig.model_validate_json(exec_properties["config"])
        labels = LabelMap.model_validate_json(exec_properties["label_map"])
        uri = artifact_utils.get_single_uri(output_dict["evaluation"])
        served = artifact_utils.get_single_instance(input_dict[_BASELINE])
        comparable = baseline.is_present(served)
        eval_config = make_eval_config(config, labels.names, comparable)
        models = load_models(eval_config, artifact_utils.get_single_instance(input_dict[_MODEL]), served)
        with self._make_beam_pipeline() as pipeline:
            evaluate(read_examples(pipeline, input_dict), models, eval_config, config, labels, uri)
        verdict = judge(
            read_scores(uri, labels.names),
            read_images(uri),
            config,
            served.get_int_custom_property(baseline.VERSION) if comparable else None,
        )
        write_verdict(uri, verdict)
        bless(artifact_utils.get_single_instance(output_dict["blessing"]), verdict.blessed, input_dict, comparable)


def load_models(
    eval_config: tfma.EvalConfig, candidate: types.Artifact, served: types.Artifact
) -> list[tfma.EvalSharedModel]:
    """What TFMA calls the models of its configuration."""
    return [
        tfma.default_eval_shared_model(
            path_utils.serving_model_path((served if spec.is_baseline else candidate).uri),
            model_name=spec.name,
            eval_config=eval_config,
        )
        for spec in eval_config.model_specs
    ]


def read_examples(
    pipeline: beam.Pipeline, input_dict: dict[str, list[types.Artifact]]
) -> tuple[beam.PCollection, tensor_adapter.TensorAdapterConfig]:
    """The test split as Arrow batches, and how TFMA makes tensors of them."""
    schema = io_utils.SchemaReader().read(
        io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict["schema"]))
    )
    tfxio = tfxio_utils.get_tfxio_factory_from_artifact(
        examples=input_dict["examples"],
        telemetry_descriptors=["SegmentationEvaluator"],
        schema=schema,
        raw_record_column_name=tfma.ARROW_INPUT_COLUMN,
    )(io_utils.all_files_pattern(artifact_utils.get_split_uri(input_dict["examples"], TEST_SPLIT)))
    adapter = tensor_adapter.TensorAdapterConfig(
        arrow_schema=tfxio.ArrowSchema(), tensor_representations=tfxio.TensorRepresentations()
    )
    return pipeline | "Read" >> tfxio.BeamSource() | "LargeApart" >> beam.FlatMap(large_apart), adapter


def evaluate(
    examples: tuple[beam.PCollection, tensor_adapter.TensorAdapterConfig],
    models: list[tfma.EvalSharedModel],
    eval_config: tfma.EvalConfig,
    config: EvaluationConfig,
    labels: LabelMap,
    uri: str,
) -> None:
    """Adds to a Beam pipeline what writes an evaluation artifact, but for the verdict."""
    batches, adapter = examples
    shared = models[0] if len(models) == 1 else models
    columns, *extractors, slices = tfma.default_extractors(
        eval_shared_model=shared, eval_config=eval_config, tensor_adapter_config=adapter
    )
    metrics = tfma.default_evaluators(eval_shared_model=shared, eval_config=eval_config)
    _ = batches | "Evaluate" >> tfma.ExtractEvaluateAndWriteResults(
        eval_shared_model=shared,
        eval_config=eval_config,
        extractors=[columns, examples_by_name(), *extractors, describe_images(config), slices],
        evaluators=[*metrics, images_evaluator(labels.num_classes)],
        writers=[
            *tfma.default_writers(uri, eval_shared_model=shared, eval_config=eval_config),
            images_writer(uri),
        ],
        output_path=uri,
    )


def bless(
    blessing: types.Artifact, blessed: bool, input_dict: dict[str, list[types.Artifact]], comparable: bool
) -> None:
    """Fills in a blessing as TFX's Evaluator does, for whatever reads one."""
    models = {_MODEL: ("current_model", "current_model_id")}
    if comparable:
        models[_BASELINE] = ("baseline_model", "baseline_model_id")
    for key, (uri, number) in models.items():
        model = artifact_utils.get_single_instance(input_dict[key])
        blessing.set_string_custom_property(uri, model.uri)
        blessing.set_int_custom_property(number, model.id)
    value = constants.BLESSED_VALUE if blessed else constants.NOT_BLESSED_VALUE
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, value)
    name = constants.BLESSED_FILE_NAME if blessed else constants.NOT_BLESSED_FILE_NAME
    io_utils.write_string_file(os.path.join(blessing.uri, name), "")


class SegmentationEvaluatorSpec(ComponentSpec):
    """Parameters, inputs and outputs of `SegmentationEvaluator`."""

    PARAMETERS = {
        "config": ExecutionParameter(type=str),
        "label_map": ExecutionParameter(type=str),
        "code_hash": ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        _MODEL: ChannelParameter(type=standard_artifacts.Model),
        _BASELINE: ChannelParameter(type=standard_artifacts.Model),
        "schema": ChannelParameter(type=standard_artifacts.Schema),
    }
    OUTPUTS = {
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
    }


class SegmentationEvaluator(base_beam_component.BaseBeamComponent):
    """Evaluates a model by slice with TFMA, beside the served model, and blesses it or not.

    Args of the constructor:
        examples: ExampleGen's output.
        model: The candidate.
        served_model: `ServedModel`'s output.
        schema: The curated schema.
        config: Section `evaluation`.
        labels: The label map.
    """

    SPEC_CLASS = SegmentationEvaluatorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        model: types.BaseChannel,
        served_model: types.BaseChannel,
        schema: types.BaseChannel,
        config: EvaluationConfig,
        labels: LabelMap,
    ):
        super().__init__(
            spec=SegmentationEvaluatorSpec(
                examples=examples,
                model=model,
                baseline_model=served_model,
                schema=schema,
                # What happens where the classes differ is `ServedModel`'s affair.
                config=config.model_dump_json(exclude={"on_label_change"}),
                label_map=labels.model_dump_json(),
                code_hash=code_hash(__name__),
                evaluation=types.Channel(type=standard_artifacts.ModelEvaluation),
                blessing=types.Channel(type=standard_artifacts.ModelBlessing),
            )
        )
