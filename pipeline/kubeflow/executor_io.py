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
from typing import Any, TypeVar

import yaml
from google.protobuf import json_format, struct_pb2
from google.protobuf.message import Message
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
Types = Mapping[str, pipeline_spec_pb2.ArtifactTypeSchema]

#: Title in a type's schema -> import path of the artifact class.
_CLASS_PATHS = {
    **compiler_utils.TITLE_TO_CLASS_PATH,
    **{
        kind.TYPE_NAME: name_utils.get_full_name(kind)
        for _, kind in inspect.getmembers(artifacts, inspect.isclass)
        if issubclass(kind, Artifact) and kind is not Artifact
    },
}

_AnyMessage = TypeVar("_AnyMessage", bound=Message)


class OutputError(ProjectError):
    """A step did not write its outputs as specified."""


def _parse(text: str, message: _AnyMessage, flag: str) -> _AnyMessage:
    try:
        return json_format.Parse(text, message, ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise ConfigError(f"{flag}: no {type(message).__name__} in JSON: {error}") from None


def parse_executor_input(text: str) -> pipeline_spec_pb2.ExecutorInput:
    """Parses the launcher's replacement for `{{$}}`, without outputs that do not belong to the component."""
    parsed = _parse(text, pipeline_spec_pb2.ExecutorInput(), "--json_serialized_invocation_args")
    parsed.outputs.artifacts.pop(EXECUTOR_LOGS, None)
    return parsed


def parse_inputs_spec(text: str) -> pipeline_spec_pb2.ComponentInputsSpec:
    """Parses the types of a component's inputs, which TFX's compiler writes into the arguments."""
    return _parse(text, pipeline_spec_pb2.ComponentInputsSpec(), "--json_serialized_inputs_spec_args")


def input_types(spec: pipeline_spec_pb2.ComponentInputsSpec) -> Types:
    """The type of each input artifact."""
    return {name: artifact.artifact_type for name, artifact in spec.artifacts.items()}


def output_types(given: pipeline_spec_pb2.ExecutorInput) -> Types:
    """The type of each output artifact, which the launcher passes on."""
    return {name: listed.artifacts[0].type for name, listed in given.outputs.artifacts.items()}


def parameter_values(
    given: pipeline_spec_pb2.ExecutorInput, spec: pipeline_spec_pb2.ComponentInputsSpec
) -> dict[str, Any]:
    """The input parameters, with integers as int: JSON has only doubles."""
    values = {name: json_format.MessageToDict(value) for name, value in given.inputs.parameter_values.items()}
    integer = pipeline_spec_pb2.ParameterType.NUMBER_INTEGER
    integers = {name for name, parameter in spec.parameters.items() if parameter.parameter_type == integer}
    return {name: int(value) if name in integers else value for name, value in values.items()}


def _class_path(schema: pipeline_spec_pb2.ArtifactTypeSchema, name: str) -> str:
    title = schema.schema_title or (yaml.safe_load(schema.instance_schema) or {}).get("title")
    if title not in _CLASS_PATHS:
        raise ConfigError(f"artifact {name}: unknown type {title!r}; known: {', '.join(sorted(_CLASS_PATHS))}")
    return _CLASS_PATHS[title]


def _unwrap(value: struct_pb2.Value) -> None:
    """Unwraps the launcher's representation of a mapping and a list: {"struct": {...}}, {"list": [...]}."""
    if len(fields := value.struct_value.fields) == 1:
        for wrapper in fields.keys() & {"struct", "list"}:
            value.CopyFrom(struct_pb2.Value.FromString(fields[wrapper].SerializeToString()))


def read_artifacts(lists: ArtifactLists, types: Types, mounts: Mounts) -> dict[str, list[Artifact]]:
    """The input artifacts as TFX's objects, whose `uri` is the local path and whose `id` is that of ML Metadata."""
    typed = {}
    for name, listed in lists.items():
        typed[name] = pipeline_spec_pb2.ArtifactList()
        for artifact in listed.artifacts:
            schema = pipeline_spec_pb2.ArtifactTypeSchema(schema_title=_class_path(types[name], name))
            copy = typed[name].artifacts.add(uri=mounts.path(artifact.uri), type=schema)
            copy.metadata.CopyFrom(artifact.metadata)
            for value in copy.metadata.fields.values():
                _unwrap(value)
    read: dict[str, list[Artifact]] = kubeflow_v2_entrypoint_utils.parse_raw_artifact_dict(typed)
    for name, listed in lists.items():
        for artifact, told in zip(read[name], listed.artifacts, strict=True):
            if told.name.isdecimal():
                artifact.id = int(told.name)
    return read


def make_folders(outputs: Mapping[str, Sequence[Artifact]]) -> None:
    """Creates the folder of each output artifact, as TFX's launcher does; Kubeflow's creates only its parent."""
    for written in outputs.values():
        for artifact in written:
            Path(artifact.uri).mkdir(parents=True, exist_ok=True)


def _may_be_empty(artifact: Artifact) -> bool:
    """Whether an artifact may have no files: a pushed model is in the serving directory, or no model is served yet."""
    absent = artifact.has_custom_property(PRESENT) and not is_present(artifact)
    return absent or isinstance(artifact, standard_artifacts.PushedModel)


def _holds_files(path: Path) -> bool:
    return path.is_file() or any(found.is_file() for found in path.rglob("*"))


def check_written(outputs: Mapping[str, Sequence[Artifact]], given: ArtifactLists, mounts: Mounts) -> None:
    """Checks that the outputs are where the launcher uploads them from; it would silently ignore missing ones.

    Raises:
        OutputError: An artifact was moved or has no files, or a URI was used as a folder name.
    """
    strays = [f"{scheme}:" for scheme in FOLDERS if Path(f"{scheme}:").exists()]
    if strays:
        raise OutputError(f"{Path.cwd()} holds a folder {strays[0]!r}: an artifact URI was taken for a local path")
    for name, listed in given.items():
        for artifact, told in zip(outputs[name], listed.artifacts, strict=True):
            path = mounts.path(told.uri)
            if artifact.uri != path:
                raise OutputError(f"output {name}: the executor moved it from {path} to {artifact.uri}")
            if not _may_be_empty(artifact) and not _holds_files(Path(path)):
                raise OutputError(f"output {name}: the executor wrote nothing to {path}, from where {told.uri} is made")


def executor_output(
    outputs: Mapping[str, Sequence[Artifact]], given: ArtifactLists, mounts: Mounts
) -> pipeline_spec_pb2.ExecutorOutput:
    """The outputs for the launcher to record: the given URIs, and properties in which paths are replaced by URIs."""
    result = pipeline_spec_pb2.ExecutorOutput()
    for name, listed in given.items():
        for artifact, told in zip(outputs[name], listed.artifacts, strict=True):
            record = result.artifacts[name].artifacts.add()
            record.CopyFrom(kubeflow_v2_entrypoint_utils.to_runtime_artifact(artifact, {artifact.id: told.name}))
            record.uri = told.uri
            for value in record.metadata.fields.values():
                if value.HasField("string_value"):
                    value.string_value = mounts.uri(value.string_value)
    return result


def write_output(path: str, output: pipeline_spec_pb2.ExecutorOutput) -> None:
    """Writes the file that the launcher reads after the step has ended."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json_format.MessageToJson(output))


def write_parameters(given: pipeline_spec_pb2.ExecutorInput, values: Mapping[str, str]) -> None:
    """Writes each output parameter to the file from which the launcher reads it.

    Raises:
        OutputError: The step has no value for one of them.
    """
    for name, parameter in given.outputs.parameters.items():
        if name not in values:
            raise OutputError(f"output parameter {name}: no value; there are {', '.join(values) or 'none'}")
        Path(parameter.output_file).parent.mkdir(parents=True, exist_ok=True)
        Path(parameter.output_file).write_text(values[name])
