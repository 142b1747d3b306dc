"""What outlives a run: ids of artifacts, and the outputs of steps that may be used again. A file, not ML Metadata.

Rules: v2/cacheutils/cache.go (`GenerateCacheKey`, `GenerateFingerPrint`), v2/driver/cache.go (`getFingerPrint`: volume
claims), v2/metadata/client.go (`RecordArtifact`) and converter.go (`toMLMDArtifact`, `toRuntimeArtifact`): later steps
get an artifact's id, URI and metadata, but not its type, nor its lists, structs and booleans in their own form.

Not simulated: pipelines and namespaces, between which results are not shared; lineage.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value
from kfp.pipeline_spec.pipeline_spec_pb2 import ComponentSpec, ExecutorInput, RuntimeArtifact

Outputs = tuple[dict[str, Value], dict[str, RuntimeArtifact]]
"""(parameters, artifacts) by name."""


def fingerprint(
    given: ExecutorInput, component: ComponentSpec, image: str, words: Sequence[str], claims: Sequence[str]
) -> str:
    """Hash of the cache key: ids of input artifacts, parameters, kinds of outputs, image, command, volume claims."""
    outputs = MessageToDict(given.outputs).get("artifacts", {})
    key = {
        "inputArtifactNames": {
            name: [artifact.name for artifact in listed.artifacts] for name, listed in given.inputs.artifacts.items()
        },
        "inputParameterValues": MessageToDict(given.inputs).get("parameterValues", {}),
        "outputArtifactsSpec": {name: {**listed["artifacts"][0], "uri": ""} for name, listed in outputs.items()},
        "outputParametersSpec": {
            name: declared.parameter_type for name, declared in component.output_definitions.parameters.items()
        },
        "containerSpec": {"image": image, "cmdArgs": list(words), "pvcNames": sorted(set(claims))},
    }
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


class Records:
    """The file's content."""

    def __init__(self, path: Path):
        self._path = path
        self._content = json.loads(path.read_text()) if path.exists() else {"artifacts": 0, "results": {}}

    def find(self, fingerprint: str) -> Outputs | None:
        """The outputs of an earlier step."""
        found = self._content["results"].get(fingerprint)
        if found is None:
            return None
        parameters = {name: ParseDict(value, Value()) for name, value in found["parameters"].items()}
        return parameters, {name: ParseDict(value, RuntimeArtifact()) for name, value in found["artifacts"].items()}

    def record(self, fingerprint: str | None, outputs: Outputs) -> Outputs:
        """Gives artifacts their ids; keeps the outputs if they have a fingerprint. Returns what later steps get."""
        parameters, artifacts = outputs
        recorded = {name: self._artifact(name, artifact) for name, artifact in artifacts.items()}
        if fingerprint:
            self._content["results"][fingerprint] = {
                "parameters": {name: MessageToDict(value) for name, value in parameters.items()},
                "artifacts": {name: MessageToDict(artifact) for name, artifact in recorded.items()},
            }
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self._content, indent=1))
        os.replace(new, self._path)
        return parameters, recorded

    def _artifact(self, name: str, artifact: RuntimeArtifact) -> RuntimeArtifact:
        self._content["artifacts"] += 1
        metadata = {"display_name": name, "store_session_info": '{"Provider":"","Params":null}'}
        metadata |= {key: _property(value) for key, value in MessageToDict(artifact.metadata).items()}
        kept = {"name": str(self._content["artifacts"]), "uri": artifact.uri, "metadata": metadata}
        return ParseDict(kept, RuntimeArtifact())


def _property(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, Mapping):
        return {"struct": value}
    return {"list": value} if isinstance(value, list) else value
