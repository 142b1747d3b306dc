"""The compiled pipeline: a KFP pipeline spec and a platform document, in one YAML file."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from data.errors import ConfigError


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
        path.write_text(yaml.safe_dump_all(documents, sort_keys=True, allow_unicode=True), encoding="utf-8")

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
