"""Converts a step's inputs and outputs between Kubeflow Pipelines' launcher and TFX's objects.

The launcher passes an `ExecutorInput` and reads an `ExecutorOutput`, both as JSON. Between two steps, ML Metadata
keeps an artifact's URI and its properties; its type is lost, every number is a double, and mappings and lists are
returned wrapped.

Sources: kubeflow/pipelines 2.17, backend/src/v2: component/launcher_v2.go (`uploadOutputArtifacts`,
`mergeRuntimeArtifacts`, `collectOutputParameters`), driver/driver.go (`provisionOutputs`), metadata/client.go
(`GetOutputArtifactsByExecutionId`), metadata/converter.go (`StructValueToMLMDValue`, `toRuntimeArtifact`).
"""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format, struct_pb2
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.orchestration.kubeflow.v2 import compiler_utils
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils
from tfx.types import standard_artifacts
from tfx.types.artifact import Artifact
from tfx.utils import name_utils

from components import artifacts
from components.artifacts import PRESENT
from components.publishing.served_model import is_present
from data.errors import ConfigError, ProjectError
from pipeline.kubeflow.mounts import EXECUTOR_LOGS, FOLDERS, Mounts

ArtifactLists = Mapping[str, pipeline_spec_pb2.ArtifactList]

#: Title in a type's schema -> import path of the artifact class.
_CLASS_PATHS = {
    **compiler_utils.TITLE_TO_CLASS_PATH,
    **{
        kind.TYPE_NAME: name_utils.get_full_name(kind)
        for _, kind in inspect.getmembers(artifacts, inspect.isclass)
        if issubclass(kind, Artifact) and kind is not Artifact
    },
}


class OutputError(ProjectError):
    """A step did not write its outputs as specified."""


def parse_arguments(
    invocation: str, inputs_spec: str
) -> tuple[pipeline_spec_pb2.ExecutorInput, pipeline_spec_pb2.ComponentInputsSpec]:
    """Parses what a step is given, without outputs that do not belong to the component.

    Args:
        invocation: The launcher's replacement for `{{$}}`.
        inputs_spec: The types of the component's inputs, which TFX's compiler writes into the arguments.

    Raises:
        ConfigError: One of them is not JSON of its message.
    """
    given, spec = pipeline_spec_pb2.ExecutorInput(), pipeline_spec_pb2.ComponentInputsSpec()
    for flag, text, message in (("invocation", invocation, given), ("inputs_spec", inputs_spec, spec)):
        try:
            json_format.Parse(text, message, ignore_unknown_fields=True)
        except json_format.ParseError as error:
            raise ConfigError(
                f"--json_serialized_{flag}_args: is not a message {type(message).__name__} as JSON: {error}"
            ) from None
    given.outputs.artifacts.pop(EXECUTOR_LOGS, None)
    return given, spec


def parameter_values(
    given: pipeline_spec_pb2.ExecutorInput, spec: pipeline_spec_pb2.ComponentInputsSpec
) -> dict[str, Any]:
    """The input parameters, with integers as int: JSON has only doubles."""
    values = {name: json_format.MessageToDict(value) for name, value in given.inputs.parameter_values.items()}
    integer = pipeline_spec_pb2.ParameterType.NUMBER_INTEGER
    integers = {name for name, parameter in spec.parameters.items() if parameter.parameter_type == integer}
    return {name: int(value) if name in integers else value for name, value in values.items()}


def read_artifacts(
    lists: ArtifactLists, mounts: Mounts, spec: pipeline_spec_pb2.ComponentInputsSpec | None = None
) -> dict[str, list[Artifact]]:
    """Artifacts as TFX's objects, whose `uri` is the local path and whose `id` is that of ML Metadata.

    Args:
        lists: The inputs or outputs that the launcher names.
        mounts: Where the launcher mirrors their content.
        spec: The types of inputs; outputs come with their types.

    Raises:
        ConfigError: A type is unknown, or the launcher does not mirror a URI.
    """
    typed = {}
    for name, listed in lists.items():
        typed[name] = pipeline_spec_pb2.ArtifactList()
        for artifact in listed.artifacts:
            schema = spec.artifacts[name].artifact_type if spec else artifact.type
            title = schema.schema_title or (yaml.safe_load(schema.instance_schema) or {}).get("title")
            if title not in _CLASS_PATHS:
                raise ConfigError(f"artifact {name}: unknown type {title!r}; known: {', '.join(sorted(_CLASS_PATHS))}")
            known = pipeline_spec_pb2.ArtifactTypeSchema(schema_title=_CLASS_PATHS[title])
            copy = typed[name].artifacts.add(uri=mounts.path(artifact.uri), type=known)
            copy.metadata.CopyFrom(artifact.metadata)
            for value in copy.metadata.fields.values():
                # The launcher wraps a mapping and a list: {"struct": {...}}, {"list": [...]}.
                if len(fields := value.struct_value.fields) == 1:
                    for wrapper in fields.keys() & {"struct", "list"}:
                        value.CopyFrom(struct_pb2.Value.FromString(fields[wrapper].SerializeToString()))
    read: dict[str, list[Artifact]] = kubeflow_v2_entrypoint_utils.parse_raw_artifact_dict(typed)
    for name, listed in lists.items():
        for artifact, announced in zip(read[name], listed.artifacts, strict=True):
            if announced.name.isdecimal():
                artifact.id = int(announced.name)
    return read


def check_written(outputs: Mapping[str, Sequence[Artifact]], given: ArtifactLists, mounts: Mounts) -> None:
    """Checks that the outputs are where the launcher uploads them from; it would silently ignore missing ones.

    Raises:
        OutputError: An artifact was moved or has no files, or a URI was used as a folder name.
    """
    for scheme in FOLDERS:
        if Path(f"{scheme}:").exists():
            raise OutputError(f"{Path.cwd()} holds a folder '{scheme}:': an artifact's URI was taken for a local path")
    for name, listed in given.items():
        for artifact, announced in zip(outputs[name], listed.artifacts, strict=True):
            path = mounts.path(announced.uri)
            if artifact.uri != path:
                raise OutputError(f"output {name}: the executor moved it from {path} to {artifact.uri}")
            # A pushed model is in the serving directory, and a served model may be absent.
            absent = artifact.has_custom_property(PRESENT) and not is_present(artifact)
            if absent or isinstance(artifact, standard_artifacts.PushedModel):
                continue
            if not Path(path).is_file() and not any(found.is_file() for found in Path(path).rglob("*")):
                raise OutputError(
                    f"output {name}: the executor wrote nothing to {path}, which is uploaded to {announced.uri}"
                )


def executor_output(
    outputs: Mapping[str, Sequence[Artifact]], given: ArtifactLists, mounts: Mounts
) -> pipeline_spec_pb2.ExecutorOutput:
    """The outputs for the launcher to record: the given URIs, and properties in which paths are replaced by URIs."""
    result = pipeline_spec_pb2.ExecutorOutput()
    for name, listed in given.items():
        for artifact, announced in zip(outputs[name], listed.artifacts, strict=True):
            record = result.artifacts[name].artifacts.add()
            record.CopyFrom(kubeflow_v2_entrypoint_utils.to_runtime_artifact(artifact, {artifact.id: announced.name}))
            record.uri = announced.uri
            for value in record.metadata.fields.values():
                if value.HasField("string_value"):
                    value.string_value = mounts.uri(value.string_value)
    return result


def write_parameters(given: pipeline_spec_pb2.ExecutorInput, values: Mapping[str, str]) -> None:
    """Writes each output parameter to the file from which the launcher reads it.

    Raises:
        OutputError: The step has no value for one of them.
    """
    for name, parameter in given.outputs.parameters.items():
        if name not in values:
            raise OutputError(f"output parameter {name}: has no value; there are {', '.join(values) or 'none'}")
        Path(parameter.output_file).parent.mkdir(parents=True, exist_ok=True)
        Path(parameter.output_file).write_text(values[name])
