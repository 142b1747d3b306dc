"""The compiled spec: the same pipeline as the local runner's, with what a Kubeflow server needs."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import kubeflow_runner
from data.errors import ConfigError
from pipeline.cli.kubeflow_compile import resolved_config
from pipeline.config import Config, config_hash
from pipeline.kubeflow.compiler import compile_pipeline
from pipeline.kubeflow.document import CompiledPipeline
from pipeline.kubeflow.run_report import READ
from pipeline.local import compile_pipeline as compile_locally
from pipeline.local import stage_names
from pipeline.records.summarize import summarize
from pipeline.workspace import Workspace
from tests.pipeline.kubeflow.conftest import PLACES, resolved

ROOT = Path(__file__).resolve().parents[3]
STATES = {"ImageExampleGen-state", "ServedModel-state"}
REPORTER = "RunReporter"


def tasks(compiled: CompiledPipeline) -> dict[str, Any]:
    return compiled.spec["root"]["dag"]["tasks"]


def component(compiled: CompiledPipeline, task: str) -> dict[str, Any]:
    return compiled.spec["components"][tasks(compiled)[task]["componentRef"]["name"]]


def container(compiled: CompiledPipeline, task: str) -> dict[str, Any]:
    label = component(compiled, task)["executorLabel"]
    return compiled.spec["deploymentSpec"]["executors"][label]["container"]


def flag(compiled: CompiledPipeline, task: str, name: str) -> str:
    args = container(compiled, task)["args"]
    return args[args.index(name) + 1]


def default(compiled: CompiledPipeline, parameter: str) -> Any:
    return compiled.spec["root"]["inputDefinitions"]["parameters"][parameter]["defaultValue"]


def test_both_runners_run_the_same_nodes(config: Config, compiled: CompiledPipeline, tmp_path: Path):
    local = stage_names(compile_locally(config, Workspace(tmp_path), "run"))
    assert set(tasks(compiled)) == {*local, *STATES, REPORTER}


def test_the_last_step_reads_what_all_others_made_and_knows_its_run(config: Config, compiled: CompiledPipeline):
    reporter = tasks(compiled)[REPORTER]
    read = {
        (output["producerTask"], output["outputArtifactKey"])
        for output in (given["taskOutputArtifact"] for given in reporter["inputs"]["artifacts"].values())
    }
    without = {"DataSchema", "StrictExampleValidator", "ImageTransform"}
    assert {stage for stage, _ in read} == set(tasks(compiled)) - STATES - without - {REPORTER}
    assert read == set(READ) & {(stage, key) for stage, key in READ if stage in tasks(compiled)} - {
        ("ImageExampleGen", "spans")
    }
    parameters = reporter["inputs"]["parameters"]
    assert parameters["run_id"] == {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}
    assert Config.model_validate_json(parameters["config"]["runtimeValue"]["constant"]) == config


def test_kubeflow_shows_the_report_and_the_model_card(compiled: CompiledPipeline):
    made = component(compiled, REPORTER)["outputDefinitions"]["artifacts"]
    titles = {name: yaml.safe_load(output["artifactType"]["instanceSchema"])["title"] for name, output in made.items()}
    assert titles == {"record": "deeplab.RunFolder", "report": "system.HTML", "model_card": "system.Markdown"}


def test_both_runners_record_the_same_hash_of_the_configuration(config: Config, compiled: CompiledPipeline):
    assert default(compiled, "config_hash") == summarize("run", config, {}, "").config_hash == config_hash(config)


def test_another_configuration_has_another_hash(config: Config):
    changed = config.model_copy(update={"training": config.training.model_copy(update={"seed": 1})})
    assert config_hash(changed) != config_hash(config)


def test_both_runners_give_a_node_the_same_dependencies(config: Config, compiled: CompiledPipeline, tmp_path: Path):
    local = compile_locally(config, Workspace(tmp_path), "run")
    upstream = {node.pipeline_node.node_info.id: set(node.pipeline_node.upstream_nodes) for node in local.nodes}
    here = {name: set(task.get("dependentTasks", [])) - STATES for name, task in tasks(compiled).items()}
    assert {name: here[name] for name in upstream} == upstream


def test_compiling_twice_gives_the_same_spec_and_so_the_same_cache_keys(config: Config, compiled: CompiledPipeline):
    assert compile_pipeline(config, **PLACES) == compiled


def test_nothing_in_the_spec_is_a_path_of_the_machine_that_compiled(compiled: CompiledPipeline):
    assert str(ROOT) not in json.dumps(compiled.spec)
    assert "--setup_file=./setup.py" in container(compiled, "StatisticsGen")["args"]


def test_every_step_starts_the_entry_point_in_the_image(compiled: CompiledPipeline):
    for name in tasks(compiled):
        assert container(compiled, name)["image"] == PLACES["image"]
        assert container(compiled, name)["command"] == ["python", "-m", "pipeline.kubeflow.entrypoint"]
        assert flag(compiled, name, "--node") == name.removesuffix("-state")
        assert flag(compiled, name, "--json_serialized_invocation_args") == "{{$}}"


def test_every_step_is_told_the_types_of_all_its_inputs(compiled: CompiledPipeline):
    for name in tasks(compiled):
        told = json.loads(flag(compiled, name, "--json_serialized_inputs_spec_args"))
        assert told == component(compiled, name)["inputDefinitions"]


def test_what_is_served_is_looked_at_in_every_run(compiled: CompiledPipeline):
    cached = {name for name, task in tasks(compiled).items() if task["cachingOptions"].get("enableCache")}
    assert set(tasks(compiled)) - cached == {"ImageExampleGen-state", "ServedModel-state", "ModelPusher"}


@pytest.mark.parametrize(
    ("node", "keys", "driver"),
    [
        ("ImageExampleGen", {"input_fingerprint"}, "components.ingest.example_gen.Driver"),
        ("ServedModel", {"served_fingerprint", "highest_pushed_version"}, "components.publishing.served_model.Driver"),
    ],
)
def test_a_node_depends_on_a_state_that_is_looked_up_in_every_run(
    compiled: CompiledPipeline, node: str, keys: set[str], driver: str
):
    state = f"{node}-state"
    assert not tasks(compiled)[state]["cachingOptions"].get("enableCache")
    assert tasks(compiled)[node]["cachingOptions"]["enableCache"]
    assert flag(compiled, state, "--state-of") == driver
    found = {key: {"parameterType": "STRING"} for key in keys}
    assert component(compiled, state)["outputDefinitions"] == {"parameters": found}
    given, looked_up = (tasks(compiled)[name]["inputs"]["parameters"] for name in (node, state))
    assert {key: given[key] for key in keys} == {
        key: {"taskOutputParameter": {"producerTask": state, "outputParameterKey": key}} for key in keys
    }
    assert looked_up == {name: value for name, value in given.items() if name not in keys}


def test_nodes_without_a_driver_have_no_state_step(compiled: CompiledPipeline):
    assert {name for name in tasks(compiled) if name.endswith("-state")} == STATES


def test_parameters_have_the_values_of_the_configuration_as_defaults(config: Config, compiled: CompiledPipeline):
    assert default(compiled, "data_path") == config.data.path
    assert default(compiled, "train_steps") == 6
    assert default(compiled, "batch_size") == 2
    assert default(compiled, "serving") == "/mnt/volume/serving"
    assert tasks(compiled)["Trainer"]["inputs"]["parameters"]["parameter_train_steps"] == {
        "componentInputParameter": "train_steps"
    }


def test_the_data_path_of_a_run_reaches_the_fingerprint_too(compiled: CompiledPipeline):
    inputs = tasks(compiled)["ImageExampleGen-state"]["inputs"]["parameters"]
    assert inputs["parameter_data_path"] == {"componentInputParameter": "data_path"}


def test_without_settings_there_is_one_document(compiled: CompiledPipeline, tmp_path: Path):
    compiled.write(tmp_path / "pipeline.yaml")
    assert len(list(yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text()))) == 1
    assert CompiledPipeline.read(tmp_path / "pipeline.yaml") == compiled


def test_settings_of_stages_reach_their_containers(tiny_dataset: Path, tmp_path: Path):
    config = resolved(
        tiny_dataset,
        "kubeflow.default={cpu: '2', env: {TF_CPP_MIN_LOG_LEVEL: '1'}, volumes: [{claim: data, path: /mnt/data}]}",
        "kubeflow.stages.Trainer={memory: 8Gi, accelerator: nvidia.com/gpu, accelerators: 4, retries: 2}",
        "kubeflow.stages.ServedModel={cpu: 500m, accelerator: nvidia.com/gpu}",
        "training.strategy=mirrored",
    )
    compiled = compile_pipeline(config, **PLACES)
    assert container(compiled, "Trainer")["resources"] == {
        "resourceCpuLimit": "2",
        "resourceMemoryLimit": "8Gi",
        "accelerator": {"resourceType": "nvidia.com/gpu", "resourceCount": "4"},
    }
    assert container(compiled, "Trainer")["env"] == [{"name": "TF_CPP_MIN_LOG_LEVEL", "value": "1"}]
    assert tasks(compiled)["Trainer"]["retryPolicy"]["maxRetryCount"] == 2
    assert "retryPolicy" not in tasks(compiled)["ImageTransform"]
    assert container(compiled, "ServedModel-state")["resources"] == {"resourceCpuLimit": "500m"}
    settings = compiled.platforms["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert settings.keys() == compiled.spec["deploymentSpec"]["executors"].keys()
    assert settings["ImageExampleGen-state_executor"]["pvcMount"][0]["mountPath"] == "/mnt/data"
    compiled.write(tmp_path / "pipeline.yaml")
    assert CompiledPipeline.read(tmp_path / "pipeline.yaml") == compiled


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.path=workspace/sample", "data.path is 'workspace/sample', which a container cannot reach"),
        ("data.path=minio://bucket/data", "allowed: gs://, s3://, or the absolute path"),
        ("kubeflow.stages.Trianer.cpu='2'", "kubeflow.stages.Trianer: no such stage; the stages are .*Trainer"),
        ("training.strategy=multi_worker", "needs several pods.*tfjob"),
        (
            "kubeflow.stages.Trainer={accelerator: nvidia.com/gpu, accelerators: 2}",
            "accelerators=2, but training.strategy 'one_device' uses one",
        ),
    ],
)
def test_what_cannot_run_on_the_cluster_is_refused(config: Config, override: str, message: str):
    key, value = override.split("=", 1)
    tree = config.model_dump()
    *parents, last = key.split(".")
    section = tree
    for parent in parents:
        section = section.setdefault(parent, {})
    section[last] = yaml.safe_load(value)
    with pytest.raises(ConfigError, match=message):
        compile_pipeline(Config.model_validate(tree), **PLACES)


def test_a_dataset_that_this_machine_cannot_see_needs_layout_and_label_map():
    with pytest.raises(ConfigError, match=r"data\.layout and data\.label_map must be set .*inspect DIR --write-config"):
        resolved_config(None, ["data.path=/mnt/elsewhere/data"])


def test_with_layout_and_label_map_no_dataset_is_looked_at():
    classes = "{classes: [{name: background, values: [0]}, {name: cat, values: [1]}]}"
    settings = ["data.path=/mnt/elsewhere/data", "data.layout=voc", f"data.label_map={classes}"]
    assert resolved_config(None, settings).labels.names == ("background", "cat")


def test_the_command_line_writes_the_same_file(config: Config, compiled: CompiledPipeline, tmp_path: Path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    places = [f"--config={tmp_path / 'config.yaml'}", f"--serving={PLACES['serving']}"]
    result = CliRunner().invoke(
        kubeflow_runner.app,
        ["compile", *places, f"--checkpoints={PLACES['checkpoints']}", "-o", str(tmp_path / "pipeline.yaml")],
        env={"DEEPLAB_IMAGE": PLACES["image"], "DEEPLAB_PIPELINE_ROOT": PLACES["pipeline_root"]},
    )
    assert result.exit_code == 0, result.output
    assert "train_steps=6" in result.output
    assert "is on no volume of kubeflow.stages.ModelPusher: the pushed model is gone" in " ".join(result.output.split())
    assert CompiledPipeline.read(tmp_path / "pipeline.yaml") == compiled


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
