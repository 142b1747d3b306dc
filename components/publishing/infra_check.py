"""InfraCheck: a fresh process loads the SavedModel and answers real requests before anything is pushed.

TFX's InfraValidator needs Docker or Kubernetes. This check needs neither, and finds the same faults: a model that does
not load on its own, a signature that fails, an answer of the wrong shape, or one that takes too long.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import tensorflow as tf
from absl import logging
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.types import standard_artifacts
from tfx.utils import io_utils, path_utils

from components.artifacts import INFRA_BLESSED, REASON
from components.config import InfraConfig
from components.function_component import function_component
from components.ingest.sample_images import test_examples
from components.storage.file_systems import is_local
from components.storage.trees import copy_tree

#: After how many timeouts a model is refused. One timeout may be the machine's fault.
ATTEMPTS = 2


def probe(model: str, examples: list[bytes], config: InfraConfig, beside: str | None) -> str:
    """Runs `models.export.probe` on a copy of a SavedModel.

    Args:
        model: Folder or URI of the SavedModel.
        examples: Serialized tf.Examples.
        config: The limits.
        beside: Folder for the temporary copy and requests; None: the system's folder for temporary files.

    Returns:
        Why the model fails, or an empty string.
    """
    with tempfile.TemporaryDirectory(dir=beside) as folder:
        requests = os.path.join(folder, "requests.tfrecord")
        with tf.io.TFRecordWriter(requests) as writer:
            for example in examples:
                writer.write(example)
        local = os.path.join(folder, "model")
        copy_tree(model, local)
        command = [
            sys.executable,
            "-m",
            "models.export.probe",
            local,
            requests,
            str(config.image_seconds),
            str(os.getpid()),
        ]
        root = str(Path(__file__).resolve().parents[2])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
        for _ in range(ATTEMPTS):
            try:
                result = subprocess.run(
                    command, capture_output=True, text=True, timeout=config.load_seconds, env=environment, check=False
                )
                break
            except subprocess.TimeoutExpired:
                logging.warning("no answer within infra.load_seconds=%g", config.load_seconds)
        else:
            return f"no answer within infra.load_seconds={config.load_seconds:g}, {ATTEMPTS} times"
    if result.returncode == 0:
        return ""
    lines = result.stderr.strip().splitlines() or ["no message"]
    return f"{lines[-1]} (exit status {result.returncode})"


@function_component()
def InfraCheck(
    model: InputArtifact[standard_artifacts.Model],
    examples: InputArtifact[standard_artifacts.Examples],
    blessing: OutputArtifact[standard_artifacts.InfraBlessing],
    config: Parameter[str],
    code_hash: Parameter[str],
) -> None:
    """Blesses a model that serves; `config` is the JSON of section `infra`. Refusal is a result, not an error."""
    limits = InfraConfig.model_validate_json(config)
    # If the run is killed, retention removes the artifact's folder with what is left in it.
    beside = blessing.uri if is_local(blessing.uri) else None
    reason = probe(path_utils.serving_model_dir(model.uri), test_examples(examples, limits.requests), limits, beside)
    blessing.set_int_custom_property(INFRA_BLESSED, int(not reason))
    blessing.set_string_custom_property(REASON, reason)
    io_utils.write_string_file(os.path.join(blessing.uri, "INFRA_NOT_BLESSED" if reason else "INFRA_BLESSED"), reason)
