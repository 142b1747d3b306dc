"""SegmentationEvaluator: TFX's Evaluator (TFMA) over the model's own confusion matrices, judged on the test split."""

from typing import Any

import tensorflow_model_analysis as tfma
from google.protobuf.wrappers_pb2 import DoubleValue
from tensorflow_model_analysis.proto import config_pb2
from tfx import types
from tfx.components.evaluator import component as evaluator
from tfx.components.evaluator import executor
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact_utils, standard_artifacts, standard_component_specs
from tfx.types.component_spec import ExecutionParameter
from tfx.utils import json_utils

from components import baseline
from components.config import EvaluationConfig
from components.evaluation_metrics import MEAN_IOU, SegmentationMetrics
from data.labels import LabelMap
from data.layouts.base import SPLITS
from models.export import EVALUATE_SIGNATURE

TEST_SPLIT = SPLITS[-1]
_BASELINE = standard_component_specs.BASELINE_MODEL_KEY


def make_eval_config(config: EvaluationConfig, class_names: tuple[str, ...]) -> tfma.EvalConfig:
    """TFMA's configuration: one metric, an absolute floor, and a bound on the change against the baseline."""
    threshold = tfma.MetricThreshold(
        value_threshold=tfma.GenericValueThreshold(lower_bound=DoubleValue(value=config.min_mean_iou)),
        change_threshold=tfma.GenericChangeThreshold(
            direction=tfma.MetricDirection.HIGHER_IS_BETTER, absolute=DoubleValue(value=-config.max_drop)
        ),
    )
    # `MetricConfig.threshold` would be held against every slice: the blessing is about the whole split.
    whole_split = config_pb2.PerSliceMetricThreshold(slicing_specs=[tfma.SlicingSpec()], threshold=threshold)
    metric = tfma.MetricConfig(
        class_name=SegmentationMetrics.__name__,
        module=SegmentationMetrics.__module__,
        config=json_utils.dumps({"class_names": list(class_names), "name": MEAN_IOU}),
        per_slice_thresholds=[whole_split],
    )
    return tfma.EvalConfig(
        model_specs=[tfma.ModelSpec(signature_name=EVALUATE_SIGNATURE)],
        metrics_specs=[tfma.MetricsSpec(metrics=[metric])],
        slicing_specs=[tfma.SlicingSpec(), *(tfma.SlicingSpec(feature_keys=[key]) for key in config.slice_by)],
    )


class Executor(executor.Executor):
    """TFX's executor, which would try to load any baseline it is handed: an absent one is taken out first."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Called by TFX."""
        inputs = dict(input_dict)
        if not baseline.is_present(artifact_utils.get_single_instance(inputs[_BASELINE])):
            del inputs[_BASELINE]
        super().Do(inputs, output_dict, exec_properties)


class SegmentationEvaluatorSpec(standard_component_specs.EvaluatorSpec):
    """TFX's, with the hash of the code that computes the metrics in the cache key."""

    PARAMETERS = {
        **standard_component_specs.EvaluatorSpec.PARAMETERS,
        "code_hash": ExecutionParameter(type=str),
    }


class SegmentationEvaluator(evaluator.Evaluator):
    """See the module.

    Args of the constructor:
        examples: ExampleGen's output.
        model: The candidate.
        served_model: `ServedModel`'s output.
        schema: The curated schema; makes the scalar columns known for slicing.
        config: Section `evaluation`.
        labels: The label map.
        code_hash: Of the code that this node runs; part of the cache key.
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
        code_hash: str,
    ):
        spec = SegmentationEvaluatorSpec(
            examples=examples,
            model=model,
            baseline_model=served_model,
            schema=schema,
            eval_config=make_eval_config(config, labels.names),
            example_splits=json_utils.dumps([TEST_SPLIT]),
            fairness_indicator_thresholds=json_utils.dumps(None),
            evaluation=types.Channel(type=standard_artifacts.ModelEvaluation),
            blessing=types.Channel(type=standard_artifacts.ModelBlessing),
            code_hash=code_hash,
        )
        # Evaluator's own constructor builds TFX's spec; a component is made from a spec by its grandparent.
        super(evaluator.Evaluator, self).__init__(spec=spec)
