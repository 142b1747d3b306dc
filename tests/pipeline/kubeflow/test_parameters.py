"""Run parameters: a value given to a run does what the same value in the configuration would have done."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from data.dataset import DataConfig
from pipeline.config import Config
from pipeline.kubeflow import parameters
from pipeline.kubeflow.parameters import PARAMETERS, Parameter
from pipeline.pipeline import PipelinePaths, create_pipeline
from tests.pipeline.kubeflow.conftest import resolved

TUNING = "tuning={trials: 1, space: {augment.flip: {choices: [true, false]}}}"
OTHER = {
    "data_path": "/mnt/other",
    "train_steps": 7.0,
    "batch_size": 4.0,
    "learning_rate": 0.25,
    "seed": 11.0,
    "min_mean_iou": 0.5,
    "serving": "gs://bucket/serving",
}


@pytest.fixture(scope="module")
def with_search(tiny_dataset: Path) -> Config:
    """A configuration whose pipeline has every node."""
    return resolved(tiny_dataset, TUNING, "training.warm_start=true")


def exec_properties(config: Config, serving: str = "/mnt/serving") -> dict[str, dict[str, Any]]:
    """Node id -> execution properties, as strings, with their JSON parsed."""
    paths = PipelinePaths("gs://bucket/root", serving, checkpoints="/mnt/checkpoints", ingested="/mnt/ingested")
    pipeline = create_pipeline(config, paths)
    return {node.id: node.exec_properties for node in pipeline.components}


def parsed(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: _parsed(value) for name, value in properties.items()}


def _parsed(value: Any) -> Any:
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


def configured(config: Config, parameter: Parameter, value: Any) -> Config:
    """The configuration with the parameter's key set."""
    section, field = parameter.key.split(".")
    changed = getattr(config, section).model_copy(update={field: value})
    return config.model_copy(update={section: changed})


@pytest.mark.parametrize("parameter", [p for p in PARAMETERS if p.name != "span"], ids=lambda p: p.name)
def test_a_parameter_does_what_the_configuration_does(with_search: Config, parameter: Parameter):
    value = OTHER[parameter.name]
    if parameter.key == "serving":
        expected = exec_properties(with_search, serving=str(value))
    else:
        expected = exec_properties(configured(with_search, parameter, parameter.convert(value)))
    before = exec_properties(with_search)
    after = {node: parameters.apply(node, before[node], {f"parameter_{parameter.name}": value}) for node in before}
    assert {node: parsed(properties) for node, properties in after.items()} == {
        node: parsed(properties) for node, properties in expected.items()
    }
    assert after != before


def test_every_parameter_is_tried():
    assert {parameter.name for parameter in PARAMETERS} == {*OTHER, "span"}


@pytest.mark.parametrize(
    ("pattern", "text", "span"),
    [("span-{SPAN}", "3", 3), ("span-{SPAN}", "", None), ("{YYYY}-{MM}-{DD}", "2026-01-31", date(2026, 1, 31))],
)
def test_a_run_may_take_another_span(pattern: str, text: str, span: int | date | None):
    section = DataConfig.model_validate({"path": f"/data/{pattern}", "spans": {"window": 2}})
    given = {"config": section.model_dump_json(), "code_hash": "x"}
    properties = parameters.apply("ImageExampleGen", given, {"parameter_span": text})
    taken = DataConfig.model_validate_json(properties["config"])
    assert taken == section.model_copy(update={"spans": section.spans.model_copy(update={"span": span})})


def test_only_data_in_spans_have_the_parameter_span(with_search: Config):
    assert "span" not in parameters.defaults(with_search, "/mnt/serving")
    spans = with_search.data.model_copy(update={"path": "/data/span-{SPAN}"})
    assert parameters.defaults(with_search.model_copy(update={"data": spans}), "/mnt/serving")["span"] == ""


def test_defaults_are_the_values_of_the_configuration(with_search: Config):
    values = parameters.defaults(with_search, "/mnt/serving")
    assert values["train_steps"] == 6
    assert values["serving"] == "/mnt/serving"
    before = exec_properties(with_search)
    after = {node: parameters.apply(node, before[node], values) for node in before}
    assert {node: parsed(value) for node, value in after.items()} == {n: parsed(v) for n, v in before.items()}


def test_the_extra_inputs_are_no_execution_properties():
    given = {"config": json.dumps({"path": "/a", "layout": "voc"}), "parameter_data_path": "/b"}
    properties = parameters.apply("ImageExampleGen", given, {"parameter_data_path": "/b"})
    assert properties == {"config": json.dumps({"path": "/b", "layout": "voc"})}


def test_the_name_of_the_model_stays_when_the_serving_directory_moves():
    properties = parameters.apply("ServedModel", {"serving_dir": "/old/serving/cats"}, {"serving": "s3://b/new/"})
    assert properties == {"serving_dir": "s3://b/new/cats"}


def test_a_node_without_parameters_stays_as_it_is():
    assert parameters.apply("StatisticsGen", {"exclude_splits": "[]"}, {"train_steps": 3}) == {"exclude_splits": "[]"}
