"""The state kept between runs: ids of artifacts, and cached outputs of steps. It is a file instead of ML Metadata.

Rules: v2/cacheutils/cache.go (`GenerateCacheKey`, `GenerateFingerPrint`), v2/driver/cache.go (`getFingerPrint`: volume
claims), v2/metadata/client.go (`RecordArtifact`) and converter.go (`toMLMDArtifact`, `toRuntimeArtifact`): later steps
get an artifact's id, URI and metadata, but neither its type nor lists, structs and booleans in their original form.

Not simulated: pipelines and namespaces, between which results are not shared; lineage.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.kubeflow.simulation.launcher import ExecutorInput, Outputs


def fingerprint(
    given: ExecutorInput, component: Mapping[str, Any], image: str, words: Sequence[str], claims: Sequence[str]
) -> str:
    """Hash of the cache key: ids of input artifacts, parameters, kinds of outputs, image, command, volume claims."""
    key = {
        "inputArtifactNames": {
            name: [artifact["name"] for artifact in listed["artifacts"]]
            for name, listed in given["inputs"]["artifacts"].items()
        },
        "inputParameterValues": given["inputs"]["parameterValues"],
        "outputArtifactsSpec": {
            name: {**listed["artifacts"][0], "uri": ""} for name, listed in given["outputs"]["artifacts"].items()
        },
        "outputParametersSpec": {
            name: declared["parameterType"]
            for name, declared in component.get("outputDefinitions", {}).get("parameters", {}).items()
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
        return None if found is None else Outputs(**found)

    def record(self, fingerprint: str | None, outputs: Outputs) -> Outputs:
        """Assigns artifact ids, and stores the outputs if they have a fingerprint. Returns what later steps see."""
        recorded = Outputs(outputs.parameters, {})
        for name, artifact in outputs.artifacts.items():
            self._content["artifacts"] += 1
            metadata = {"display_name": name, "store_session_info": '{"Provider":"","Params":null}'}
            metadata |= {key: _property(value) for key, value in artifact.get("metadata", {}).items()}
            identifier = str(self._content["artifacts"])
            recorded.artifacts[name] = {"name": identifier, "uri": artifact["uri"], "metadata": metadata}
        if fingerprint:
            self._content["results"][fingerprint] = recorded._asdict()
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self._content, indent=1))
        os.replace(new, self._path)
        return recorded


def _property(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, Mapping):
        return {"struct": value}
    return {"list": value} if isinstance(value, list) else value
