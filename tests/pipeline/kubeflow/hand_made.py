"""Small pipelines, written by hand, whose steps are a line of shell or Python each."""

import sys
from pathlib import Path
from typing import Any

import yaml

from pipeline.kubeflow.simulation.driver import SimulatedRun, simulate

ROOT = "minio://bucket/root"
SCHEMA = {"artifactType": {"schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"}}


#: Runs a line of shell, after it has put in, from the ExecutorInput, values, paths and URIs.
FILL = """
import json, os, sys

given, (script, name, *words) = json.loads(sys.argv[1]), sys.argv[2:]
root = os.environ["DEEPLAB_MOUNT_ROOT"]
texts = {f"<value {key}>": str(value) for key, value in given["inputs"]["parameterValues"].items()}
texts |= {f"<file {key}>": place["outputFile"] for key, place in given["outputs"]["parameters"].items()}
for side, kind in (("inputs", "input"), ("outputs", "path")):
    for key, listed in given[side]["artifacts"].items():
        uri = texts[f"<uri {key}>"] = listed["artifacts"][0]["uri"]
        texts[f"<{kind} {key}>"] = uri.replace("minio:/", f"{root}/minio")
os.execvp("sh", ["sh", "-c", script, name, *(texts.get(word, word) for word in words)])
"""


def constant(value: Any) -> dict[str, Any]:
    """A task's input that is a constant."""
    return {"runtimeValue": {"constant": value}}


def of_run(name: str) -> dict[str, Any]:
    """A task's input that is a parameter of the run."""
    return {"componentInputParameter": name}


def of_task(task: str, key: str) -> dict[str, Any]:
    """A task's input that is another one's output parameter."""
    return {"taskOutputParameter": {"producerTask": task, "outputParameterKey": key}}


class Pipeline:
    """Collects steps; `run` writes the YAML file and simulates it."""

    def __init__(self, folder: Path, **parameters: Any):
        """`parameters`: name -> (type, default)."""
        self.folder = folder
        self.tasks: dict[str, Any] = {}
        self.components: dict[str, Any] = {}
        self.executors: dict[str, Any] = {}
        self.settings: dict[str, Any] = {}
        self.parameters = {k: {"parameterType": t, "defaultValue": v} for k, (t, v) in parameters.items()}

    def shell(self, name: str, script: str, *words: str, **options: Any) -> None:
        """A step that runs a line of shell, with `words` as $1, $2, ...; those of `FILL` stand for what it is given."""
        if any(word.startswith("<") for word in words):
            self.step(name, [sys.executable, "-c", FILL, "{{$}}"], [script, name, *words], **options)
        else:
            self.step(name, ["sh", "-c"], [script, name, *words], **options)

    def step(
        self,
        name: str,
        command: list[str],
        args: list[str],
        *,
        types: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
        artifacts: dict[str, tuple[str, str]] | None = None,
        writes: tuple[str, ...] = (),
        returns: dict[str, str] | None = None,
        cache: bool = False,
        **task: Any,
    ) -> None:
        """A step. `artifacts`: input -> (task, output); `writes`: output artifacts; `returns`: output -> type."""
        parameters, artifacts = parameters or {}, artifacts or {}
        self.executors[f"exec-{name}"] = {"container": {"image": "none", "command": command, "args": args}}
        self.components[name] = {
            "executorLabel": f"exec-{name}",
            "inputDefinitions": {
                "parameters": {key: {"parameterType": (types or {}).get(key, "STRING")} for key in parameters},
                "artifacts": dict.fromkeys(artifacts, SCHEMA),
            },
            "outputDefinitions": {
                "artifacts": dict.fromkeys(writes, SCHEMA),
                "parameters": {key: {"parameterType": kind} for key, kind in (returns or {}).items()},
            },
        }
        origins = {
            key: {"taskOutputArtifact": {"producerTask": producer, "outputArtifactKey": output}}
            for key, (producer, output) in artifacts.items()
        }
        self.tasks[name] = {
            "taskInfo": {"name": name},
            "componentRef": {"name": name},
            "inputs": {"parameters": parameters, "artifacts": origins},
            "cachingOptions": {"enableCache": True} if cache else {},
            **task,
        }

    def write(self) -> Path:
        """The YAML file."""
        spec = {
            "schemaVersion": "2.1.0",
            "pipelineInfo": {"name": "hand-made"},
            "defaultPipelineRoot": ROOT,
            "root": {"inputDefinitions": {"parameters": self.parameters}, "dag": {"tasks": self.tasks}},
            "components": self.components,
            "deploymentSpec": {"executors": self.executors},
        }
        platforms = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": self.settings}}}}
        path = self.folder / "pipeline.yaml"
        path.write_text(yaml.safe_dump_all([spec, platforms] if self.settings else [spec]))
        return path

    def run(self, *settings: str) -> SimulatedRun:
        """Simulates it; the store is the same for each run."""
        return simulate(self.write(), store=self.folder / "store", settings=settings)


def states(run: SimulatedRun) -> dict[str, str]:
    """Step -> state."""
    return {step.name: step.state for step in run.steps}


def log(run: SimulatedRun, step: str, attempt: int = 0) -> str:
    """What a step printed."""
    return (run.logs / step / f"{attempt}.log").read_text()
