"""The launcher: runs one attempt at a step, as a subprocess in a separate folder.

Rules: v2/component/launcher_v2.go (`executeV2`, `execute`, `compileCmdAndArgs`, `getPlaceholders`,
`collectOutputParameters`, `uploadOutputArtifacts`, `qualifyExecutorLogsURI`), v2/driver/driver.go (`initPodSpecPatch`:
env), v2/driver/k8s.go (secrets as variables), v2/objectstore/object_store.go (`UploadBlob`, `DownloadBlob`).

It is stricter than the real launcher, which ignores these errors although data are lost: a step fails here if its
executor output names undeclared outputs or moves an artifact, if an output has neither files nor metadata of its own,
or if it used a URI as a path and created a folder `minio:`.

Not simulated: the image (a step runs in this Python environment; as in the image, the working directory shows the
project's files); limits, accelerators, volumes, nodes, users, and every variable that KFP itself sets. The mounts and
/tmp/kfp/outputs lie in the attempt's folder. Secrets are this machine's variables.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from data.errors import ProjectError
from pipeline.kubeflow.mounts import EXECUTOR_LOGS, FOLDERS, ROOT_VARIABLE, Mounts

ROOT = Path(__file__).resolve().parents[3]

#: The message of this name in protobuf's JSON form, as are all artifacts here.
ExecutorInput = dict[str, Any]


class StepFailed(ProjectError):
    """An attempt at a step failed."""


class Outputs(NamedTuple):
    """The outputs of a step, by name."""

    parameters: dict[str, str]
    artifacts: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class ObjectStore:
    """A folder that replaces the object store: `minio://bucket/key` is the file `<folder>/bucket/key`.

    Each file of an uploaded folder becomes an object, so empty folders are lost; a download fetches all objects below a
    key, and does not fail if there are none. There are no credentials, and all schemes share the folder.
    """

    folder: Path

    def path(self, uri: str) -> Path:
        """The file, or folder of files, of a URI; rejects what the launcher cannot mirror, as `Mounts.path` does."""
        Mounts().path(uri)
        return self.folder / uri.partition("://")[2]


def copy_files(source: Path, target: Path) -> None:
    """Copies a file, or each file of a folder; does nothing if there is none."""
    for file in [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]:
        to = target / file.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, to)


@dataclass(frozen=True)
class Attempt:
    """The driver's input to the launcher, and the working folder."""

    words: list[str]
    """Command and arguments."""
    environment: Mapping[str, str]
    """Environment variables of the container."""
    given: ExecutorInput
    store: ObjectStore
    folder: Path
    """Folder that holds `mounts`, `work`, `home` and `tmp`; it is removed afterwards."""
    log: Path


def launch(attempt: Attempt) -> Outputs:
    """Runs a step once.

    Raises:
        StepFailed: Its process failed, or it did not write its outputs as required.
    """
    inputs, outputs = attempt.given["inputs"], attempt.given["outputs"]
    store, mounts = attempt.store, Mounts(f"{attempt.folder}/mounts")
    artifacts = {name: listed["artifacts"][0] for name, listed in outputs["artifacts"].items()}
    paths = {name: Path(mounts.path(artifact["uri"])) for name, artifact in artifacts.items()}
    logs = artifacts.pop(EXECUTOR_LOGS)
    files = [*paths.values(), *(Path(parameter["outputFile"]) for parameter in outputs["parameters"].values())]
    own = [attempt.folder / name for name in ("work", "home", "tmp")]
    for folder in [*own, attempt.log.parent, *(file.parent for file in files)]:
        folder.mkdir(parents=True, exist_ok=True)
    for entry in ROOT.glob("[!.]*"):
        (attempt.folder / "work" / entry.name).symlink_to(entry)
    try:
        for listed in inputs["artifacts"].values():
            for artifact in listed["artifacts"]:
                copy_files(store.path(artifact["uri"]), Path(mounts.path(artifact["uri"])))
        _run(attempt, mounts)
        made = _collect(attempt, artifacts, paths)
        for name, artifact in artifacts.items():
            copy_files(paths[name], store.path(artifact["uri"]))
    finally:
        copy_files(attempt.log, store.path(logs["uri"]))
        shutil.rmtree(attempt.folder)
    return made._replace(artifacts={**made.artifacts, EXECUTOR_LOGS: logs})


def _run(attempt: Attempt, mounts: Mounts) -> None:
    """Waits for the process, and ends its child processes with it, as in a pod."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
        "HOME": str(attempt.folder / "home"),
        "TMPDIR": str(attempt.folder / "tmp"),
        "PYTHONPATH": str(ROOT),
        ROOT_VARIABLE: mounts.root,
        **attempt.environment,
    }
    given = json.dumps(attempt.given)
    command = [word.replace("{{$}}", given) for word in attempt.words]
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


def _collect(attempt: Attempt, artifacts: Mapping[str, dict[str, Any]], paths: Mapping[str, Path]) -> Outputs:
    """The step's outputs: artifacts with the metadata of its executor output, which is optional, and parameters from
    their files.
    """
    for scheme in FOLDERS:
        if (attempt.folder / "work" / f"{scheme}:").exists():
            raise StepFailed(f"the step took a URI for a path: it wrote to a folder '{scheme}:'")
    output = pipeline_spec_pb2.ExecutorOutput()
    if (file := Path(attempt.given["outputs"]["outputFile"])).exists():
        try:
            json_format.Parse(file.read_text(encoding="utf-8"), output)
        except (UnicodeDecodeError, json_format.ParseError) as error:
            raise StepFailed(f"{file.name} is not an executor output: {error}") from None
    if unknown := {*output.artifacts} - {*artifacts}:
        raise StepFailed(f"the executor output names undeclared outputs: {', '.join(sorted(unknown))}")
    if output.parameter_values:
        raise StepFailed("the executor output holds parameters; the simulator reads them from their files alone")
    for name, artifact in artifacts.items():
        for reported in output.artifacts[name].artifacts if name in output.artifacts else ():
            if reported.uri not in ("", artifact["uri"]):
                raise StepFailed(
                    f"output {name}: the executor output moves it from {artifact['uri']} to {reported.uri}"
                )
            artifact.setdefault("metadata", {}).update(whole_numbers(json_format.MessageToDict(reported.metadata)))
        explained = artifact.get("metadata", {}).keys() - {"tfx_version"}  # which TFX writes on everything
        if not paths[name].is_file() and not any(paths[name].rglob("*")) and not explained:
            raise StepFailed(f"output {name}: nothing was written where {artifact['uri']} is uploaded from")
    parameters = {}
    for name, parameter in attempt.given["outputs"]["parameters"].items():
        try:
            parameters[name] = Path(parameter["outputFile"]).read_text(encoding="utf-8")
        except (FileNotFoundError, ValueError) as error:
            raise StepFailed(f"output parameter {name} was not written: {error}") from None
    return Outputs(parameters, dict(artifacts))


def whole_numbers(value: Any) -> Any:
    """Values in Go's JSON form: whole numbers without a decimal point."""
    if isinstance(value, dict):
        return {key: whole_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [whole_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
