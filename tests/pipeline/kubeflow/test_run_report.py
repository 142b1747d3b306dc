"""The last step on Kubeflow makes stages of its inputs, and gives the server's pages single files."""

from pathlib import Path

from tfx.types import standard_artifacts

from pipeline.kubeflow import parameters
from pipeline.kubeflow.run_report import show, stage_records


def test_outputs_are_told_apart_by_stage():
    trained, model_run, served = standard_artifacts.Model(), standard_artifacts.ModelRun(), standard_artifacts.Model()
    stages = stage_records(
        {"Trainer_model": [trained], "Trainer_model_run": [model_run], "ServedModel_model": [served], "Tuner_x": []}
    )
    assert {name: dict(stage.outputs) for name, stage in stages.items()} == {
        "ServedModel": {"model": [served]},
        "Trainer": {"model": [trained], "model_run": [model_run]},
    }


def test_an_artifact_becomes_a_file(tmp_path: Path):
    (tmp_path / "page.html").write_text("<p>")
    (tmp_path / "report").mkdir()
    show(tmp_path / "page.html", tmp_path / "report")
    assert (tmp_path / "report").read_text() == "<p>"


def test_the_record_holds_what_a_run_was_given():
    config = '{"data": {"path": "/a", "spans": {"span": null}}, "training": {"steps": 5}, "evaluation": {}}'
    given = {
        "parameter_data_path": "/b",
        "parameter_train_steps": 7.0,
        "parameter_span": "3",
        "parameter_serving": "/c",
    }
    assert parameters.apply("RunReporter", {"config": config, "run_id": "x"}, given) == {
        "config": '{"data": {"path": "/b", "spans": {"span": 3}}, "training": {"steps": 7}, "evaluation": {}}',
        "run_id": "x",
    }
