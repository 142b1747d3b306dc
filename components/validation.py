"""StrictExampleValidator: TFX's ExampleValidator, where an anomaly stops the run and says what and where."""

import os
from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx import types
from tfx.components.example_validator import component as validator
from tfx.components.example_validator import executor
from tfx.dsl.components.base import executor_spec
from tfx.proto.orchestration import execution_result_pb2
from tfx.types import artifact_utils
from tfx.utils import io_utils

from data.errors import DataError


def describe(split: str, anomalies: anomalies_pb2.Anomalies) -> list[str]:
    """One line for each anomaly: split, column, what is wrong."""
    lines = [
        f"  split {split}, column {name}: {info.short_description}: {info.description}"
        for name, info in sorted(anomalies.anomaly_info.items())
    ]
    if anomalies.HasField("dataset_anomaly_info"):
        lines.append(f"  split {split}: {anomalies.dataset_anomaly_info.description}")
    return lines


def read_anomalies(artifact: types.Artifact) -> list[str]:
    """All anomalies of an ExampleAnomalies artifact, one line each."""
    lines = []
    for split in artifact_utils.decode_split_names(artifact.split_names):
        folder = artifact_utils.get_split_uri([artifact], split)
        content = io_utils.read_bytes_file(os.path.join(folder, executor.DEFAULT_FILE_NAME))
        lines += describe(split, anomalies_pb2.Anomalies.FromString(content))
    return lines


class Executor(executor.Executor):
    """Validates as TFX does, then raises DataError if there was anything."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> execution_result_pb2.ExecutorOutput:
        """Called by TFX."""
        output = super().Do(input_dict, output_dict, exec_properties)
        lines = read_anomalies(artifact_utils.get_single_instance(output_dict["anomalies"]))
        if lines:
            raise DataError(
                "the data breaks its schema (section `validation` of the configuration):\n" + "\n".join(lines)
            )
        return output


class StrictExampleValidator(validator.ExampleValidator):
    """See the module."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
