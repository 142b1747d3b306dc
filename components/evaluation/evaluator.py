"""SegmentationEvaluator: TFMA over the model's own counts, on the test split, and the verdict on the model.

TFX's Evaluator supports neither slices that are not columns, nor results beside TFMA's metrics, nor thresholds on a
class or a slice of our own. So this is a component of its own, with the inputs and outputs of TFX's.
"""

import os
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import apache_beam as beam
import pyarrow as pa
import tensorflow_model_analysis as tfma
from tfx import types
from tfx.components.evaluator import constants
from tfx.components.util import tfxio_utils
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils, json_utils, path_utils
from tfx_bsl.tfxio import tensor_adapter

from components.artifacts import COPIED_VERSION
from components.code_hash import code_hash
from components.config import EvaluationConfig
from components.evaluation.metrics import MEAN_IOU, SegmentationMetrics
from components.evaluation.per_image import describe_images, images_evaluator, images_writer
from components.evaluation.results import read_images, read_scores
from components.evaluation.verdict import evaluate_thresholds, write_verdict
from components.publishing.served_model import is_present
from components.slicing import wanted_values
from data.features import HEIGHT, WIDTH
from data.labels import LabelMap
from data.layouts.base import TEST
from models.export.saved_model import EVALUATE_SIGNATURE, EXAMPLES

_MODEL = "model"
_BASELINE = "baseline_model"  # TFX's name for the model to compare with, here the served one

#: An image of more pixels is a batch of its own: the signature `evaluate` computes several images of a batch at a time,
#: and would run out of memory before it had saved much time.
LARGE_IMAGE_PIXELS = 4_000_000


def make_eval_config(config: EvaluationConfig, class_names: tuple[str, ...], comparable: bool) -> tfma.EvalConfig:
    """TFMA's configuration: what is computed, for which slices, and whether for the served model too.

    It has no thresholds, because `components.evaluation.verdict` evaluates them.
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
    return tfma.utils.update_eval_config_with_defaults(eval_config, has_baseline=comparable)


class Executor(base_beam_executor.BaseBeamExecutor):
    """Evaluates with TFMA, then evaluates the thresholds."""

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
        comparable = is_present(served)
        candidate = artifact_utils.get_single_instance(input_dict[_MODEL])
        eval_config = make_eval_config(config, labels.names, comparable)
        models = [
            tfma.default_eval_shared_model(
                path_utils.serving_model_path((served if spec.is_baseline else candidate).uri),
                model_name=spec.name,
                eval_config=eval_config,
            )
            for spec in eval_config.model_specs
        ]
        with self._make_beam_pipeline() as pipeline:
            evaluate(read_examples(pipeline, input_dict), models, eval_config, config, labels, uri)
        verdict = evaluate_thresholds(
            read_scores(uri, labels.names),
            read_images(uri),
            config,
            served.get_int_custom_property(COPIED_VERSION) if comparable else None,
        )
        write_verdict(uri, verdict)
        bless(artifact_utils.get_single_instance(output_dict["blessing"]), verdict.blessed, input_dict, comparable)


def read_examples(
    pipeline: beam.Pipeline, input_dict: dict[str, list[types.Artifact]]
) -> tuple[beam.PCollection, tensor_adapter.TensorAdapterConfig]:
    """The test split as Arrow batches, and how TFMA makes tensors of them; large images are batches of their own."""
    schema = io_utils.SchemaReader().read(
        io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict["schema"]))
    )
    tfxio = tfxio_utils.get_tfxio_factory_from_artifact(
        examples=input_dict["examples"],
        telemetry_descriptors=["SegmentationEvaluator"],
        schema=schema,
        raw_record_column_name=tfma.ARROW_INPUT_COLUMN,
    )(io_utils.all_files_pattern(artifact_utils.get_split_uri(input_dict["examples"], TEST)))
    adapter = tensor_adapter.TensorAdapterConfig(
        arrow_schema=tfxio.ArrowSchema(), tensor_representations=tfxio.TensorRepresentations()
    )
    batches = pipeline | "Read" >> tfxio.BeamSource() | "SplitOffLargeImages" >> beam.FlatMap(split_off_large_images)
    return batches, adapter


def split_off_large_images(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cuts a batch of examples so that each large image is a batch of its own; keeps the order."""
    height, width = (batch.column(name).flatten().to_numpy() for name in (HEIGHT, WIDTH))
    around = (edge for row in (height * width > LARGE_IMAGE_PIXELS).nonzero()[0] for edge in (row, row + 1))
    for start, end in pairwise(sorted({0, *around, batch.num_rows})):
        yield batch.slice(start, end - start)


def examples_by_name() -> tfma.extractors.Extractor:
    """The extractor that puts the examples under the name of the signature's input; it follows that of the columns.

    TFMA passes an input by position if it does not find it by name. A signature takes only names: TensorFlow tries,
    writes the whole batch into the text of an error that is not shown, and tries again.
    """
    return tfma.extractors.Extractor("ExamplesByName", beam.Map(_with_examples))


def _with_examples(extracts: tfma.Extracts) -> tfma.Extracts:
    return {**extracts, tfma.FEATURES_KEY: {**extracts[tfma.FEATURES_KEY], EXAMPLES: extracts[tfma.INPUT_KEY]}}


def evaluate(
    examples: tuple[beam.PCollection, tensor_adapter.TensorAdapterConfig],
    models: list[tfma.EvalSharedModel],
    eval_config: tfma.EvalConfig,
    config: EvaluationConfig,
    labels: LabelMap,
    uri: str,
) -> None:
    """Adds to a Beam pipeline what writes an evaluation artifact, except for the verdict.

    Args:
        examples: What `read_examples` gives.
        models: The candidate, and the served model if it is comparable.
        eval_config: What `make_eval_config` gives.
        config: Section `evaluation`.
        labels: The label map.
        uri: The folder of the artifact.
    """
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
    """Fills in a blessing as TFX's Evaluator does."""
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
                # What to do if the classes differ concerns `ServedModel` alone.
                config=config.model_dump_json(exclude={"on_label_change"}),
                label_map=labels.model_dump_json(),
                code_hash=code_hash(__name__),
                evaluation=types.Channel(type=standard_artifacts.ModelEvaluation),
                blessing=types.Channel(type=standard_artifacts.ModelBlessing),
            )
        )
