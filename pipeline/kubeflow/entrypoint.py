"""The entry point of every container of a Kubeflow pipeline: runs one component under KFP's launcher.

    python -m pipeline.kubeflow.entrypoint --node NODE {--executor_class_path CLASS | --state-of DRIVER}
        --json_serialized_invocation_args JSON --json_serialized_inputs_spec_args JSON [BEAM OPTION]...

The first form runs an executor; its flags are those that TFX's compiler writes. The second runs a driver
(`components.drivers`), for which Kubeflow has no equivalent: its results become output parameters, on which the cache
key of the component's own step then depends.

TFX's entry point is not sufficient: Kubeflow passes input artifacts without their type, adds an output of a type that
TFX does not know, and expects files in the folders that its launcher mirrors.
"""

import argparse
import itertools
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.dsl.components.base import base_beam_executor
from tfx.orchestration.portable import outputs_utils
from tfx.utils import import_utils

from data.errors import ConfigError, ProjectError, exit_status, explain
from pipeline.kubeflow import executor_io, parameters
from pipeline.kubeflow.mounts import ROOT_VARIABLE, Mounts


def execution_properties(
    node: str, given: pipeline_spec_pb2.ExecutorInput, spec: pipeline_spec_pb2.ComponentInputsSpec
) -> dict[str, Any]:
    """The component's execution properties, with the run's parameters applied.

    Raises:
        ConfigError: One of them contains a `minio://` URI.
    """
    values = executor_io.parameter_values(given, spec)
    of_run = {name: value for name, value in values.items() if name.startswith(parameters.PREFIX)}
    properties = parameters.apply(node, values, of_run)
    for name, value in properties.items():
        if "minio://" in str(value):
            raise ConfigError(
                f"{name} holds a minio:// URI, which only artifacts may have; data, serving directory and "
                "checkpoints are read by the pipeline itself; allowed: s3://BUCKET/KEY, with the environment variable "
                "AWS_ENDPOINT_URL for MinIO, or the path of a mounted volume"
            )
    return properties


def run_executor(
    arguments: argparse.Namespace,
    beam_args: list[str],
    given: pipeline_spec_pb2.ExecutorInput,
    spec: pipeline_spec_pb2.ComponentInputsSpec,
) -> None:
    """Runs a component on the inputs that the launcher downloaded, and reports the outputs that it has to upload."""
    properties = execution_properties(arguments.node, given, spec)
    mounts = Mounts(os.environ.get(ROOT_VARIABLE, "/"))
    announced = given.outputs.artifacts
    inputs = executor_io.read_artifacts(given.inputs.artifacts, mounts, spec)
    outputs = executor_io.read_artifacts(announced, mounts)
    for artifact in itertools.chain.from_iterable(outputs.values()):
        # As TFX's launcher does; Kubeflow's creates only the parent folder.
        Path(artifact.uri).mkdir(parents=True, exist_ok=True)
    executor_class = import_utils.import_class_by_path(arguments.executor_class_path)
    on_beam = issubclass(executor_class, base_beam_executor.BaseBeamExecutor)
    options = {"beam_pipeline_args" if on_beam else "extra_flags": beam_args, "unique_id": arguments.node}
    with tempfile.TemporaryDirectory() as name:
        folders = {"tmp_dir": os.path.join(name, "tmp"), "stateful_working_dir": os.path.join(name, "state")}
        executor_class(executor_class.Context(**options, **folders)).Do(inputs, outputs, properties)
    executor_io.check_written(outputs, announced, mounts)
    outputs_utils.tag_output_artifacts_with_version(outputs)
    output_file = Path(given.outputs.output_file)
    output_file.parent.mkdir(parents=True, exist_ok=True)
    output_file.write_text(json_format.MessageToJson(executor_io.executor_output(outputs, announced, mounts)))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one step; returns the exit status. An error that the user can act on is printed as one message."""
    parser = argparse.ArgumentParser("python -m pipeline.kubeflow.entrypoint", allow_abbrev=False)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--executor_class_path", help="import path of the executor")
    what.add_argument("--state-of", help="import path of a driver, instead of an executor")
    parser.add_argument("--node", required=True, help="node id")
    parser.add_argument("--json_serialized_invocation_args", required=True, help="an ExecutorInput as JSON")
    parser.add_argument("--json_serialized_inputs_spec_args", required=True, help="a ComponentInputsSpec as JSON")
    arguments, beam_args = parser.parse_known_args(argv)
    try:
        given, spec = executor_io.parse_arguments(
            arguments.json_serialized_invocation_args, arguments.json_serialized_inputs_spec_args
        )
        if arguments.state_of:
            driver = import_utils.import_class_by_path(arguments.state_of)(None)
            executor_io.write_parameters(given, driver.state(execution_properties(arguments.node, given, spec)))
        else:
            run_executor(arguments, beam_args, given, spec)
    except (ProjectError, OSError) as error:
        if not (explanation := explain(error)):
            raise
        sys.stderr.write(f"error: {arguments.node}: {explanation}\n")
        return exit_status(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
