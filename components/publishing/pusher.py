"""ModelPusher: publishes a blessed model, unless it is the one already served."""

import tempfile
from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2
from tfx import types
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components.artifacts import DESTINATION, PUSHED, REASON, VERSION, HubModels, LiteModels
from components.config import PushConfig
from components.function_component import function_component
from components.ingest.sample_images import encoded_images, test_examples
from components.publishing import directory as serving_directory
from components.publishing import infra_check
from components.publishing import pins_and_blocklist as version_marks
from components.publishing import served_model as baseline
from components.publishing.directory import EXTRA, WARMUP_FILE
from components.targets import hub_record, lite_record
from components.targets.record import TargetRecord, pushed_files
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


def refusal(blessing: types.Artifact, infra_blessing: types.Artifact) -> str:
    """Why a model may not be pushed, or an empty string."""
    if not blessing.get_int_custom_property("blessed"):
        return "not blessed by the evaluation"
    if not infra_blessing.get_int_custom_property(infra_check.BLESSED):
        return "the infra check failed: " + infra_blessing.get_string_custom_property(infra_check.REASON)
    return ""


def rolled_back(withdrawal: version_marks.Withdrawal) -> str:
    """Why a model that is good enough is not pushed all the same."""
    when = f"{withdrawal.withdrawn_at:%Y-%m-%d %H:%M} UTC"
    why = f" ({withdrawal.reason})" if withdrawal.reason else ""
    return f"version {withdrawal.version}, which is this model, was rolled back on {when}{why}"


def target_files(folder: str, uri: str, record: TargetRecord) -> dict[str, bytes]:
    """Models for another target, by their places in the version; servers pass over `assets.extra`."""
    return {f"{EXTRA}{folder}/{name}": content for name, content in pushed_files(uri, record).items()}


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
    """Publishes; `served_model` makes the node run again when what is served has changed, says which version the model
    was evaluated against, and which numbers were given before.
    """
    push = PushConfig.model_validate_json(config)
    saved_model = path_utils.serving_model_dir(model.uri)
    pushed_model.set_int_custom_property(PUSHED, 0)
    reason = refusal(blessing, infra_blessing)
    if reason:
        pushed_model.set_string_custom_property(REASON, reason)
        return
    version_marks.pinned(serving_dir)  # Were they unreadable, that must not turn out after the push.
    fingerprint = serving_directory.model_fingerprint(saved_model)
    served = serving_directory.served(serving_dir)
    if served and served.record.model_fingerprint == fingerprint:
        # Should the run that published it have been killed before it could record that, its lineage hangs on this.
        pushed_model.set_string_custom_property(DESTINATION, served.path)
        pushed_model.set_string_custom_property(VERSION, str(served.version))
        pushed_model.set_string_custom_property(REASON, f"already served as version {served.version}")
        return
    withdrawal = version_marks.withdrawn(serving_dir).get(fingerprint)
    if withdrawal:
        pushed_model.set_string_custom_property(REASON, rolled_back(withdrawal))
        return
    images = list(encoded_images(test_examples(examples, push.warmup_requests)))
    extra = {WARMUP_FILE: warmup_log(push.model_name, images)}
    if lite:
        extra |= target_files("lite", lite.uri, lite_record.read_record(lite.uri))
    if hub:
        extra |= target_files("hub", hub.uri, hub_record.read_record(hub.uri))
    version = serving_directory.publish(
        saved_model,
        serving_dir,
        class_names=list(LabelMap.model_validate_json(label_map).names),
        extra=extra,
        above=served_model.get_int_custom_property(baseline.HIGHEST),
        expected_served=served_model.get_int_custom_property(baseline.SERVED),
    )
    serving_directory.prune(serving_dir, push.keep)
    pushed_model.set_int_custom_property(PUSHED, 1)
    pushed_model.set_string_custom_property(DESTINATION, version.path)
    pushed_model.set_string_custom_property(VERSION, str(version.version))
