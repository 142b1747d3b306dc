"""ModelPusher: publishes a blessed model, unless it is served already or was rolled back."""

import tempfile
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2
from tfx import types
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components.artifacts import (
    HIGHEST_PUSHED,
    INFRA_BLESSED,
    PUSHED,
    PUSHED_DESTINATION,
    PUSHED_VERSION,
    REASON,
    SERVED_VERSION,
    HubModels,
    LiteModels,
)
from components.config import PushConfig
from components.function_component import function_component
from components.ingest.sample_images import encoded_images, test_examples
from components.publishing.directory import (
    EXTRA,
    WARMUP_FILE,
    ModelVersion,
    model_fingerprint,
    prune,
    publish,
    served,
)
from components.publishing.pins_and_blocklist import blocked, pinned
from components.targets.hub_record import read_hub_record
from components.targets.lite_record import read_lite_record
from components.targets.record import pushed_files
from data.labels import LabelMap
from models.export.saved_model import IMAGE_BYTES, SERVING_SIGNATURE


def warmup_log(model_name: str, images: list[bytes]) -> bytes:
    """TensorFlow Serving's warm-up file: a TFRecord file of PredictionLog protos."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "requests")
        with tf.io.TFRecordWriter(str(path)) as writer:
            for image in images:
                request = predict_pb2.PredictRequest(
                    model_spec=model_pb2.ModelSpec(name=model_name, signature_name=SERVING_SIGNATURE),
                    inputs={IMAGE_BYTES: tf.make_tensor_proto([image])},
                )
                log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
                writer.write(log.SerializeToString())
        return path.read_bytes()


class PushResult(NamedTuple):
    """The result of ModelPusher, which it records on its PushedModel artifact."""

    pushed: bool
    version: ModelVersion | None = None
    """The version that holds the model; None if there is none."""
    reason: str = ""
    """Why the model was not pushed."""


def decide(
    saved_model: str, serving_dir: str, blessing: types.Artifact, infra_blessing: types.Artifact
) -> PushResult | None:
    """Decides whether a model is pushed.

    Args:
        saved_model: Folder of the SavedModel.
        serving_dir: Folder of the versions.
        blessing: The Evaluator's output.
        infra_blessing: InfraCheck's output.

    Returns:
        The result if the model is not pushed, None if it is to be pushed.

    Raises:
        WorkspaceError: The pins, the blocklist or the served version's record cannot be read.
    """
    if not blessing.get_int_custom_property("blessed"):
        return PushResult(False, reason="not blessed by the evaluation")
    if not infra_blessing.get_int_custom_property(INFRA_BLESSED):
        return PushResult(False, reason="the infra check failed: " + infra_blessing.get_string_custom_property(REASON))
    pinned(serving_dir)  # If the pins cannot be read, that must not turn out when versions are removed after the push.
    fingerprint, newest = model_fingerprint(saved_model), served(serving_dir)
    if newest and newest.record.model_fingerprint == fingerprint:
        # If the run that published it was killed before it could record that, lineage finds the version by this result.
        return PushResult(False, newest, f"already served as version {newest.version}")
    entry = blocked(serving_dir).get(fingerprint)
    if entry:
        when = f"{entry.withdrawn_at:%Y-%m-%d %H:%M} UTC"
        why = f" ({entry.reason})" if entry.reason else ""
        return PushResult(False, reason=f"version {entry.version}, which is this model, was rolled back on {when}{why}")
    return None


@function_component()
def ModelPusher(
    model: InputArtifact[standard_artifacts.Model],
    examples: InputArtifact[standard_artifacts.Examples],
    blessing: InputArtifact[standard_artifacts.ModelBlessing],
    infra_blessing: InputArtifact[standard_artifacts.InfraBlessing],
    served_model: InputArtifact[standard_artifacts.Model],
    pushed_model: OutputArtifact[standard_artifacts.PushedModel],
    serving_dir: Parameter[str],
    config: Parameter[str],
    label_map: Parameter[str],
    code_hash: Parameter[str],
    lite: InputArtifact[LiteModels] = None,
    hub: InputArtifact[HubModels] = None,
) -> None:
    """Publishes a model and removes old versions, or notes why the model is not published.

    `served_model` makes the node run again when what is served has changed. It also says which version the model was
    compared with, and the highest version that was ever pushed. `config` is the JSON of section `push`.
    """
    push = PushConfig.model_validate_json(config)
    saved_model = path_utils.serving_model_dir(model.uri)
    result = decide(saved_model, serving_dir, blessing, infra_blessing)
    if result is None:
        images = list(encoded_images(test_examples(examples, push.warmup_requests)))
        beside = {WARMUP_FILE: warmup_log(push.model_name, images)}
        # Models for other targets; servers ignore `assets.extra`.
        if lite:
            files = pushed_files(lite.uri, read_lite_record(lite.uri))
            beside |= {f"{EXTRA}lite/{name}": content for name, content in files.items()}
        if hub:
            files = pushed_files(hub.uri, read_hub_record(hub.uri))
            beside |= {f"{EXTRA}hub/{name}": content for name, content in files.items()}
        version = publish(
            saved_model,
            serving_dir,
            class_names=list(LabelMap.model_validate_json(label_map).names),
            extra=beside,
            above=served_model.get_int_custom_property(HIGHEST_PUSHED),
            expected_served=served_model.get_int_custom_property(SERVED_VERSION),
        )
        prune(serving_dir, push.keep)
        result = PushResult(True, version)
    pushed_model.set_int_custom_property(PUSHED, int(result.pushed))
    if result.version:
        pushed_model.set_string_custom_property(PUSHED_DESTINATION, result.version.path)
        pushed_model.set_string_custom_property(PUSHED_VERSION, str(result.version.version))
    if result.reason:
        pushed_model.set_string_custom_property(REASON, result.reason)
