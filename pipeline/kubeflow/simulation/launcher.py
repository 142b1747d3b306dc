"""The launcher: one attempt at a step, as a subprocess in a folder of its own.

Rules: v2/component/launcher_v2.go (`executeV2`, `execute`, `compileCmdAndArgs`, `getPlaceholders`,
`collectOutputParameters`, `uploadOutputArtifacts`, `qualifyExecutorLogsURI`), v2/driver/util.go
(`resolveContainerArgs`), v2/driver/driver.go (`initPodSpecPatch`: env), v2/driver/k8s.go (secrets as variables).

Stricter than the launcher, which lets these pass although something is lost: a step fails here if its executor output
names undeclared outputs or moves an artifact, if an output has neither files nor metadata of its own, or if it took a
URI for a path and made a folder `minio:`.

Not simulated: the image (a step runs in this Python environment; as in the image, the working directory shows the
project's files); limits, accelerators, volumes, nodes, users, config maps, secrets as files, and every variable that
KFP itself sets. The mounts and /tmp/kfp/outputs lie in the attempt's folder. Secrets are this machine's variables.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Value
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec.pipeline_spec_pb2 import ComponentSpec, ExecutorInput, ExecutorOutput, RuntimeArtifact

from data.errors import ProjectError
from pipeline.kubeflow.mounts import FOLDERS, ROOT_VARIABLE, Mounts
from pipeline.kubeflow.simulation import values
from pipeline.kubeflow.simulation.store import ObjectStore

ROOT = Path(__file__).resolve().parents[3]
LOGS = "executor-logs"


class StepFailed(ProjectError):
    """An attempt at a step failed."""


@dataclass(frozen=True)
class Attempt:
    """What the driver hands to the launcher, and where it works."""

    component: ComponentSpec
    words: list[str]
    """Command and arguments."""
    environment: Mapping[str, str]
    """Of the container."""
    given: ExecutorInput
    store: ObjectStore
    folder: Path
    """Holds `mounts`, `work`, `home`, `tmp`; removed afterwards."""
    log: Path

    @property
    def mounts(self) -> Mounts:
        """Where objects are mirrored."""
        return Mounts(f"{self.folder}/mounts")


def launch(attempt: Attempt) -> tuple[dict[str, Value], dict[str, RuntimeArtifact]]:
    """Runs a step once: (output parameters, output artifacts).

    Raises:
        StepFailed: Its process failed, or it did not write what it had to.
    """
    artifacts = {name: listed.artifacts[0] for name, listed in attempt.given.outputs.artifacts.items()}
    paths = {name: attempt.mounts.path(artifact.uri) for name, artifact in artifacts.items()}
    _prepare(attempt, paths.values())
    try:
        for listed in attempt.given.inputs.artifacts.values():
            for artifact in listed.artifacts:
                attempt.store.download(artifact.uri, attempt.mounts.path(artifact.uri))
        _run(attempt)
        _require_no_folder_named_as_a_scheme(attempt.folder / "work")
        said = _executor_output(attempt)
        parameters = _output_parameters(attempt, said)
        for name in artifacts.keys() - {LOGS}:
            _merge(name, artifacts[name], said, Path(paths[name]))
        for name in artifacts.keys() - {LOGS}:
            attempt.store.upload(paths[name], artifacts[name].uri)
    finally:
        attempt.store.upload(str(attempt.log), artifacts[LOGS].uri)
        shutil.rmtree(attempt.folder)
    return parameters, artifacts


def _prepare(attempt: Attempt, artifact_paths: Iterable[str]) -> None:
    files = [*artifact_paths, *(parameter.output_file for parameter in attempt.given.outputs.parameters.values())]
    own = [attempt.folder / name for name in ("work", "home", "tmp")]
    for folder in [*own, attempt.log.parent, *(Path(file).parent for file in files)]:
        folder.mkdir(parents=True, exist_ok=True)
    for entry in ROOT.glob("[!.]*"):
        (attempt.folder / "work" / entry.name).symlink_to(entry)


def _run(attempt: Attempt) -> None:
    """Waits for the process; with it end those that it started, as a pod's do."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
        "HOME": str(attempt.folder / "home"),
        "TMPDIR": str(attempt.folder / "tmp"),
        "PYTHONPATH": str(ROOT),
        ROOT_VARIABLE: attempt.mounts.root,
        **attempt.environment,
    }
    command = substitute(attempt)
    with attempt.log.open("wb") as log:
        try:
            process = subprocess.Popen(
                command,
                cwd=attempt.folder / "work",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        except OSError as error:
            raise StepFailed(f"cannot start {command[0]}: {error}") from None
        try:
            status = process.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status:
        raise StepFailed(f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}")


def substitute(attempt: Attempt) -> list[str]:
    """Command and arguments without placeholders; in the first word, only `{{$}}` is one for the launcher."""
    given = ExecutorInput()
    given.CopyFrom(attempt.given)
    for name, parameter in attempt.component.input_definitions.parameters.items():
        if parameter.HasField("default_value") and name not in given.inputs.parameter_values:
            given.inputs.parameter_values[name].CopyFrom(parameter.default_value)
    whole = values.to_json(given)
    command, *arguments = (word.replace("{{$}}", whole) for word in attempt.words)
    for placeholder, text in _placeholders(given, attempt.mounts).items():
        arguments = [argument.replace(placeholder, text) for argument in arguments]
    return [command, *arguments]


def _placeholders(given: ExecutorInput, mounts: Mounts) -> dict[str, str]:
    texts = {}
    for side, artifacts in (("inputs", given.inputs.artifacts), ("outputs", given.outputs.artifacts)):
        for name, listed in artifacts.items():
            texts[f"{{{{$.{side}.artifacts['{name}'].uri}}}}"] = listed.artifacts[0].uri
            texts[f"{{{{$.{side}.artifacts['{name}'].path}}}}"] = mounts.path(listed.artifacts[0].uri)
    for name, value in given.inputs.parameter_values.items():
        texts[f"{{{{$.inputs.parameters['{name}']}}}}"] = values.to_text(value)
    for name, parameter in given.outputs.parameters.items():
        texts[f"{{{{$.outputs.parameters['{name}'].output_file}}}}"] = parameter.output_file
    return texts


def _executor_output(attempt: Attempt) -> ExecutorOutput:
    """What the step says of its outputs; a step may say nothing."""
    path, outputs, output = Path(attempt.given.outputs.output_file), attempt.given.outputs, ExecutorOutput()
    if path.exists():
        try:
            json_format.Parse(path.read_text(encoding="utf-8"), output)
        except (UnicodeDecodeError, json_format.ParseError) as error:
            raise StepFailed(f"{path.name} is no executor output: {error}") from None
    unknown = {*output.artifacts} - {*outputs.artifacts} | {*output.parameter_values} - {*outputs.parameters}
    if unknown:
        raise StepFailed(f"the executor output names undeclared outputs: {', '.join(sorted(unknown))}")
    return output


def _output_parameters(attempt: Attempt, said: ExecutorOutput) -> dict[str, Value]:
    """Every declared parameter: from the executor output, else from its file."""
    parameters = dict(said.parameter_values)
    for name, declared in attempt.component.output_definitions.parameters.items():
        try:
            if name not in parameters:
                text = Path(attempt.given.outputs.parameters[name].output_file).read_text(encoding="utf-8")
                parameters[name] = values.from_text(text, declared.parameter_type)
            values.require_type(parameters[name], declared.parameter_type)
        except (FileNotFoundError, ValueError) as error:
            raise StepFailed(f"output parameter {name} was not written: {error}") from None
    return parameters


def _merge(name: str, artifact: RuntimeArtifact, said: ExecutorOutput, path: Path) -> None:
    """Adds the metadata that the executor output gives an artifact."""
    for told in said.artifacts[name].artifacts if name in said.artifacts else ():
        if told.uri not in ("", artifact.uri):
            raise StepFailed(f"output {name}: the executor output moves it from {artifact.uri} to {told.uri}")
        artifact.metadata.MergeFrom(told.metadata)
    explained = artifact.metadata.fields.keys() - {"tfx_version"}  # which TFX writes on everything
    if not path.is_file() and not any(path.rglob("*")) and not explained:
        raise StepFailed(f"output {name}: nothing was written where {artifact.uri} is uploaded from")


def _require_no_folder_named_as_a_scheme(work: Path) -> None:
    for scheme in FOLDERS:
        if (work / f"{scheme}:").exists():
            raise StepFailed(f"the step took a URI for a path: it wrote to a folder '{scheme}:'")


def secret_variables(settings: KubernetesExecutorConfig) -> dict[str, str]:
    """Variables that the cluster takes from secrets; here they are this process's, by the same names.

    Raises:
        StepFailed: One is not set; on the cluster, a pod does not start without its secret.
    """
    wanted = [(source, key) for source in settings.secret_as_env for key in source.key_to_env]
    for source, key in wanted:
        if key.env_var not in os.environ and not source.optional:
            raise StepFailed(f"variable {key.env_var} is not set; it stands in for key {key.secret_key} of a secret")
    return {key.env_var: os.environ[key.env_var] for _, key in wanted if key.env_var in os.environ}
