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
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.dsl.components.base import base_beam_executor, base_executor
from tfx.orchestration.portable import outputs_utils
from tfx.utils import import_utils

from data.errors import ConfigError, ProjectError, exit_status, explain
from pipeline.kubeflow import executor_io, parameters
from pipeline.kubeflow.mounts import ROOT_VARIABLE, Mounts


def parse_arguments(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The flags, and the remaining arguments, which are options of Beam."""
    parser = argparse.ArgumentParser("python -m pipeline.kubeflow.entrypoint", allow_abbrev=False)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--executor_class_path", help="import path of the executor")
    what.add_argument("--state-of", help="import path of a driver, instead of an executor")
    parser.add_argument("--node", required=True, help="node id")
    parser.add_argument("--json_serialized_invocation_args", required=True, help="an ExecutorInput as JSON")
    parser.add_argument("--json_serialized_inputs_spec_args", required=True, help="a ComponentInputsSpec as JSON")
    return parser.parse_known_args(argv)


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
                f"{name} holds a minio:// URI. Only artifacts may lie there; data, serving directory and "
                "checkpoints are read by the pipeline itself, which speaks to MinIO through s3://BUCKET/KEY and the "
                "environment variable AWS_ENDPOINT_URL, or is given the path of a mounted volume"
            )
    return properties


def make_executor(path: str, node: str, beam_args: list[str], folder: Path) -> base_executor.BaseExecutor:
    """Constructs an executor that stores temporary files in a folder."""
    executor_class = import_utils.import_class_by_path(path)
    context = {"tmp_dir": str(folder / "tmp"), "unique_id": node, "stateful_working_dir": str(folder / "state")}
    if issubclass(executor_class, base_beam_executor.BaseBeamExecutor):
        return executor_class(executor_class.Context(beam_pipeline_args=beam_args, **context))
    return executor_class(executor_class.Context(extra_flags=beam_args, **context))


def run_executor(arguments: argparse.Namespace, beam_args: list[str], mounts: Mounts) -> None:
    """Runs a component on the inputs that the launcher downloaded, and reports the outputs that it has to upload."""
    given = executor_io.parse_executor_input(arguments.json_serialized_invocation_args)
    spec = executor_io.parse_inputs_spec(arguments.json_serialized_inputs_spec_args)
    properties = execution_properties(arguments.node, given, spec)
    inputs = executor_io.read_artifacts(given.inputs.artifacts, executor_io.input_types(spec), mounts)
    announced = given.outputs.artifacts
    outputs = executor_io.read_artifacts(announced, executor_io.output_types(given), mounts)
    executor_io.make_folders(outputs)
    with tempfile.TemporaryDirectory() as folder:
        executor = make_executor(arguments.executor_class_path, arguments.node, beam_args, Path(folder))
        executor.Do(inputs, outputs, properties)
    executor_io.check_written(outputs, announced, mounts)
    outputs_utils.tag_output_artifacts_with_version(outputs)
    executor_io.write_output(given.outputs.output_file, executor_io.executor_output(outputs, announced, mounts))


def run_state(arguments: argparse.Namespace) -> None:
    """Looks up the state outside the pipeline on which a component depends."""
    given = executor_io.parse_executor_input(arguments.json_serialized_invocation_args)
    spec = executor_io.parse_inputs_spec(arguments.json_serialized_inputs_spec_args)
    driver = import_utils.import_class_by_path(arguments.state_of)(None)
    executor_io.write_parameters(given, driver.state(execution_properties(arguments.node, given, spec)))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one step; returns the exit status. An error that the user can act on is printed as one message."""
    arguments, beam_args = parse_arguments(argv)
    try:
        if arguments.state_of:
            run_state(arguments)
        else:
            run_executor(arguments, beam_args, Mounts(os.environ.get(ROOT_VARIABLE, "/")))
    except (ProjectError, OSError) as error:
        if not (explanation := explain(error)):
            raise
        sys.stderr.write(f"error: {arguments.node}: {explanation}\n")
        return exit_status(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
