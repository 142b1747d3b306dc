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
from pipeline.config import Config, config_hash, load_config
from pipeline.kubeflow.compiled_pipeline import CompiledPipeline
from pipeline.kubeflow.compiler import (
    absolute_paths,
    apply_stages,
    check_paths,
    compile_pipeline,
    container_settings,
    kubernetes_settings,
    paths_on_no_volume,
)
from pipeline.kubeflow.run_report import READ
from pipeline.local import compile_pipeline as compile_locally
from pipeline.local import stage_names
from pipeline.records.summarize import summarize
from pipeline.sections.kubeflow import KubeflowConfig, StageConfig
from pipeline.workspace import Workspace
from tests.pipeline.kubeflow.conftest import PLACES, resolved

ROOT = Path(__file__).resolve().parents[3]
STATES = {"ImageExampleGen-state", "ServedModel-state"}
REPORTER = "RunReporter"


def flag(compiled: CompiledPipeline, task: str, name: str) -> str:
    args = compiled.container(task)["args"]
    return args[args.index(name) + 1]


def default(compiled: CompiledPipeline, parameter: str) -> Any:
    return compiled.spec["root"]["inputDefinitions"]["parameters"][parameter]["defaultValue"]


def test_both_runners_run_the_same_nodes(config: Config, compiled: CompiledPipeline, tmp_path: Path):
    local = stage_names(compile_locally(config, Workspace(tmp_path), "run"))
    assert set(compiled.tasks) == {*local, *STATES, REPORTER}


def test_the_last_step_reads_what_all_others_made_and_knows_its_run(config: Config, compiled: CompiledPipeline):
    reporter = compiled.tasks[REPORTER]
    read = {
        (output["producerTask"], output["outputArtifactKey"])
        for output in (given["taskOutputArtifact"] for given in reporter["inputs"]["artifacts"].values())
    }
    without = {"DataSchema", "StrictExampleValidator", "ImageTransform"}
    assert {stage for stage, _ in read} == set(compiled.tasks) - STATES - without - {REPORTER}
    assert read == set(READ) & {(stage, key) for stage, key in READ if stage in compiled.tasks} - {
        ("ImageExampleGen", "spans")
    }
    parameters = reporter["inputs"]["parameters"]
    assert parameters["run_id"] == {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}
    assert Config.model_validate_json(parameters["config"]["runtimeValue"]["constant"]) == config


def test_kubeflow_shows_the_report_and_the_model_card(compiled: CompiledPipeline):
    made = compiled.component(REPORTER)["outputDefinitions"]["artifacts"]
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
    here = {name: set(task.get("dependentTasks", [])) - STATES for name, task in compiled.tasks.items()}
    assert {name: here[name] for name in upstream} == upstream


def test_compiling_twice_gives_the_same_spec_and_so_the_same_cache_keys(config: Config, compiled: CompiledPipeline):
    assert compile_pipeline(config, **PLACES) == compiled


def test_nothing_in_the_spec_is_a_path_of_the_machine_that_compiled(compiled: CompiledPipeline):
    assert str(ROOT) not in json.dumps(compiled.spec)
    assert "--setup_file=./setup.py" in compiled.container("StatisticsGen")["args"]


def test_every_step_starts_the_entry_point_in_the_image(compiled: CompiledPipeline):
    for name in compiled.tasks:
        assert compiled.container(name)["image"] == PLACES["image"]
        assert compiled.container(name)["command"] == ["python", "-m", "pipeline.kubeflow.entrypoint"]
        assert flag(compiled, name, "--node") == name.removesuffix("-state")
        assert flag(compiled, name, "--json_serialized_invocation_args") == "{{$}}"


def test_every_step_is_told_the_types_of_all_its_inputs(compiled: CompiledPipeline):
    for name in compiled.tasks:
        told = json.loads(flag(compiled, name, "--json_serialized_inputs_spec_args"))
        assert told == compiled.component(name)["inputDefinitions"]


def test_the_served_model_is_looked_up_in_every_run(compiled: CompiledPipeline):
    cached = {name for name, task in compiled.tasks.items() if task["cachingOptions"].get("enableCache")}
    assert set(compiled.tasks) - cached == {"ImageExampleGen-state", "ServedModel-state", "ModelPusher"}


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
    assert not compiled.tasks[state]["cachingOptions"].get("enableCache")
    assert compiled.tasks[node]["cachingOptions"]["enableCache"]
    assert flag(compiled, state, "--state-of") == driver
    found = {key: {"parameterType": "STRING"} for key in keys}
    assert compiled.component(state)["outputDefinitions"] == {"parameters": found}
    given, looked_up = (compiled.tasks[name]["inputs"]["parameters"] for name in (node, state))
    assert {key: given[key] for key in keys} == {
        key: {"taskOutputParameter": {"producerTask": state, "outputParameterKey": key}} for key in keys
    }
    assert looked_up == {name: value for name, value in given.items() if name not in keys}


def test_nodes_without_a_driver_have_no_state_step(compiled: CompiledPipeline):
    assert {name for name in compiled.tasks if name.endswith("-state")} == STATES


def test_parameters_have_the_values_of_the_configuration_as_defaults(config: Config, compiled: CompiledPipeline):
    assert default(compiled, "data_path") == config.data.path
    assert default(compiled, "train_steps") == 6
    assert default(compiled, "batch_size") == 2
    assert default(compiled, "serving") == "/mnt/volume/serving"
    assert compiled.tasks["Trainer"]["inputs"]["parameters"]["parameter_train_steps"] == {
        "componentInputParameter": "train_steps"
    }


def test_the_data_path_of_a_run_reaches_the_fingerprint_too(compiled: CompiledPipeline):
    inputs = compiled.tasks["ImageExampleGen-state"]["inputs"]["parameters"]
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
    assert compiled.container("Trainer")["resources"] == {
        "resourceCpuLimit": "2",
        "resourceMemoryLimit": "8Gi",
        "accelerator": {"resourceType": "nvidia.com/gpu", "resourceCount": "4"},
    }
    assert compiled.container("Trainer")["env"] == [{"name": "TF_CPP_MIN_LOG_LEVEL", "value": "1"}]
    assert compiled.tasks["Trainer"]["retryPolicy"]["maxRetryCount"] == 2
    assert "retryPolicy" not in compiled.tasks["ImageTransform"]
    assert compiled.container("ServedModel-state")["resources"] == {"resourceCpuLimit": "500m"}
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
        resolved_config([], ["data.path=/mnt/elsewhere/data"])


def test_with_layout_and_label_map_no_dataset_is_read():
    classes = "{classes: [{name: background, values: [0]}, {name: cat, values: [1]}]}"
    settings = ["data.path=/mnt/elsewhere/data", "data.layout=voc", f"data.label_map={classes}"]
    assert resolved_config([], settings).labels.names == ("background", "cat")


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
    assert "is on no volume of kubeflow.stages.ModelPusher: the pushed model is lost" in " ".join(result.output.split())
    assert CompiledPipeline.read(tmp_path / "pipeline.yaml") == compiled


# Paths

SERVING, CHECKPOINTS = "/mnt/a/serving", "/mnt/a/checkpoints"


def unresolved(*overrides: str) -> Config:
    return load_config([], ["data.path=/mnt/a/data", *overrides])


def test_paths_that_are_on_no_volume_are_named():
    found = unresolved(
        "data.path=/mnt/b/data",
        "training.initial_weights=/mnt/a/w.h5",
        "kubeflow.default.volumes=[{claim: a, path: /mnt/a}]",
        "kubeflow.stages.Trainer.volumes=[{claim: b, path: /mnt/b}]",
    )
    assert paths_on_no_volume(found, SERVING, CHECKPOINTS) == [
        "data.path /mnt/b/data is on no volume of kubeflow.stages.ImageExampleGen: it must be in the image",
        "training.initial_weights /mnt/a/w.h5 is on no volume of kubeflow.stages.Trainer: it must be in the image",
        "the checkpoints' folder /mnt/a/checkpoints is on no volume of kubeflow.stages.Trainer: a new pod trains from "
        "the beginning",
    ]
    assert len(paths_on_no_volume(found, "gs://bucket/serving", "/mnt/b")) == 2


@pytest.mark.parametrize(
    ("override", "serving", "checkpoints", "message"),
    [
        ("name=a", "minio://bucket/serving", CHECKPOINTS, "the serving directory is 'minio://bucket/serving'"),
        ("name=a", "serving", CHECKPOINTS, "the serving directory is 'serving', which a container cannot reach"),
        ("name=a", SERVING, "gs://bucket/checkpoints", "the checkpoints' folder is 'gs://bucket/checkpoints'"),
        ("data.path=data", SERVING, CHECKPOINTS, "data.path is 'data', which a container cannot reach"),
        ("data.path=minio://bucket/data", SERVING, CHECKPOINTS, "data.path is 'minio://bucket/data'"),
        ("training.initial_weights=a.weights.h5", SERVING, CHECKPOINTS, "training.initial_weights is 'a.weights.h5'"),
        ("data={path: '/d/span-{SPAN}', test_set: test}", SERVING, CHECKPOINTS, "data.test_set is 'test'"),
    ],
)
def test_a_path_that_no_step_can_use_is_refused(override: str, serving: str, checkpoints: str, message: str):
    with pytest.raises(ConfigError, match=message):
        check_paths(unresolved(override), serving, checkpoints)


@pytest.mark.parametrize("weights", ["random", "imagenet", "https://tfhub.dev/a/1", "/mnt/a/b.weights.h5"])
@pytest.mark.parametrize("data", ["/mnt/a/data", "gs://bucket/data", "s3://bucket/data"])
def test_what_a_step_can_reach_is_taken(weights: str, data: str):
    overrides = [f"data.path={data}", f"training.initial_weights={weights}", "model.normalization=backbone"]
    check_paths(unresolved(*overrides), "s3://bucket/serving", CHECKPOINTS)


def test_a_rehearsal_finds_relative_paths_where_the_command_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    relative = unresolved(
        "data={path: 'my data/span-{SPAN}', test_set: judge}", "training.initial_weights=start.weights.h5"
    )

    absolute = load_config([], ["data={path: 'x-{SPAN}', test_set: window}", *absolute_paths(relative)])

    assert absolute.data.path == f"{tmp_path}/my data/span-{{SPAN}}"
    assert absolute.data.test_set == f"{tmp_path}/judge"
    assert absolute.training.initial_weights == f"{tmp_path}/start.weights.h5"
    assert absolute_paths(unresolved("data.path=gs://bucket/data")) == []


# Settings of the stages

FULL = StageConfig.model_validate(
    {
        "cpu": "3500m",
        "memory": "16Gi",
        "accelerator": "google.com/tpu",
        "accelerators": 4,
        "node_selector": {"cloud.google.com/gke-tpu-topology": "2x2"},
        "tolerations": [{"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"}],
        "volumes": [{"claim": "datasets", "path": "/mnt/datasets"}],
        "secrets": [{"secret": "object-store", "key": "secretkey", "variable": "AWS_SECRET_ACCESS_KEY"}],
        "env": {"AWS_ENDPOINT_URL": "http://minio:9000"},
        "retries": 3,
        "retry_seconds": 60,
    }
)


def test_resources_and_variables_are_written_as_the_driver_reads_them():
    assert container_settings(FULL) == {
        "resources": {
            "resourceCpuLimit": "3500m",
            "resourceMemoryLimit": "16Gi",
            "accelerator": {"resourceType": "google.com/tpu", "resourceCount": "4"},
        },
        "env": [{"name": "AWS_ENDPOINT_URL", "value": "http://minio:9000"}],
    }


def test_kubernetes_settings_are_written_as_the_driver_reads_them():
    assert kubernetes_settings(FULL) == {
        "nodeSelector": {"labels": {"cloud.google.com/gke-tpu-topology": "2x2"}},
        "tolerations": [{"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"}],
        "pvcMount": [
            {
                "constant": "datasets",
                "pvcNameParameter": {"runtimeValue": {"constant": "datasets"}},
                "mountPath": "/mnt/datasets",
            }
        ],
        "secretAsEnv": [
            {
                "secretName": "object-store",
                "secretNameParameter": {"runtimeValue": {"constant": "object-store"}},
                "keyToEnv": [{"secretKey": "secretkey", "envVar": "AWS_SECRET_ACCESS_KEY"}],
            }
        ],
    }


def two_tasks() -> CompiledPipeline:
    """Tasks `a` and `b`, each with a container."""
    spec = {
        "root": {"dag": {"tasks": {name: {"componentRef": {"name": name}} for name in "ab"}}},
        "components": {name: {"executorLabel": f"{name}_executor"} for name in "ab"},
        "deploymentSpec": {"executors": {f"{name}_executor": {"container": {}} for name in "ab"}},
    }
    return CompiledPipeline(spec)


def test_retries_wait_longer_each_time():
    pipeline = two_tasks()
    apply_stages(pipeline, KubeflowConfig(stages={"a": FULL}))
    assert pipeline.tasks["a"]["retryPolicy"] == {
        "maxRetryCount": 3,
        "backoffDuration": "60s",
        "backoffFactor": 2.0,
        "backoffMaxDuration": "3600s",
    }
    assert "retryPolicy" not in pipeline.tasks["b"]


def test_a_stage_without_settings_leaves_no_trace():
    pipeline = two_tasks()
    assert apply_stages(pipeline, KubeflowConfig()) == {}
    assert pipeline == two_tasks()


def test_only_executors_with_settings_are_in_the_platform_document():
    section = KubeflowConfig(stages={"b": StageConfig(node_selector={"x": "y"})})
    settings = {"b_executor": {"nodeSelector": {"labels": {"x": "y"}}}}
    assert apply_stages(two_tasks(), section) == {
        "platforms": {"kubernetes": {"deploymentSpec": {"executors": settings}}}
    }


def test_the_service_account_is_where_a_request_for_a_run_finds_it():
    platforms = apply_stages(two_tasks(), KubeflowConfig(service_account="runner"))
    assert platforms == {"platforms": {"kubernetes": {"config": {"serviceAccount": "runner"}}}}


@pytest.mark.parametrize(
    ("path", "mounted"),
    [("/mnt/datasets", True), ("/mnt/datasets/a/b", True), ("/mnt/datasets2/a", False), ("/mnt", False)],
)
def test_a_path_is_on_a_volume_or_not(path: str, mounted: bool):
    assert FULL.mounts(path) is mounted


def test_a_stage_overrides_the_fields_that_it_gives_and_no_others():
    section = KubeflowConfig.model_validate(
        {
            "default": {"cpu": "2", "memory": "4Gi", "retries": 1},
            "stages": {"Trainer": {"memory": "32Gi", "retries": 0}},
        }
    )
    assert section.stage("Trainer") == StageConfig(cpu="2", memory="32Gi", retries=0)
    assert section.stage("ImageTransform") == StageConfig(cpu="2", memory="4Gi", retries=1)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("default.cpu='two'", "default.cpu='two'"),
        ("default.memory=16GB", "default.memory='16GB'"),
        ("default.accelerator=gpu", "default.accelerator='gpu'"),
        ("default.accelerators=0", "default.accelerators=0"),
        ("default.volumes=[{claim: data, path: mnt}]", "path='mnt'"),
        ("default.volumes=[{claim: a.b, path: /mnt}]", "claim='a.b'"),
        ("default.volumes=[{claim: a, path: /x}, {claim: a, path: /y}]", "claim a stands twice"),
        ("default.tolerations=[{key: a, operator: Exists, value: b}]", "'Exists' goes without a value"),
        ("default.tolerations=[{value: b}]", "'Equal' needs a key"),
        ("default.env={1X: a}", "1X"),
        ("stages.Trainer.gpus=2", "unknown key kubeflow.stages.Trainer.gpus"),
        ("training_job.workers=1", "training_job.workers=1"),
    ],
)
def test_what_kubernetes_would_not_take_dies_when_the_configuration_loads(override: str, message: str):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        load_config([], ["data.path=/data", f"kubeflow.{override}"])
