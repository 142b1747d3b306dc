"""The compiled pipeline: a KFP pipeline spec and a platform document, in one YAML file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

import yaml

from data.errors import ConfigError
from pipeline.yaml_text import Dumper, parse

#: Type of a parameter -> the Python type of its values. Text for the first three is converted, for the others parsed.
_PARAMETER_TYPES: dict[str, type] = {
    "STRING": str,
    "NUMBER_INTEGER": int,
    "NUMBER_DOUBLE": float,
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}


@dataclass(frozen=True)
class CompiledPipeline:
    """The documents that are submitted to a Kubeflow Pipelines server."""

    spec: dict[str, Any]
    """PipelineSpec, schema 2.1.0, in protobuf's JSON form."""
    platforms: dict[str, Any] = field(default_factory=dict)
    """PlatformSpec: `platforms.kubernetes.deploymentSpec.executors.<label>`; empty if no stage has such settings."""

    def write(self, path: Path) -> None:
        """Writes one YAML document, or two."""
        documents = [self.spec, *([self.platforms] if self.platforms else [])]
        path.write_text(yaml.dump_all(documents, Dumper=Dumper, sort_keys=True, allow_unicode=True), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads what `write` wrote.

        Raises:
            ConfigError: The file does not exist, or is not a compiled pipeline.
        """
        try:
            documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such file") from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: cannot be read as YAML: {error}") from None
        documents = [document for document in documents if document is not None]
        if not 1 <= len(documents) <= 2 or not all(isinstance(document, dict) for document in documents):
            raise ConfigError(f"{path}: must hold a pipeline spec and at most one platform document")
        return cls(*documents)

    @property
    def name(self) -> str:
        """The name under which the pipeline was compiled.

        Raises:
            ConfigError: There is none.
        """
        try:
            name = self.spec["pipelineInfo"]["name"]
        except (KeyError, TypeError):
            name = None
        if not isinstance(name, str):
            raise ConfigError(
                "the compiled pipeline has no pipelineInfo.name; allowed: what `kubeflow_runner.py compile` writes"
            )
        return name

    @property
    def service_account(self) -> str:
        """The service account of `kubeflow.service_account`, which the platform document carries; empty if none."""
        settings = self.platforms.get("platforms", {}).get("kubernetes", {}).get("config", {})
        return str(settings.get("serviceAccount", ""))

    @property
    def document(self) -> dict[str, Any]:
        """Both documents in one, which the server splits again (`pipelineSpecStructToYamlString` of
        kubeflow/pipelines `backend/src/apiserver/server/api_util.go`).
        """
        return {"pipeline_spec": self.spec, "platform_spec": self.platforms} if self.platforms else self.spec

    @property
    def tasks(self) -> dict[str, Any]:
        """The tasks, by name."""
        tasks: dict[str, Any] = self.spec["root"]["dag"]["tasks"]
        return tasks

    def component(self, task: str) -> dict[str, Any]:
        """The component that a task runs."""
        component: dict[str, Any] = self.spec["components"][self.tasks[task]["componentRef"]["name"]]
        return component

    def container(self, task: str) -> dict[str, Any]:
        """The container that a task runs in."""
        label = self.component(task)["executorLabel"]
        container: dict[str, Any] = self.spec["deploymentSpec"]["executors"][label]["container"]
        return container

    def run_parameters(self, overrides: Sequence[str]) -> dict[str, Any]:
        """A value for every parameter of a run: the default, or what `name=value` says.

        The server fills in defaults for runs, but for recurring runs that is not certain, so each value is passed.

        Raises:
            ConfigError: A parameter is unknown, has no value, or one of another type.
        """
        declared = self.spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
        values = {name: each["defaultValue"] for name, each in declared.items() if "defaultValue" in each}
        for override in overrides:
            name, equals, text = override.partition("=")
            if not equals:
                raise ConfigError(f"--set {override}: must look like parameter=value")
            if name not in declared:
                near = get_close_matches(name, declared, n=1)
                hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(declared) or 'none'}"
                raise ConfigError(f"--set {override}: the pipeline has no parameter {name}; {hint}")
            kind = declared[name].get("parameterType")
            try:
                of = _PARAMETER_TYPES[kind]
                values[name] = of(text) if of in (str, int, float) else parse(text, f"--set {name}")
                json.dumps(values[name], allow_nan=False)  # The server speaks JSON, which has no infinities.
                if not isinstance(values[name], of):
                    raise TypeError(kind)
            except (KeyError, TypeError, ValueError):
                raise ConfigError(f"--set {override}: {text!r} is not of type {kind}") from None
        missing = [name for name, each in declared.items() if name not in values and not each.get("isOptional")]
        if missing:
            raise ConfigError(f"parameters without a value: {', '.join(missing)}; give each with --set parameter=value")
        return values
