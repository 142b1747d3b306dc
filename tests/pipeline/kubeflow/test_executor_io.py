"""What the launcher says becomes TFX's objects, and the other way round."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.types import standard_artifacts

from components.artifacts import PRESENT, Quarantine
from data.errors import ConfigError
from pipeline.kubeflow.executor_io import (
    OutputError,
    check_written,
    executor_output,
    parameter_values,
    parse_arguments,
    read_artifacts,
    write_parameters,
)
from pipeline.kubeflow.mounts import Mounts

SPEC = {
    "artifacts": {
        "examples": {"artifactType": {"instanceSchema": "title: tfx.Examples\ntype: object\n"}},
        "model": {"artifactType": {"instanceSchema": "title: tfx.Model\ntype: object\n"}},
    },
    "parameters": {
        "steps": {"parameterType": "NUMBER_INTEGER"},
        "rate": {"parameterType": "NUMBER_DOUBLE"},
        "path": {"parameterType": "STRING"},
    },
}


def artifact(name: str, title: str = "", **metadata: Any) -> dict[str, Any]:
    """An artifact list as the launcher writes it; an input has an empty schema."""
    kind = {"instanceSchema": f"title: {title}\n" if title else ""}
    return {"artifacts": [{"name": "7", "uri": f"minio://bucket/root/{name}", "type": kind, "metadata": metadata}]}


def invocation(**parts: Any) -> str:
    """An ExecutorInput as JSON."""
    inputs = {"artifacts": parts.get("inputs", {}), "parameterValues": parts.get("values", {})}
    outputs = {"artifacts": parts.get("outputs", {}), "parameters": parts.get("parameters", {})}
    return json.dumps({"inputs": inputs, "outputs": {**outputs, "outputFile": "/tmp/kfp_outputs/output.json"}})


def parse(**parts: Any) -> tuple[pipeline_spec_pb2.ExecutorInput, pipeline_spec_pb2.ComponentInputsSpec]:
    """What a step of a component with the inputs of `SPEC` is given."""
    return parse_arguments(invocation(**parts), json.dumps(SPEC))


def read_inputs(mounts: Mounts, **inputs: Any):
    told, spec = parse(inputs=inputs)
    return read_artifacts(told.inputs.artifacts, mounts, spec)


def test_an_input_gets_its_type_back_and_lies_at_the_mount():
    (examples,) = read_inputs(Mounts("/m"), examples=artifact("e", split_names='["train"]', span=3))["examples"]

    assert type(examples) is standard_artifacts.Examples
    assert examples.uri == "/m/minio/bucket/root/e"
    assert examples.id == 7
    assert examples.split_names == '["train"]'
    assert (examples.span, type(examples.span)) == (3, int)


def test_custom_properties_come_back_with_their_types():
    (model,) = read_inputs(Mounts(), model=artifact("m", present=1, score=1, reason="none", display_name="model"))[
        "model"
    ]

    assert (model.get_int_custom_property("present"), type(model.get_int_custom_property("present"))) == (1, int)
    assert (model.get_float_custom_property("score"), type(model.get_float_custom_property("score"))) == (1.0, float)
    assert model.get_string_custom_property("reason") == "none"
    assert not model.has_custom_property("absent")


def test_the_logs_that_the_launcher_keeps_are_no_output_of_the_component():
    told, _ = parse(outputs={"executor-logs": artifact("l", "system.Artifact"), "model": artifact("m", "tfx.Model")})

    outputs = read_artifacts(told.outputs.artifacts, Mounts())
    assert {name: type(listed[0]) for name, listed in outputs.items()} == {"model": standard_artifacts.Model}


def test_the_pipelines_own_types_are_known():
    told, _spec = parse(outputs={"quarantine": artifact("q", Quarantine.TYPE_NAME)})

    outputs = read_artifacts(told.outputs.artifacts, Mounts())
    assert type(outputs["quarantine"][0]) is Quarantine


def test_an_unknown_type_is_named_with_the_known_ones():
    told, _spec = parse(outputs={"x": artifact("x", "other.Thing")})

    with pytest.raises(ConfigError, match=r"artifact x: unknown type 'other.Thing'; known: .*tfx.Examples"):
        read_artifacts(told.outputs.artifacts, Mounts())


def test_integers_are_distinguished_from_doubles_by_the_spec():
    told, spec = parse(values={"steps": 30.0, "rate": 1.0, "path": "3", "other": 2.0})

    values = parameter_values(told, spec)
    assert values == {"steps": 30, "rate": 1.0, "path": "3", "other": 2.0}
    assert {name: type(value) for name, value in values.items()} == {
        "steps": int,
        "rate": float,
        "path": str,
        "other": float,
    }


def test_what_is_no_json_is_refused_with_the_flag():
    with pytest.raises(ConfigError, match="--json_serialized_invocation_args: is not a message ExecutorInput as JSON"):
        parse_arguments("{{$}}", json.dumps(SPEC))
    with pytest.raises(
        ConfigError, match="--json_serialized_inputs_spec_args: is not a message ComponentInputsSpec as JSON"
    ):
        parse_arguments(invocation(), "{")


class Step:
    """One step with an output `model`, seen between its executor and the launcher."""

    def __init__(self, folder: Path):
        self.mounts = Mounts(str(folder))
        self.given, _ = parse(outputs={"model": artifact("m", "tfx.Model", kept="yes")})
        self.outputs = read_artifacts(self.given.outputs.artifacts, self.mounts)
        (self.model,) = self.outputs["model"]

    def check(self) -> None:
        check_written(self.outputs, self.given.outputs.artifacts, self.mounts)

    def output(self) -> pipeline_spec_pb2.ExecutorOutput:
        return executor_output(self.outputs, self.given.outputs.artifacts, self.mounts)


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Step:
    monkeypatch.chdir(tmp_path)
    made = Step(tmp_path / "mounts")
    Path(made.model.uri).mkdir(parents=True)
    return made


def test_the_output_has_the_given_uri_and_survives_the_launcher_and_ml_metadata(step: Step):
    step.model.set_int_custom_property("pushed", 1)
    step.model.set_float_custom_property("score", 0.5)
    step.model.set_string_custom_property("current_model", step.model.uri + "/Format-Serving")
    Path(step.model.uri, "file").write_text("")
    step.check()

    told = json_format.Parse(json_format.MessageToJson(step.output()), pipeline_spec_pb2.ExecutorOutput())
    (model,) = told.artifacts["model"].artifacts
    assert model.uri == "minio://bucket/root/m"
    assert json_format.MessageToDict(model.metadata) == {
        "kept": "yes",
        "pushed": 1.0,
        "score": 0.5,
        "current_model": "minio://bucket/root/m/Format-Serving",
    }
    (read,) = read_inputs(step.mounts, model=artifact("m", **json_format.MessageToDict(model.metadata)))["model"]
    assert read.get_int_custom_property("pushed") == 1
    assert read.get_float_custom_property("score") == 0.5


def properties(numbers: st.SearchStrategy, prefix: str) -> st.SearchStrategy[dict[str, Any]]:
    """Names that begin with a prefix, so that no name has two types."""
    return st.dictionaries(st.text("abc", max_size=3).map(lambda name: prefix + name), numbers, max_size=3)


@given(
    integers=properties(st.integers(-(2**53), 2**53), "int_"),
    floats=properties(st.floats(allow_nan=False, allow_infinity=False), "float_"),
    strings=properties(st.text(st.characters(codec="utf-8")), "string_"),
)
def test_properties_are_the_same_in_the_next_step(
    integers: dict[str, int], floats: dict[str, float], strings: dict[str, str]
):
    step = Step(Path("/mounts"))
    for key, integer in integers.items():
        step.model.set_int_custom_property(key, integer)
    for key, number in floats.items():
        step.model.set_float_custom_property(key, number)
    for key, text in strings.items():
        step.model.set_string_custom_property(key, text)

    told = json.loads(json_format.MessageToJson(step.output()))["artifacts"]["model"]["artifacts"][0]["metadata"]
    (read,) = read_inputs(step.mounts, model=artifact("m", **told))["model"]
    assert {key: read.get_int_custom_property(key) for key in integers} == integers
    assert {key: read.get_float_custom_property(key) for key in floats} == floats
    assert {key: read.get_string_custom_property(key) for key in strings} == strings


@pytest.mark.parametrize(
    ("value", "wrapper"), [({"train": "BLESSED"}, "struct"), (["train", "val"], "list"), ({"list": [1.0]}, "struct")]
)
def test_mappings_and_lists_are_freed_from_the_launchers_wrapping(step: Step, value: Any, wrapper: str):
    step.model.set_json_value_custom_property("blessed", value)

    told = json_format.MessageToDict(step.output().artifacts["model"].artifacts[0].metadata)
    assert told == {"kept": "yes", "blessed": value}
    (read,) = read_inputs(step.mounts, model=artifact("m", blessed={wrapper: value}))["model"]
    assert read.get_json_value_custom_property("blessed") == value


def test_an_output_without_files_is_refused_whatever_its_properties(step: Step):
    Path(step.model.uri, "empty").mkdir()  # an object store keeps files only
    step.model.set_string_custom_property("fingerprint", "1")

    with pytest.raises(OutputError, match=r"output model: .* wrote nothing to .*/mounts/minio/bucket/root/m"):
        step.check()
    Path(step.model.uri, "empty/file").write_text("")
    step.check()


def test_only_a_model_that_is_said_to_be_absent_has_no_files(step: Step):
    step.model.set_int_custom_property(PRESENT, 0)
    step.check()
    step.model.set_int_custom_property(PRESENT, 1)
    with pytest.raises(OutputError, match="wrote nothing"):
        step.check()


def test_an_output_that_the_executor_moved_is_refused(step: Step, tmp_path: Path):
    step.model.uri = str(tmp_path)

    with pytest.raises(OutputError, match=f"moved it from .*/mounts/minio/bucket/root/m to {tmp_path}"):
        step.check()


@pytest.mark.parametrize("scheme", ["minio:", "gs:", "s3:"])
def test_a_uri_taken_for_a_local_path_is_noticed(step: Step, tmp_path: Path, scheme: str):
    (tmp_path / scheme).mkdir()

    with pytest.raises(OutputError, match=f"{tmp_path} holds a folder '{scheme}'"):
        step.check()


def test_output_parameters_are_files(tmp_path: Path):
    file = tmp_path / "outputs/fingerprint"
    told, _spec = parse(parameters={"fingerprint": {"outputFile": str(file)}})

    write_parameters(told, {"fingerprint": "3:abc", "other": ""})
    assert file.read_text() == "3:abc"
    with pytest.raises(OutputError, match="output parameter fingerprint: has no value; there are other"):
        write_parameters(told, {"other": ""})
