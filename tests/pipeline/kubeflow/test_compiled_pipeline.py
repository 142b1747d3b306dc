"""A compiled pipeline as a file, its name, and the values of a run's parameters."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from data.errors import ConfigError
from pipeline.kubeflow.compiled_pipeline import CompiledPipeline

DECLARED = {
    "data_path": {"parameterType": "STRING", "defaultValue": "gs://b/data"},
    "train_steps": {"parameterType": "NUMBER_INTEGER", "defaultValue": 0},
    "learning_rate": {"parameterType": "NUMBER_DOUBLE", "defaultValue": 0.01},
    "check": {"parameterType": "BOOLEAN", "defaultValue": False},
    "classes": {"parameterType": "LIST", "defaultValue": []},
    "options": {"parameterType": "STRUCT", "isOptional": True},
    "seed": {"parameterType": "NUMBER_INTEGER"},
}


def pipeline_with(parameters: dict[str, Any], platforms: dict[str, Any] | None = None) -> CompiledPipeline:
    root = {"dag": {}, "inputDefinitions": {"parameters": parameters}}
    spec = {"schemaVersion": "2.1.0", "pipelineInfo": {"name": "segmentation"}, "root": root}
    return CompiledPipeline(spec, platforms or {})


def test_every_parameter_gets_a_value_of_its_type():
    given = ["seed=3", "learning_rate=1e-3", "check=true", 'classes=["a", 1]', "data_path=s3://b/k=v", "options={}"]

    values = pipeline_with(DECLARED).run_parameters(given)

    assert values == {
        "data_path": "s3://b/k=v",
        "train_steps": 0,
        "learning_rate": 0.001,
        "check": True,
        "classes": ["a", 1],
        "options": {},
        "seed": 3,
    }
    assert isinstance(values["seed"], int) and isinstance(values["learning_rate"], float)


def test_the_last_of_two_values_counts():
    assert pipeline_with(DECLARED).run_parameters(["seed=3", "seed=4"])["seed"] == 4


def test_a_pipeline_without_parameters_has_none():
    assert CompiledPipeline({"root": {"dag": {}}}).run_parameters([]) == {}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["seed"], "--set seed: must look like parameter=value"),
        (["train_step=3"], "--set train_step=3: the pipeline has no parameter train_step; did you mean train_steps?"),
        (["xyz=3"], "no parameter xyz; allowed: data_path, train_steps, learning_rate, check, classes, options, seed"),
        (["seed=1.5"], "--set seed=1.5: '1.5' is not of type NUMBER_INTEGER"),
        (["seed=true"], "'true' is not of type NUMBER_INTEGER"),
        (["learning_rate=fast"], "'fast' is not of type NUMBER_DOUBLE"),
        (["learning_rate=nan"], "'nan' is not of type NUMBER_DOUBLE"),
        (["learning_rate=inf"], "'inf' is not of type NUMBER_DOUBLE"),
        (["check=1"], "'1' is not of type BOOLEAN"),
        (["classes={}"], "'{}' is not of type LIST"),
        (["options=[]"], "'[]' is not of type STRUCT"),
        (["options=" + "[" * 5000], "nested deeper than 32 levels"),
        (["options={a: 1, a: 2}"], "--set options: a stands here a second time"),
        ([], "parameters without a value: seed; give each with --set"),
    ],
)
def test_a_wrong_setting_is_named(settings: list[str], complaint: str):
    with pytest.raises(ConfigError) as raised:
        pipeline_with(DECLARED).run_parameters(settings)

    assert complaint in str(raised.value)


def test_a_pipeline_without_a_name_is_refused():
    with pytest.raises(ConfigError, match="no pipelineInfo.name; allowed: what `kubeflow_runner.py compile` writes"):
        _ = CompiledPipeline({"apiVersion": "v1"}).name


def test_the_service_account_comes_with_the_compiled_pipeline():
    platforms = {"platforms": {"kubernetes": {"config": {"serviceAccount": "trainer"}}}}

    assert pipeline_with({}, platforms).service_account == "trainer"
    assert pipeline_with({}).service_account == ""


@pytest.mark.parametrize("platforms", [{}, {"platforms": {"kubernetes": {"config": {"serviceAccount": "trainer"}}}}])
def test_the_document_is_what_the_kfp_sdk_would_send(platforms: dict[str, Any], tmp_path: Path):
    from kfp.client import client as sdk
    from kfp.pipeline_spec import pipeline_spec_pb2

    pipeline = pipeline_with(DECLARED, platforms)
    pipeline.write(tmp_path / "pipeline.yaml")
    theirs = sdk._extract_pipeline_yaml(str(tmp_path / "pipeline.yaml")).to_dict()

    ours = CompiledPipeline.read(tmp_path / "pipeline.yaml").document

    def messages(document: dict[str, Any]) -> tuple[Any, Any]:
        spec, platform = document.get("pipeline_spec", document), document.get("platform_spec", {})
        return (
            json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec()),
            json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec()),
        )

    assert ours.keys() == theirs.keys()
    assert messages(ours) == messages(theirs)
    assert bool(messages(ours)[1].platforms) == bool(platforms)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), ("a: [", "cannot be read as YAML"), ("- 1", "must hold a pipeline spec")],
)
def test_a_file_that_is_no_pipeline_is_refused(tmp_path: Path, content: str | None, message: str):
    path = tmp_path / "pipeline.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        CompiledPipeline.read(path)
