"""StrictExampleValidator: TFX's ExampleValidator, which stops the run at an anomaly and names split and column.

It also stops the run if the data are degenerate (`components.validation.degenerate`) and, if they come in spans, if the
newest span differs too much from those before it, as `SpanDrift` measured.
"""

import os
from typing import Any

from absl import logging
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx import types
from tfx.components.example_validator import executor
from tfx.dsl.components.base import base_component, executor_spec
from tfx.proto.orchestration import execution_result_pb2
from tfx.types import artifact_utils, standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter, ExecutionParameter
from tfx.utils import io_utils

from components.artifacts import Drift
from components.code_hash import code_hash
from components.config import EvaluationConfig
from components.spans.drift import read_drift
from components.validation.degenerate import degenerate_data
from data.errors import DataError


def read_anomalies(artifact: types.Artifact) -> list[str]:
    """All anomalies of an ExampleAnomalies artifact, one line each: split, column, what is wrong."""
    lines = []
    for split in artifact_utils.decode_split_names(artifact.split_names):
        folder = artifact_utils.get_split_uri([artifact], split)
        content = io_utils.read_bytes_file(os.path.join(folder, executor.DEFAULT_FILE_NAME))
        anomalies = anomalies_pb2.Anomalies.FromString(content)
        for name, info in sorted(anomalies.anomaly_info.items()):
            lines.append(f"  split {split}, column {name}: {info.short_description}: {info.description}")
        if anomalies.HasField("dataset_anomaly_info"):
            lines.append(f"  split {split}: {anomalies.dataset_anomaly_info.description}")
    return lines


def drift_error(drift: list[types.Artifact]) -> str:
    """What is wrong with the newest span; empty if nothing is, or if no drift was measured."""
    if not drift:
        return ""
    record = read_drift(artifact_utils.get_single_uri(drift))
    if not record.findings:
        return ""
    before = f"compared with {', '.join(record.compared_with)}" if record.compared_with else "the first one"
    lines = "\n".join(f"  {finding}" for finding in record.findings)
    return (
        f"span {record.newest} is not like the data before it ({before}):\n{lines}\n"
        "check the span; if it is as it should be, raise the threshold, or set validation.on_drift=warn"
    )


class Executor(executor.Executor):
    """Validates as TFX does, then raises DataError if there is any anomaly, or if the data are degenerate."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> execution_result_pb2.ExecutorOutput:
        """Called by TFX."""
        output = super().Do(input_dict, output_dict, exec_properties)
        lines = read_anomalies(artifact_utils.get_single_instance(output_dict["anomalies"]))
        errors = []
        if lines:
            errors.append(
                "the data breaks its schema (section `validation` of the configuration):\n" + "\n".join(lines)
            )
        evaluation = EvaluationConfig.model_validate_json(exec_properties["evaluation"])
        degenerate = degenerate_data(artifact_utils.get_single_instance(input_dict["statistics"]), evaluation)
        for finding in degenerate.findings:
            logging.warning("%s", finding)
        if degenerate.hopeless and not evaluation.allow_degenerate:
            errors.append(
                "the data are degenerate; evaluation.allow_degenerate=true trains on them all the same:\n"
                + "\n".join(f"  {finding}" for finding in degenerate.hopeless)
            )
        if exec_properties.get("on_drift") == "stop":
            errors += filter(None, [drift_error(input_dict["drift"])])
        if errors:
            raise DataError("\n".join(errors))
        return output


class StrictExampleValidatorSpec(standard_component_specs.ExampleValidatorSpec):
    """Inputs, outputs and parameters of `StrictExampleValidator`."""

    PARAMETERS = {
        **standard_component_specs.ExampleValidatorSpec.PARAMETERS,
        "evaluation": ExecutionParameter(type=str),
        "on_drift": ExecutionParameter(type=str, optional=True),
        "code_hash": ExecutionParameter(type=str),
    }
    INPUTS = {
        **standard_component_specs.ExampleValidatorSpec.INPUTS,
        "drift": ChannelParameter(type=Drift, optional=True),
    }


class StrictExampleValidator(base_component.BaseComponent):
    """TFX's ExampleValidator, which stops the run at an anomaly.

    Args of the constructor:
        statistics: The statistics of the examples.
        schema: The curated schema.
        evaluation: Section `evaluation`.
        drift: `SpanDrift`'s output, if data come in spans.
        on_drift: 'stop' or 'warn'; ignored unless data come in spans.
    """

    SPEC_CLASS = StrictExampleValidatorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        statistics: types.BaseChannel,
        schema: types.BaseChannel,
        evaluation: EvaluationConfig,
        drift: types.BaseChannel | None = None,
        on_drift: str | None = None,
    ):
        super().__init__(
            spec=StrictExampleValidatorSpec(
                statistics=statistics,
                schema=schema,
                evaluation=evaluation.model_dump_json(include={"min_mean_iou", "allow_degenerate"}),
                drift=drift,
                on_drift=on_drift if drift else None,
                code_hash=code_hash(__name__),
                exclude_splits="[]",
                anomalies=types.Channel(type=standard_artifacts.ExampleAnomalies),
            )
        )
