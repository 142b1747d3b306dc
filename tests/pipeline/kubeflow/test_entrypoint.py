"""The pipeline's own components run through the entry point, one after the other, as under KFP's launcher."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tfx  # before anything else of its family
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.orchestration.kubeflow.v2 import compiler_utils
from tfx.types import standard_artifacts
from tfx.utils import name_utils

from components.artifacts import PUSHED, PUSHED_DESTINATION, PUSHED_VERSION, REASON
from components.ingest.example_gen import FINGERPRINT_PROPERTY_NAME
from components.ingest.quarantine import BAD_FILE, COUNTS_FILE
from components.publishing.directory import EXTRA, served
from components.storage.file_systems import file_system
from data.errors import TEMPORARY, DataError, WorkspaceBusy
from data.layouts.base import SPLITS
from pipeline.config import load_config, resolve
from pipeline.kubeflow import entrypoint
from pipeline.kubeflow.mounts import ROOT_VARIABLE
from pipeline.pipeline import PipelinePaths, create_pipeline
from tests.pipeline.conftest import ROOT, overrides

pytestmark = pytest.mark.long

PIPELINE_ROOT = "minio://bucket/root"

#: An artifact as ML Metadata hands it to a later step: with its properties and an empty type.
Artifact = dict[str, Any]


def stored(name: str, **properties: Any) -> Artifact:
    """An artifact of an earlier step."""
    return {"name": "7", "uri": f"{PIPELINE_ROOT}/{name}", "type": {"instanceSchema": ""}, "metadata": properties}


class Launcher:
    """Does for a step what KFP's launcher does: downloads, starts it, reads what it says, uploads."""

    def __init__(self, folder: Path, nodes: Mapping[str, BaseComponent]):
        self.folder = folder
        self.store = folder / "store"
        self._nodes = nodes

    def state(self, node: str, **parameters: Any) -> dict[str, str]:
        """Runs a state step; its output parameters."""
        driver = self._nodes[node].driver_class
        files = {key: self.folder / f"outputs/{node}-{key}" for key in driver(None).state(self._values(node, {}))}
        outputs = {"parameters": {key: {"outputFile": str(path)} for key, path in files.items()}}
        arguments = ["--state-of", name_utils.get_full_name(driver)]
        assert entrypoint.main(self._arguments(node, arguments, {}, parameters, outputs)) == 0
        return {key: path.read_text() for key, path in files.items()}

    def run(self, node: str, inputs: Mapping[str, Artifact] | None = None, **parameters: Any) -> dict[str, Artifact]:
        """Runs a step in this process; its output artifacts, as a later step gets them."""
        mount = self._download(inputs or {})
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(ROOT_VARIABLE, str(mount))
            assert entrypoint.main(self.command(node, inputs or {}, **parameters)) == 0
        return self._upload(node, mount)

    def run_process(self, node: str, **parameters: Any) -> dict[str, Artifact]:
        """Runs a step without inputs as a container would."""
        mount = self._download({})
        command = [sys.executable, "-m", "pipeline.kubeflow.entrypoint", *self.command(node, {}, **parameters)]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), ROOT_VARIABLE: str(mount)}
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return self._upload(node, mount)

    def command(self, node: str, inputs: Mapping[str, Artifact], **parameters: Any) -> list[str]:
        """The arguments of a step, with what the launcher puts in place of `{{$}}`."""
        logs = {"uri": f"{PIPELINE_ROOT}/{node}/executor-logs", "type": {"schemaTitle": "system.Artifact"}}
        artifacts = {"executor-logs": {"artifacts": [logs]}}
        for key, channel in self._nodes[node].outputs.items():
            schema = compiler_utils.build_output_artifact_spec(channel).artifact_type.instance_schema
            made = {"name": key, "uri": f"{PIPELINE_ROOT}/{node}/{key}", "type": {"instanceSchema": schema}}
            artifacts[key] = {"artifacts": [made]}
        outputs = {"artifacts": artifacts, "outputFile": str(self._output_file(node))}
        executor = name_utils.get_full_name(self._nodes[node].executor_spec.executor_class)
        return self._arguments(node, ["--executor_class_path", executor], inputs, parameters, outputs)

    def _arguments(
        self,
        node: str,
        arguments: list[str],
        inputs: Mapping[str, Artifact],
        parameters: Mapping[str, Any],
        outputs: Mapping[str, Any],
    ) -> list[str]:
        given = {
            "inputs": {
                "parameterValues": self._values(node, parameters),
                "artifacts": {name: {"artifacts": [artifact]} for name, artifact in inputs.items()},
            },
            "outputs": outputs,
        }
        spec = pipeline_spec_pb2.ComponentInputsSpec()
        for name, channel in self._nodes[node].inputs.items():
            spec.artifacts[name].CopyFrom(compiler_utils.build_input_artifact_spec(channel))
        return [
            *arguments,
            "--json_serialized_invocation_args",
            json.dumps(given),
            "--json_serialized_inputs_spec_args",
            json_format.MessageToJson(spec),
            "--runner=FnApiRunner",
            "--node",
            node,
        ]

    def _values(self, node: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        properties = self._nodes[node].exec_properties
        return {**{key: value for key, value in properties.items() if value is not None}, **parameters}

    def _output_file(self, node: str) -> Path:
        return self.folder / node / "output_metadata.json"

    def _download(self, inputs: Mapping[str, Artifact]) -> Path:
        mount = self.folder / "mounts"
        for artifact in inputs.values():
            key = artifact["uri"].removeprefix("minio://")
            if (self.store / key).exists():
                shutil.copytree(self.store / key, mount / "minio" / key)
        return mount

    def _upload(self, node: str, mount: Path) -> dict[str, Artifact]:
        output = pipeline_spec_pb2.ExecutorOutput()
        json_format.Parse(self._output_file(node).read_text(), output)
        told = {name: listed.artifacts[0] for name, listed in output.artifacts.items()}
        for artifact in told.values():
            folder = mount / artifact.uri.replace("://", "/")
            files = [path for path in folder.rglob("*") if path.is_file()]  # a store knows no empty folders
            for path in files:
                target = self.store / path.relative_to(mount / "minio")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        shutil.rmtree(mount)
        prefix = f"{PIPELINE_ROOT}/"
        return {
            name: stored(artifact.uri.removeprefix(prefix), **json_format.MessageToDict(artifact.metadata))
            for name, artifact in told.items()
        }


@component
def Writer(thing: OutputArtifact[standard_artifacts.Model], fails: Parameter[str]) -> None:  # noqa: N802
    """A component that does what a test wants."""
    if fails == "refused":
        raise DataError("/data: too small")
    if fails == "busy":
        raise WorkspaceBusy("/serving: version 3 is served now")
    if fails == "full":
        raise OSError(errno.ENOSPC, "No space left on device", "/serving/4")
    if fails == "elsewhere":
        Path(f"{thing.uri}-other").mkdir()
        Path(f"{thing.uri}-other", "file").write_text("")


@pytest.fixture(scope="module")
def launcher(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Launcher:
    """Runs the nodes of a tiny pipeline that was made for another data folder and another serving directory."""
    folder = tmp_path_factory.mktemp("launcher")
    config = resolve(load_config([], overrides(tiny_dataset)), file_system(str(tiny_dataset)))
    config = config.model_copy(update={"data": config.data.model_copy(update={"path": "/data/compiled"})})
    paths = PipelinePaths("/unused", serving="/serving/compiled", checkpoints="/unused", ingested="/unused")
    pipeline = create_pipeline(config, paths)
    return Launcher(folder, {node.id: node for node in pipeline.components})


@pytest.fixture(scope="module")
def serving(launcher: Launcher) -> str:
    """The serving directory of the runs, empty at first."""
    return str(launcher.folder / "serving")


@pytest.fixture(scope="module")
def generated(launcher: Launcher, tiny_dataset: Path) -> dict[str, Artifact]:
    """What ExampleGen makes of the dataset that the run names."""
    path = {"parameter_data_path": str(tiny_dataset)}
    return launcher.run("ImageExampleGen", **launcher.state("ImageExampleGen", **path), **path)


@pytest.fixture(scope="module")
def pushed(launcher: Launcher, generated: dict[str, Artifact], serving: str) -> dict[str, dict[str, Artifact]]:
    """Nothing is served, then a model is pushed, then it is served."""
    state = launcher.state("ServedModel", parameter_serving=serving)
    assert state == {"served_fingerprint": "none", "highest_pushed_version": "0"}
    absent = launcher.run("ServedModel", parameter_serving=serving, **state)
    saved_model = launcher.store / "bucket/root/model/Format-Serving/saved_model.pb"
    saved_model.parent.mkdir(parents=True)
    saved_model.write_bytes(b"graph")
    inputs = {
        "model": stored("model"),
        "examples": generated["examples"],
        "blessing": stored("blessing", blessed=1.0),
        "infra_blessing": stored("infra", blessed=1.0, reason=""),
        "served_model": absent["model"],
    }
    refused = launcher.run(
        "ModelPusher", {**inputs, "blessing": stored("blessing", blessed=0.0)}, parameter_serving=serving
    )
    version = launcher.run("ModelPusher", inputs, parameter_serving=serving)
    state = launcher.state("ServedModel", parameter_serving=serving)
    present = launcher.run_process("ServedModel", parameter_serving=serving, **state)
    return {"absent": absent, "refused": refused, "version": version, "present": present}


def test_the_state_of_the_data_is_that_of_the_folder_that_the_run_names(launcher: Launcher, tiny_dataset: Path):
    state = launcher.state("ImageExampleGen", parameter_data_path=str(tiny_dataset))

    assert list(state) == [FINGERPRINT_PROPERTY_NAME]
    assert state[FINGERPRINT_PROPERTY_NAME]
    assert state != launcher.state("ImageExampleGen", parameter_data_path=str(tiny_dataset / "other"))


def test_examples_are_uploaded_with_their_splits_and_fingerprint(launcher: Launcher, generated, tiny_dataset: Path):
    examples, quarantine = generated["examples"], generated["quarantine"]
    state = launcher.state("ImageExampleGen", parameter_data_path=str(tiny_dataset))

    assert examples["uri"] == f"{PIPELINE_ROOT}/ImageExampleGen/examples"
    assert json.loads(examples["metadata"]["split_names"]) == list(SPLITS)
    assert examples["metadata"][FINGERPRINT_PROPERTY_NAME] == state[FINGERPRINT_PROPERTY_NAME]
    below = launcher.store / "bucket/root/ImageExampleGen"
    assert {path.name for path in (below / "examples").iterdir()} == {"manifest", *(f"Split-{s}" for s in SPLITS)}
    counts = json.loads((below / "quarantine" / COUNTS_FILE).read_text())
    assert counts["splits"] == dict(zip(SPLITS, (8, 3, 4), strict=True))
    assert list((below / "quarantine").glob(BAD_FILE + "-*"))
    assert quarantine["uri"] == f"{PIPELINE_ROOT}/ImageExampleGen/quarantine"


def test_a_later_step_reads_the_splits_of_the_examples(launcher: Launcher, generated: dict[str, Artifact]):
    statistics = launcher.run("StatisticsGen", {"examples": generated["examples"]})["statistics"]

    assert json.loads(statistics["metadata"]["split_names"]) == list(SPLITS)
    below = launcher.store / "bucket/root/StatisticsGen/statistics"
    assert {path.name for path in below.iterdir()} == {f"Split-{split}" for split in SPLITS}


def test_without_a_served_model_the_baseline_has_no_files(launcher: Launcher, pushed):
    assert pushed["absent"]["model"]["metadata"]["present"] == 0
    assert "version" not in pushed["absent"]["model"]["metadata"]


def test_a_step_reads_the_properties_of_its_inputs(pushed):
    assert pushed["refused"]["pushed_model"]["metadata"] == {
        PUSHED: 0,
        REASON: "not blessed by the evaluation",
        "tfx_version": tfx.__version__,
    }


def test_a_model_is_pushed_to_the_serving_directory_that_the_run_names(pushed, serving: str):
    properties = pushed["version"]["pushed_model"]["metadata"]

    assert (properties[PUSHED], properties[PUSHED_VERSION]) == (1, "1")
    assert properties[PUSHED_DESTINATION] == f"{serving}/tiny/1"
    version = served(f"{serving}/tiny")
    assert version is not None
    assert Path(version.path, "saved_model.pb").read_bytes() == b"graph"


def test_in_a_process_of_its_own_a_step_copies_the_served_model(launcher: Launcher, pushed):
    baseline = pushed["present"]["model"]

    assert (baseline["metadata"]["present"], baseline["metadata"]["version"]) == (1, 1)
    copied = launcher.store / "bucket/root/ServedModel/model/Format-Serving"
    assert (copied / "saved_model.pb").read_bytes() == b"graph"
    assert not (copied / EXTRA).exists()


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs `Writer`; its exit status and whether it left an executor output."""
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "mounts"))

    def run(fails: str) -> tuple[int, bool]:
        launcher = Launcher(tmp_path, {"Writer": Writer(fails=fails)})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys.modules[Writer.__module__], "Writer_Executor", Writer.EXECUTOR_SPEC.executor_class)
            status = entrypoint.main(launcher.command("Writer", {}))
        return status, (tmp_path / "Writer/output_metadata.json").exists()

    return run


@pytest.mark.parametrize(
    ("fails", "status", "message"),
    [
        ("refused", 1, "error: Writer: /data: too small\n"),
        ("elsewhere", 1, "error: Writer: output thing: the executor wrote nothing to {mount}, which is uploaded to "),
        ("minio://bucket/data", 1, "error: Writer: fails holds a minio:// URI"),
        ("busy", TEMPORARY, "error: Writer: /serving: version 3 is served now\n"),
        ("full", TEMPORARY, "error: Writer: /serving/4: No space left on device\n"),
    ],
)
def test_a_failure_is_one_message_and_a_status(
    writer, tmp_path: Path, capfd: pytest.CaptureFixture[str], fails: str, status: int, message: str
):
    assert writer(fails) == (status, False)
    mount = tmp_path / "mounts/minio/bucket/root/Writer/thing"
    assert capfd.readouterr().err.startswith(message.format(mount=mount))


def test_what_is_neither_an_executor_nor_a_state_is_a_usage_error(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        entrypoint.main(["--node", "Trainer", "--json_serialized_invocation_args", "{}"])
    assert "required" in capsys.readouterr().err
