"""The submission of a run: a compiled pipeline and a value for each of its parameters."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from data.errors import ConfigError
from pipeline.kubeflow.document import CompiledPipeline


def _json_of(kind: type) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        value = json.loads(text)
        if not isinstance(value, kind):
            raise TypeError(f"no JSON {kind.__name__}")
        return value

    return convert


_CONVERTERS: dict[str, Callable[[str], Any]] = {
    "STRING": str,
    "NUMBER_INTEGER": int,
    "NUMBER_DOUBLE": float,
    "BOOLEAN": _json_of(bool),
    "LIST": _json_of(list),
    "STRUCT": _json_of(dict),
}


@dataclass(frozen=True)
class Submission:
    """A pipeline as it is submitted for a run or a recurring run."""

    pipeline: CompiledPipeline
    experiment: str
    name: str
    """Display name of the run or recurring run."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """A value for every parameter of the pipeline."""
    service_account: str = ""
    """Kubernetes service account of the run's pods; empty for the server's default."""

    @property
    def document(self) -> dict[str, Any]:
        """Both documents combined in one, which the server splits again (`pipelineSpecStructToYamlString` of
        kubeflow/pipelines `backend/src/apiserver/server/api_util.go`).
        """
        if not self.pipeline.platforms:
            return self.pipeline.spec
        return {"pipeline_spec": self.pipeline.spec, "platform_spec": self.pipeline.platforms}

    @property
    def pipeline_root(self) -> str | None:
        """Where artifacts are stored. The server reads it only from the run, never from the spec's
        `defaultPipelineRoot` (`rootDAG` of kubeflow/pipelines `backend/src/v2/driver/root_dag.go`).
        """
        root: str | None = self.pipeline.spec.get("defaultPipelineRoot")
        return root


def pipeline_name(pipeline: CompiledPipeline) -> str:
    """The name that the pipeline was compiled under."""
    try:
        name = pipeline.spec["pipelineInfo"]["name"]
    except (KeyError, TypeError):
        name = None
    if not isinstance(name, str):
        raise ConfigError(
            "the compiled pipeline has no pipelineInfo.name; allowed: what `kubeflow_runner.py compile` writes"
        )
    return name


def run_parameters(pipeline: CompiledPipeline, overrides: Sequence[str]) -> dict[str, Any]:
    """A value for every parameter: its default, or the value of `name=value`.

    The server fills in defaults for runs, but a recurring run should not depend on that, so all values are passed.

    Raises:
        ConfigError: A parameter is unknown, has no value, or has a value of another type.
    """
    declared = pipeline.spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    values = {name: definition["defaultValue"] for name, definition in declared.items() if "defaultValue" in definition}
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"--set {override}: must look like parameter=value")
        if name not in declared:
            raise ConfigError(f"--set {override}: the pipeline has no parameter {name}{_suggestion(name, declared)}")
        values[name] = _converted(override, declared[name].get("parameterType"), text)
    missing = [name for name, definition in declared.items() if name not in values and not definition.get("isOptional")]
    if missing:
        raise ConfigError(f"parameters without a value: {', '.join(missing)}; give each with --set parameter=value")
    return values


def _converted(override: str, kind: str, text: str) -> Any:
    try:
        value = _CONVERTERS[kind](text)
        json.dumps(value, allow_nan=False)  # the values are sent as JSON, which has no infinities
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"--set {override}: {text!r} is not of type {kind}") from None
    return value


def _suggestion(name: str, declared: Mapping[str, Any]) -> str:
    near = get_close_matches(name, declared, n=1)
    return f"; did you mean {near[0]}?" if near else f"; allowed: {', '.join(declared) or 'none'}"


def service_account_of(pipeline: CompiledPipeline) -> str:
    """The service account of `kubeflow.service_account`, which the platform document carries; empty if none."""
    settings = pipeline.platforms.get("platforms", {}).get("kubernetes", {}).get("config", {})
    return str(settings.get("serviceAccount", ""))
